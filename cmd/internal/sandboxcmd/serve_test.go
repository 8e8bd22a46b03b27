package sandboxcmd

import (
	"io"
	"strings"
	"testing"
	"time"

	"github.com/purser-onboard/purser/cmd/internal/config"
	"github.com/purser-onboard/purser/sandbox"
)

func TestVerificationSettings(t *testing.T) {
	for args, says := range map[string]string{
		"":                                    "",
		"--verify rfc --signature-skew 0s":    "",
		"--verify vendor --signature-skew 2s": "",
		"--require-parameters nonce,expires":  "",
		"--verify draft":                      `--verify: want one of vendor, rfc`,
		"--signature-skew=-1s":                `--signature-skew "-1s": must be 0 or more`,
		"--require-parameters iat":            `"iat"`,
	} {
		c, _, err := config.ParseSandbox(append([]string{"serve"}, strings.Fields(args)...),
			config.Streams{Stdout: io.Discard, Stderr: io.Discard})
		if err == nil {
			_, err = newServer(c.Serve.Adversary, sandbox.Config{RequiredParams: c.Serve.RequireParameters})
		}
		if says == "" && err != nil || says != "" && (err == nil || !strings.Contains(err.Error(), says)) {
			t.Errorf("%q: got %v, want an error with %q, or none if that is empty", args, err, says)
		}
	}
}

func TestVerifyDefaults(t *testing.T) {
	for _, args := range [][]string{{"serve"}, {"run", "x.csv"}} {
		c, command, err := config.ParseSandbox(args, config.Streams{Stdout: io.Discard, Stderr: io.Discard})
		if err != nil {
			t.Fatal(err)
		}
		a := c.Serve.Adversary
		if command == "run" {
			a = c.Run.Adversary
		}
		if a.Verify != string(sandbox.VerifyVendor) || a.SignatureSkew != nil || a.KeyTTL != time.Hour {
			t.Errorf("%s: got %+v, want vendor, no skew of its own and a key TTL of 1h", command, a)
		}
	}
}
