package consumecmd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/purser-onboard/purser/client"
	"github.com/purser-onboard/purser/cmd/internal/config"
)

// variant is a way to sign a request, and its setting.
type variant struct {
	components []string
	parameters config.Parameters
	older      time.Duration // how much earlier created lies than with --signature-age
	setting    string
}

// variants are the component sets that servers are known to want, the likeliest first. Which one the partner wants is
// not published.
func variants(c *config.Consumer) []variant {
	fields := []string{"authorization", "content-type", "content-digest", "idempotency-key"}
	var list []variant
	for _, target := range []string{
		"@method,@authority,@path,@query", "@method,@target-uri", "@method,@authority,@target-uri", "@method,@path,@query",
		"@method,@authority,@path,@target-uri", "@method,@request-target", "@method,@authority,@request-target",
	} {
		components := slices.Concat(strings.Split(target, ","), fields)
		if !slices.Equal(components, c.SignatureComponents) {
			list = append(list, variant{components: components, parameters: c.Parameters,
				setting: "--signature-components=" + strings.Join(components, ",")})
		}
	}
	return list
}

// alternatives are the variants of the target, each with the parameters that servers are known to want, and ages.
func alternatives(c *config.Consumer) []variant {
	given := variant{components: c.SignatureComponents, parameters: c.Parameters}
	all := append([]variant{given}, variants(c)...)
	list := all[1:]
	for _, v := range all {
		for _, p := range []struct {
			text       string
			parameters config.Parameters
		}{
			{"nonce", config.Parameters{Nonce: true}},
			{"expires", config.Parameters{Expires: 5 * time.Minute}},
			{"nonce,expires", config.Parameters{Nonce: true, Expires: 5 * time.Minute}},
			{"nonce,expires,tag", config.Parameters{Nonce: true, Expires: 5 * time.Minute, Tag: "purser"}},
		} {
			if p.parameters == c.Parameters {
				continue
			}
			list = append(list, variant{components: v.components, parameters: p.parameters,
				setting: strings.TrimSpace(v.setting + " --signature-parameters=" + p.text)})
		}
	}
	for _, age := range []time.Duration{0, 12 * time.Second, time.Minute, 3 * time.Minute} {
		if age != c.SignatureAge {
			list = append(list, variant{components: given.components, parameters: given.parameters, older: age - c.SignatureAge,
				setting: fmt.Sprintf("--signature-age=%v", age)})
		}
	}
	return list
}

// findSignature tries other ways to sign when the partner does not accept the one that is configured, with GETs that
// change nothing, and says which setting it accepts. It is empty when the failure is not about the signature.
func findSignature(ctx context.Context, c *config.Consumer, p *partner, failure error) string {
	if !aboutSignature(failure) {
		return ""
	}
	tried := 0
	for _, v := range alternatives(c) {
		created := func() time.Time { return p.clock.Created().Add(-v.older) }
		sign, err := p.requestSigner(c, v.components, v.parameters, created)
		if err != nil {
			continue // not possible with these settings
		}
		tried++
		err = p.client.CheckSigned(ctx, sign)
		if err == nil {
			return "the partner accepts the request with " + v.setting + ": set that"
		}
		if !aboutSignature(err) {
			return fmt.Sprintf("the search for an accepted setting ended with: %v", err)
		}
	}
	return fmt.Sprintf("none of %d other signature settings works; the key, its id or the credentials are probably "+
		"wrong: check --signing-key, --signing-key-id (`consumer register-key` registers a key) and --api-key", tried)
}

// aboutSignature reports whether the failure may be about the signature of the request.
func aboutSignature(err error) bool {
	var failure *client.Error
	if !errors.As(err, &failure) {
		return false
	}
	switch failure.Kind {
	case client.RequestSignature, client.Unauthorized, client.Forbidden, client.Invalid, client.KeyReused:
		return true
	}
	return false
}
