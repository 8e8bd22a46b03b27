package consuming

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

// variant is a way to sign a request, and the setting that asks for it.
type variant struct {
	components []string
	parameters config.Parameters
	older      time.Duration // how much earlier created lies than with the settings given
	setting    string
}

// variants are the ways to sign that servers are known to want, the likeliest first. Which one the partner wants is not
// published.
func variants(c *config.Consumer) []variant {
	fields := []string{"authorization", "content-type", "content-digest", "idempotency-key"}
	var list []variant
	for _, target := range []string{
		"@method,@authority,@path,@query", "@method,@target-uri", "@method,@authority,@target-uri", "@method,@path,@query",
		"@method,@request-target", "@method,@authority,@request-target",
	} {
		components := slices.Concat(strings.Split(target, ","), fields)
		if !slices.Equal(components, c.SignatureComponents) {
			list = append(list, variant{components: components, parameters: c.Parameters,
				setting: "--signature-components=" + strings.Join(components, ",")})
		}
	}
	for _, text := range []string{"nonce", "expires", "nonce,expires", "nonce,expires,tag"} {
		p := config.Parameters{}
		for name := range strings.SplitSeq(text, ",") {
			switch name {
			case "nonce":
				p.Nonce = true
			case "expires":
				p.Expires = 5 * time.Minute
			case "tag":
				p.Tag = "purser"
			}
		}
		if p != c.Parameters {
			list = append(list, variant{components: c.SignatureComponents, parameters: p,
				setting: "--signature-parameters=" + text})
		}
	}
	for _, older := range []time.Duration{10 * time.Second, time.Minute} {
		list = append(list, variant{components: c.SignatureComponents, parameters: c.Parameters, older: older,
			setting: fmt.Sprintf("--signature-age=%v", c.SignatureAge+older)})
	}
	return list
}

// findSignature tries other ways to sign when the partner refused the one that is configured, with GETs that change
// nothing, and says which setting it accepts. It is empty when the signature was not what it refused.
func findSignature(ctx context.Context, c *config.Consumer, p *partner, refusal error) string {
	if !refusedSignature(refusal) {
		return ""
	}
	tried := 0
	for _, v := range variants(c) {
		created := func() time.Time { return p.clock.Created().Add(-v.older) }
		sign, err := p.requestSigner(c, v.components, v.parameters, created)
		if err != nil {
			continue // it was not to be had with these settings
		}
		tried++
		err = p.client.CheckSigned(ctx, sign)
		if err == nil {
			return "the partner accepts the request with " + v.setting + ": set that"
		}
		if !refusedSignature(err) {
			return fmt.Sprintf("the search for a setting that is accepted ended with: %v", err)
		}
	}
	return fmt.Sprintf("none of %d other ways to sign was accepted, so the key, its id or the credentials are wrong: check "+
		"--signing-key, --signing-key-id (`consumer register-key` registers a key) and --api-key", tried)
}

// refusedSignature reports whether the partner may have refused the request because of its signature.
func refusedSignature(err error) bool {
	var failure *client.Error
	if !errors.As(err, &failure) {
		return false
	}
	switch failure.Kind {
	case client.RequestSignature, client.Unauthorized, client.Forbidden, client.Invalid:
		return true
	}
	return false
}
