package awskmstest

import (
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/asn1"
	"math/big"
	"sort"
	"strconv"
	"strings"

	"github.com/ethereum/go-ethereum/crypto"
)

// mostMessage is the most that Sign takes (API_Sign).
const mostMessage = 4096

type signInput struct {
	KeyID            string `json:"KeyId"`
	Message          []byte
	MessageType      string
	SigningAlgorithm string
}

type signOutput struct {
	KeyID            string `json:"KeyId"`
	Signature        []byte
	SigningAlgorithm string
}

func (s *Server) sign(in signInput) (out signOutput, failed *failure) {
	k, failed := s.find(in.KeyID)
	if failed != nil {
		return out, failed
	}
	if failed := k.usable("SIGN_VERIFY"); failed != nil {
		return out, failed
	}
	if len(in.Message) == 0 || len(in.Message) > mostMessage {
		return out, fail("ValidationException", "Message has %d bytes, want 1 to %d", len(in.Message), mostMessage)
	}
	// Both curves here are of 256 bits and go with one algorithm.
	if in.SigningAlgorithm != "ECDSA_SHA_256" {
		return out, fail("InvalidKeyUsageException",
			"Algorithm %s is incompatible with key spec %s", in.SigningAlgorithm, k.spec)
	}
	digest := in.Message
	switch in.MessageType {
	case "", "RAW":
		sum := sha256.Sum256(in.Message)
		digest = sum[:]
	case "DIGEST":
		if len(digest) != sha256.Size {
			return out, fail("ValidationException", "Digest is invalid length for algorithm ECDSA_SHA_256.")
		}
	default:
		return out, fail("ValidationException", "MessageType %q", in.MessageType)
	}
	raw, err := crypto.Sign(digest, k.private)
	if err != nil {
		return out, fail("KMSInternalException", "%v", err)
	}
	var pair struct{ R, S *big.Int }
	pair.R, pair.S = new(big.Int).SetBytes(raw[:32]), new(big.Int).SetBytes(raw[32:64])
	if s.signed++; s.signed%2 == 0 { // half of an HSM's s are high
		pair.S.Sub(crypto.S256().Params().N, pair.S)
	}
	der, err := asn1.Marshal(pair)
	if err != nil {
		return out, fail("KMSInternalException", "%v", err)
	}
	return signOutput{KeyID: k.arn, Signature: der, SigningAlgorithm: in.SigningAlgorithm}, nil
}

type publicKeyInput struct {
	KeyID string `json:"KeyId"`
}

type publicKeyOutput struct {
	KeyID                 string `json:"KeyId"`
	PublicKey             []byte
	CustomerMasterKeySpec string
	KeySpec               string
	KeyUsage              string
	SigningAlgorithms     []string `json:",omitempty"`
}

func (s *Server) publicKey(in publicKeyInput) (out publicKeyOutput, failed *failure) {
	k, failed := s.find(in.KeyID)
	if failed != nil {
		return out, failed
	}
	if failed := k.usable(k.usage); failed != nil {
		return out, failed
	}
	out = publicKeyOutput{KeyID: k.arn, CustomerMasterKeySpec: k.spec, KeySpec: k.spec, KeyUsage: k.usage}
	if k.usage == "SIGN_VERIFY" {
		out.SigningAlgorithms = []string{"ECDSA_SHA_256"}
	}
	curve, point := asn1.ObjectIdentifier{1, 3, 132, 0, 10}, crypto.FromECDSAPub(&k.private.PublicKey)
	if k.private.Curve == elliptic.P256() {
		curve = asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7}
	}
	var info struct {
		Algorithm struct{ Kind, Curve asn1.ObjectIdentifier }
		Key       asn1.BitString
	}
	info.Algorithm.Kind, info.Algorithm.Curve = asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}, curve
	info.Key = asn1.BitString{Bytes: point, BitLength: 8 * len(point)}
	der, err := asn1.Marshal(info)
	if err != nil {
		return out, fail("KMSInternalException", "%v", err)
	}
	out.PublicKey = der
	return out, nil
}

type listInput struct {
	Limit  int
	Marker string
}

type listOutput struct {
	Aliases    []aliasEntry
	NextMarker string `json:",omitempty"`
	Truncated  bool
}

type aliasEntry struct {
	AliasArn    string
	AliasName   string
	TargetKeyID string `json:"TargetKeyId,omitempty"`
}

// list returns a page of the aliases, sorted by name. The marker is opaque to clients.
func (s *Server) list(in listInput) (out listOutput, failed *failure) {
	from := 0
	if in.Marker != "" {
		number, ok := strings.CutPrefix(in.Marker, "marker-")
		n, err := strconv.Atoi(number)
		if !ok || err != nil || n > len(s.aliases) {
			return out, fail("InvalidMarkerException", "Could not deserialize marker")
		}
		from = n
	}
	if in.Limit < 0 || in.Limit > 100 {
		return out, fail("ValidationException", "Limit %d, want 1 to 100", in.Limit)
	}
	size := s.config.PageSize
	if in.Limit > 0 {
		size = min(size, in.Limit)
	}
	to := min(from+size, len(s.aliases))
	out.Aliases = []aliasEntry{}
	for _, a := range s.aliases[from:to] {
		out.Aliases = append(out.Aliases, aliasEntry{AliasArn: s.aliasArn(a.name), AliasName: a.name, TargetKeyID: a.keyID})
	}
	if to < len(s.aliases) {
		out.Truncated, out.NextMarker = true, "marker-"+strconv.Itoa(to)
	}
	return out, nil
}

// find takes a key's id, its ARN, an alias's name or its ARN, the last two case-sensitively.
func (s *Server) find(name string) (*key, *failure) {
	prefix := "arn:aws:kms:" + s.config.Region + ":" + accountID + ":"
	id := strings.TrimPrefix(strings.TrimPrefix(name, prefix), "key/")
	if strings.HasPrefix(id, "alias/") {
		i := s.position(id)
		if i == len(s.aliases) || s.aliases[i].name != id {
			return nil, fail("NotFoundException", "Alias %s is not found.", s.aliasArn(id))
		}
		id = s.aliases[i].keyID
	}
	k := s.keys[id]
	if k == nil {
		return nil, fail("NotFoundException", "Key '%skey/%s' does not exist", prefix, id)
	}
	return k, nil
}

func (s *Server) aliasArn(name string) string {
	return "arn:aws:kms:" + s.config.Region + ":" + accountID + ":" + name
}

func (s *Server) position(name string) int {
	return sort.Search(len(s.aliases), func(i int) bool { return s.aliases[i].name >= name })
}

func (k *key) usable(usage string) *failure {
	switch {
	case k.state == Disabled:
		return fail("DisabledException", "%s is disabled.", k.arn)
	case k.state == PendingDeletion:
		return fail("KMSInvalidStateException", "%s is pending deletion.", k.arn)
	case k.state == Unavailable:
		return &failure{code: "KeyUnavailableException", message: k.arn + " is unavailable.", status: 500}
	case k.usage != usage:
		return fail("InvalidKeyUsageException", "%s key usage is %s which is not valid for Sign.", k.arn, k.usage)
	}
	return nil
}
