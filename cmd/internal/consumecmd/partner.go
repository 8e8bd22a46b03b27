package consumecmd

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/ethereum/go-ethereum/common"
	"github.com/google/uuid"

	"github.com/purser-onboard/purser/client"
	"github.com/purser-onboard/purser/cmd/internal/config"
	"github.com/purser-onboard/purser/cmd/internal/console"
	"github.com/purser-onboard/purser/httpsig"
	"github.com/purser-onboard/purser/ledger"
	"github.com/purser-onboard/purser/loopback"
	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/siwe"
)

// partner is the way to the partner API.
type partner struct {
	client  *client.Client
	limiter *client.RateLimiter
	clock   *client.Clock // the partner's, which the signatures of requests go by
	base    *url.URL
	key     *ecdsa.PrivateKey // signs the requests
}

// openPartner connects to the configured API. watch observes the requests; it may be nil. alter may change the client's
// settings.
func openPartner(
	c *config.Consumer, getenv func(string) string, log *slog.Logger, watch client.Observer,
	alter ...func(*client.Config),
) (*partner, error) {
	base, err := c.CheckPartner(getenv)
	if err != nil {
		return nil, err
	}
	key, err := signingKey(c)
	if err != nil {
		return nil, err
	}
	return newPartner(c, base, key, log, watch, alter...)
}

// signingKey reads the key that signs the requests.
func signingKey(c *config.Consumer) (*ecdsa.PrivateKey, error) {
	raw, err := c.ReadSigningKey()
	if err != nil {
		return nil, err
	}
	defer clear(raw)
	key, err := httpsig.ParsePrivateKey(raw)
	if err != nil {
		return nil, &config.Error{Setting: "--signing-key", Value: c.SigningKey, Problem: err.Error()}
	}
	return key, nil
}

// newPartner connects to the API of settings that were checked. Without a key, requests are not signed.
func newPartner(
	c *config.Consumer, base *url.URL, key *ecdsa.PrivateKey, log *slog.Logger, watch client.Observer,
	alter ...func(*client.Config),
) (*partner, error) {
	console.AdoptStandardLog(log)
	authorities, err := c.Authorities()
	if err != nil {
		return nil, err
	}
	p := &partner{
		base: base, limiter: client.NewRateLimiter(c.Rate), clock: client.NewClock(time.Now, c.SignatureAge), key: key,
	}
	var sign client.RequestSigner = unsigned{}
	if key != nil {
		if sign, err = p.requestSigner(c, c.SignatureComponents, c.Parameters, p.clock.Created); err != nil {
			return nil, err
		}
	}
	settings := client.Config{
		BaseURL: c.APIURL, APIKey: c.APIKey, APISecret: c.Secret, Secret: c.SecretReader(), RootCAs: authorities,
		Sign: sign, Digest: c.ContentDigest,
		Timeout: c.RequestTimeout, Now: time.Now, RateLimiter: p.limiter, Clock: p.clock,
		Concurrency: c.Concurrency,
		UserAgent:   "purser/" + config.Version, Logger: log, Observer: watch,
	}
	for _, a := range alter {
		a(&settings)
	}
	if p.client, err = client.New(settings); err != nil {
		return nil, console.Coded(console.ExitUsage, err)
	}
	anybody := pipeline.Account{Chain: 1, Address: common.Address{1}}
	if err := p.policy(c)(anybody).Validate(); err != nil {
		return nil, unusablePolicy(c, err)
	}
	return p, nil
}

// unusablePolicy names the setting that makes the policy unusable.
func unusablePolicy(c *config.Consumer, err error) error {
	var unusable *siwe.UnusableError
	if !errors.As(err, &unusable) {
		return err
	}
	setting := "--challenge-domain"
	switch {
	case unusable.Field == siwe.FieldStatement:
		setting = "--challenge-statement"
	case unusable.Field == siwe.FieldURI && c.ChallengeURI != "":
		setting = "--challenge-uri"
	case unusable.Field == siwe.FieldURI:
		setting = "--challenge-uri-host"
	}
	return &config.Error{Setting: setting, Problem: unusable.Problem}
}

