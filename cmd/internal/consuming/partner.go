package consuming

import (
	"errors"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/ethereum/go-ethereum/common"

	"github.com/purser-onboard/purser/client"
	"github.com/purser-onboard/purser/cmd/internal/config"
	"github.com/purser-onboard/purser/cmd/internal/console"
	"github.com/purser-onboard/purser/httpsig"
	"github.com/purser-onboard/purser/ledger"
	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/siwe"
)

// partner is the way to the partner API.
type partner struct {
	client *client.Client
	pace   *client.Pace
	base   *url.URL
}

func openPartner(c *config.Consumer, getenv func(string) string, log *slog.Logger) (*partner, error) {
	base, err := c.CheckPartner(getenv)
	if err != nil {
		return nil, err
	}
	sign, err := requestSigner(c)
	if err != nil {
		return nil, err
	}
	return newPartner(c, base, sign, log)
}

// requestSigner signs with the key and the id of the settings.
func requestSigner(c *config.Consumer) (*httpsig.Signer, error) {
	raw, err := os.ReadFile(c.SigningKey)
	if err != nil {
		return nil, &config.Error{Setting: "--signing-key", Problem: err.Error()}
	}
	key, err := httpsig.ParsePrivateKey(raw)
	if err != nil {
		return nil, &config.Error{Setting: "--signing-key", Value: c.SigningKey, Problem: err.Error()}
	}
	sign, err := httpsig.NewSigner(key, httpsig.Options{
		KeyID: c.SigningKeyID, Components: c.SignatureComponents, Now: time.Now,
	})
	if err != nil {
		var sig *httpsig.Error
		if errors.As(err, &sig) && sig.Name == "KeyID" {
			return nil, &config.Error{Setting: "--signing-key-id", Value: c.SigningKeyID, Problem: err.Error()}
		}
		return nil, &config.Error{
			Setting: "--signature-components", Value: strings.Join(c.SignatureComponents, ","), Problem: err.Error(),
		}
	}
	return sign, nil
}

// newPartner connects to the API of settings that were checked.
func newPartner(c *config.Consumer, base *url.URL, sign client.RequestSigner, log *slog.Logger) (*partner, error) {
	authorities, err := c.Authorities()
	if err != nil {
		return nil, err
	}
	pace := client.NewPace(c.Rate)
	api, err := client.New(client.Config{
		BaseURL: c.APIURL, APIKey: c.APIKey, APISecret: c.Secret, Secret: c.SecretReader(), RootCAs: authorities,
		Sign: sign, Digest: c.ContentDigest,
		Timeout: c.RequestTimeout, Now: time.Now, Pace: pace,
		Concurrency: c.Concurrency,
		UserAgent:   "purser/" + config.Version, Logger: log,
	})
	if err != nil {
		return nil, console.Coded(console.ExitUsage, err)
	}
	p := &partner{client: api, pace: pace, base: base}
	anybody := pipeline.Account{Chain: 1, Address: common.Address{1}}
	if err := p.policy(c)(anybody).Validate(); err != nil {
		return nil, &config.Error{Setting: "--challenge-domain", Value: c.ChallengeDomain, Problem: err.Error()}
	}
	return p, nil
}

// environment is what keys are derived from and the ledger is bound to (rules 2 and 12).
func (p *partner) environment(c *config.Consumer) ledger.Environment {
	return ledger.Environment{APIHost: p.base.Host, APIKeyID: c.APIKey}
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

// policy returns rule 8's policy for an account.
func (p *partner) policy(c *config.Consumer) func(pipeline.Account) siwe.Policy {
	loopback := config.IsLoopback(p.base.Hostname())
	return func(a pipeline.Account) siwe.Policy {
		return siwe.Policy{
			Domain: c.ChallengeDomain, ChainID: a.Chain, Address: a.Address,
			MaxAge: c.ChallengeTTL, Skew: clockSkew, Now: time.Now, AllowHTTP: loopback,
		}
	}
}

// clockSkew is how far ahead of ours the partner's clock may be.
const clockSkew = 2 * time.Minute

func encoding(c *config.Consumer) client.SignatureEncoding {
	if c.SignatureEncoding == "raw" {
		return client.EncodingRaw
	}
	return client.EncodingHex
}
