// Package awskms signs with keys in AWS KMS: asymmetric keys of the spec ECC_SECG_P256K1, which cannot be exported. It
// uses AWS's SDK and its standard chain of credentials: environment, shared configuration and profiles, SSO, web
// identity (EKS), container and instance roles.
//
// An account's key is found by its alias, alias/purser/0x<40 lower-case hex digits>. Aliases are case-sensitive, so
// this spelling is looked up first, with one request for each key and no list. Only if there is no such alias are the
// aliases listed, once, and searched for another spelling of the address. Before a key is used for the first time, its
// public key must be the account's. From then on the key is used by its ARN and not by the alias, which may be changed
// meanwhile.
package awskms

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
	"github.com/aws/aws-sdk-go-v2/service/sts"
	"github.com/aws/smithy-go/logging"
	"github.com/ethereum/go-ethereum/common"

	"github.com/purser-onboard/purser/printable"
	"github.com/purser-onboard/purser/signer"
)

// Shape is how the URI looks. All parameters are optional. Without a region, the environment or a profile must name
// one. alias-prefix is alias/purser/ unless it is given. An endpoint (a VPC endpoint, an emulator) is https, or http on
// a loopback address; one on loopback also serves STS.
const Shape = "awskms:///?region=eu-west-1&alias-prefix=alias/purser/&endpoint=https://host"

const (
	tries     = 3                // of the SDK for one call
	mostPause = 2 * time.Second  // between two of them
	patience  = 15 * time.Second // for one of them
	// stsPatience is short, because STS may be out of reach.
	stsPatience = 5 * time.Second
	// unknownV is a placeholder for v, which KMS does not return; signer.Verified finds it.
	unknownV = 0xff
)

// KMS is the KMS of one account and region; it implements signer.Backend.
//
// Its errors: ErrNoKey when no alias names the account or its key is gone; ErrMismatch when the alias names the key of
// another account, or a key that does not make Ethereum signatures; ErrDeclined when the key is disabled, pending
// deletion or without its material (DisabledException, KMSInvalidStateException); ErrUnusable when AWS does not accept
// the credentials or they lack a permission, and for a redirect. Throttling, KeyUnavailableException and faults of the
// service and the network are transient; the SDK has then tried three times, within ctx. An answer other than success
// is an *Error.
type KMS struct {
	prefix string
	region string
	now    func() time.Time

	kms  *kms.Client
	sts  *sts.Client
	idle interface{ CloseIdleConnections() }

	listing chan struct{} // holds one token while the aliases are listed

	mu     sync.Mutex                // guards what follows
	proven map[common.Address]string // ARNs of keys whose public key is the account's
	known  *aliases                  // nil until they were first listed
}

// Open prepares the use of the KMS that uri names (see Shape); it is a signer.Opener. It fails if the chain of
// credentials, which may query a metadata service, finds none. It sends no request to KMS.
func Open(ctx context.Context, uri string, env signer.Environment) (signer.Backend, error) {
	return open(ctx, uri, env, retry.NewExponentialJitterBackoff(mostPause))
}

func open(ctx context.Context, uri string, env signer.Environment, pause retry.BackoffDelayer) (*KMS, error) {
	set, err := parse(uri)
	if err != nil {
		return nil, err
	}
	buildable := newBuildable()
	options := []func(*config.LoadOptions) error{
		config.WithHTTPClient(buildable),
		config.WithLogger(logging.Nop{}), // the SDK's own writes to standard error
		config.WithRetryer(func() aws.Retryer {
			return retry.NewStandard(func(o *retry.StandardOptions) {
				o.MaxAttempts, o.MaxBackoff, o.Backoff = tries, mostPause, pause
			})
		}),
	}
	if set.region != "" {
		options = append(options, config.WithRegion(set.region))
	}
	cfg, err := config.LoadDefaultConfig(ctx, options...)
	if err != nil {
		return nil, unusable(ctx, "AWS configuration", err)
	}
	if cfg.Region == "" {
		return nil, &signer.URIError{
			Scheme: scheme, Problem: "has no region, and neither environment nor profile name one", Shape: Shape,
		}
	}
	if _, err := cfg.Credentials.Retrieve(ctx); err != nil {
		return nil, unusable(ctx, "AWS credentials", err)
	}
	client := bounded(cfg.HTTPClient) // by now with the certificates of AWS_CA_BUNDLE
	k := &KMS{
		prefix:  set.prefix,
		region:  cfg.Region,
		now:     env.Now,
		idle:    client,
		listing: make(chan struct{}, 1),
		proven:  map[common.Address]string{},
	}
	if k.now == nil {
		k.now = time.Now
	}
	k.kms = kms.NewFromConfig(cfg, func(o *kms.Options) {
		o.HTTPClient = client
		if set.endpoint != "" {
			o.BaseEndpoint = aws.String(set.endpoint)
		}
	})
	k.sts = sts.NewFromConfig(cfg, func(o *sts.Options) {
		o.HTTPClient = client
		if set.loopback {
			o.BaseEndpoint = aws.String(set.endpoint)
		}
	})
	return k, nil
}