// requestSigner signs requests with the configured key in this way.
func (p *partner) requestSigner(
	c *config.Consumer, components []string, parameters config.Parameters, created func() time.Time,
) (*httpsig.Signer, error) {
	options := httpsig.Options{
		KeyID: c.SigningKeyID, Components: components, Now: created, Expires: parameters.Expires, Tag: parameters.Tag,
	}
	if parameters.Nonce {
		options.Nonce = uuid.NewString
	}
	sign, err := httpsig.NewSigner(p.key, options)
	var failure *httpsig.Error
	switch {
	case err == nil:
		return sign, nil
	case errors.As(err, &failure) && failure.Name == "KeyID":
		return nil, &config.Error{Setting: "--signing-key-id", Value: c.SigningKeyID, Problem: err.Error()}
	case errors.As(err, &failure) && failure.Name == "Tag":
		return nil, &config.Error{Setting: "--signature-parameters", Value: parameters.Tag, Problem: err.Error()}
	}
	return nil, &config.Error{
		Setting: "--signature-components", Value: strings.Join(components, ","), Problem: err.Error(),
	}
}

// environment is what keys are derived from, the path excepted, and the ledger is bound to (rules "Derived keys" and
// "One ledger, one environment").
func environment(c *config.Consumer, base *url.URL) ledger.Environment {
	return ledger.Environment{APIHost: base.Host, APIKeyID: c.APIKey, APIPath: cmp.Or(base.EscapedPath(), "/")}
}

// canonicalHost gives a host that a ledger is bound to the form that the API URL has.
func canonicalHost(base *url.URL) func(string) string {
	return func(host string) string {
		if canonical, err := config.CanonicalHost(base.Scheme, host); err == nil {
			return canonical
		}
		return host
	}
}

// policy returns the rule "Sign nothing blind"'s policy for an account.
func (p *partner) policy(c *config.Consumer) func(pipeline.Account) siwe.Policy {
	allowHTTP := loopback.Is(p.base.Hostname())
	return func(a pipeline.Account) siwe.Policy {
		return siwe.Policy{
			Domain: c.ChallengeDomain, URIHost: c.ChallengeURIHost, URI: c.ChallengeURI,
			Statement: c.Statement, AnyStatement: c.AnyStatement, ChainID: a.Chain, Address: a.Address,
			MaxAge: c.ChallengeTTL, Skew: clockSkew, Now: time.Now, AllowHTTP: allowHTTP,
			AllowRequestID: c.AllowRequestID, AllowResources: c.AllowResources,
		}
	}
}

// probe requests a customer that does not exist. A clock too wrong for checking challenges is detected here, before a
// customer is created.
func (p *partner) probe(ctx context.Context) error {
	result, err := p.client.Check(ctx)
	if err != nil {
		return err
	}
	return checkSkew(result.ClockSkew)
}

// checkClock returns an error for a clock that is too wrong to check challenges. It asks the partner for its time
// first: while this machine was suspended, its wall clock advanced, but the monotonic clock did not.
func (p *partner) checkClock(ctx context.Context) error {
	if checkSkew(p.client.Stats().ClockSkew) == nil {
		return nil
	}
	return p.probe(ctx)
}

// checkSkew returns an error for a clock that is too wrong to check challenges.
func checkSkew(skew time.Duration) error {
	switch {
	case skew > clockSkew:
		return fmt.Errorf("this machine's clock is %v ahead of the partner's: set it by NTP", skew.Round(time.Second))
	case skew < -clockSkew:
		return fmt.Errorf("this machine's clock is %v behind the partner's: set it by NTP", -skew.Round(time.Second))
	}
	return nil
}

// clockSkew is how far ahead of ours the partner's clock may be.
const clockSkew = 2 * time.Minute

func encoding(c *config.Consumer) client.SignatureEncoding {
	if c.SignatureEncoding == "raw" {
		return client.EncodingRaw
	}
	return client.EncodingHex
}