// SignMessage implements signer.Signer. KMS is sent the hash of the message, never the message.
func (k *KMS) SignMessage(ctx context.Context, account common.Address, message []byte) (signer.Signature, error) {
	if err := ctx.Err(); err != nil {
		return signer.Signature{}, err
	}
	hash := signer.MessageHash(message)
	for first := true; ; first = false {
		arn, remembered, err := k.key(ctx, account)
		if err != nil {
			return signer.Signature{}, err
		}
		sig, err := k.sign(ctx, account, arn, hash)
		if errors.Is(err, signer.ErrNoKey) {
			k.forget(account)
			if first && remembered { // the alias may name another key by now
				continue
			}
		}
		return sig, err
	}
}

func (k *KMS) sign(
	ctx context.Context, account common.Address, arn string, hash common.Hash,
) (signer.Signature, error) {
	out, err := k.kms.Sign(ctx, &kms.SignInput{
		KeyId:            aws.String(arn),
		Message:          hash[:],
		MessageType:      types.MessageTypeDigest,
		SigningAlgorithm: types.SigningAlgorithmSpecEcdsaSha256, // for the curve's width; KMS does not hash a digest again
	})
	if err != nil {
		return signer.Signature{}, explain(ctx, "Sign", account, err)
	}
	r, s, err := parseSignature(out.Signature)
	if err != nil {
		return signer.Signature{}, fmt.Errorf("KMS Sign for %v: %w", account, err)
	}
	var sig signer.Signature
	copy(sig[:32], r[:])
	copy(sig[32:64], s[:])
	sig[64] = unknownV
	return sig, nil
}

// HasKey implements signer.Backend. It reads the public key behind the alias, once for each account, so an alias of the
// wrong key is found before it is used: the error then wraps ErrMismatch, and for a disabled key ErrDeclined, if KMS
// reports that.
func (k *KMS) HasKey(ctx context.Context, account common.Address) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	_, _, err := k.key(ctx, account)
	return err
}

// Check implements signer.Backend: it reads the caller's identity from STS, if that can be reached, lists the aliases,
// and reads the public key behind the first one.
func (k *KMS) Check(ctx context.Context) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	caller, err := k.caller(ctx)
	if err != nil {
		return "", err
	}
	list, err := k.list(ctx, nil, true)
	if err != nil {
		return "", err
	}
	if len(list.names) == 0 {
		return "", fmt.Errorf("%w: KMS in %s has no alias %s0x<address> (aliases of any name: %d)",
			signer.ErrUnusable, k.region, k.prefix, list.total)
	}
	if _, err := k.prove(ctx, list.first, list.names[list.first]); errors.Is(err, signer.ErrNoKey) {
		return "", fmt.Errorf("KMS lists %s but does not find its key: %w", list.names[list.first], err)
	} else if err != nil {
		return "", err
	}
	line := fmt.Sprintf("AWS KMS %s, %s: %s %s0x…, the first one's key is its own",
		k.region, caller, printable.Count(len(list.names), "account", "accounts"), k.prefix)
	if list.odd > 0 {
		line += fmt.Sprintf("; aliases under the prefix that are not an address: %d", list.odd)
	}
	if list.twice > 0 {
		line += fmt.Sprintf("; aliases that repeat an account: %d", list.twice)
	}
	return line, nil
}

// caller returns the ARN that the credentials belong to, or a text that STS is unreachable.
func (k *KMS) caller(ctx context.Context) (string, error) {
	short, cancel := context.WithTimeout(ctx, stsPatience)
	defer cancel()
	out, err := k.sts.GetCallerIdentity(short, &sts.GetCallerIdentityInput{})
	if err == nil {
		return printable.Line(aws.ToString(out.Arn), mostWords), nil
	}
	if err := explain(ctx, "GetCallerIdentity", common.Address{}, err); ctx.Err() != nil ||
		errors.Is(err, signer.ErrUnusable) {
		return "", err
	}
	return "caller unknown (STS is unreachable)", nil
}

// Close implements signer.Backend: it closes the idle connections.
func (k *KMS) Close() error {
	k.idle.CloseIdleConnections()
	return nil
}
