package config

import (
	"errors"
	"io"
	"maps"
	"testing"
)

func TestParseColumns(t *testing.T) {
	for text, want := range map[string]map[string]string{
		"":                       {},
		"address=wallet_address": {"address": "wallet_address"},
		"address=wallet,externalId=Customer ID,chainId=network": {"address": "wallet", "externalId": "Customer ID", "chainId": "network"},
		`externalId="Customer, ID",address=a`:                   {"externalId": "Customer, ID", "address": "a"},
		`externalId="say ""id"" = x"`:                           {"externalId": `say "id" = x`},
		" ADDRESS = a , external_id=b":                          {"address": "a", "externalId": "b"},
		"address":                                               nil,
		"address=":                                              nil,
		"customer=a":                                            nil,
		"address=a,address=b":                                   nil,
		"address=a,externalId=A":                                nil,
		`address="a`:                                            nil,
		`address="a"b`:                                          nil,
		`address="a"x,externalId=b`:                             nil,
	} {
		got, err := parseColumns(text)
		if setting := new(Error); want == nil && (!errors.As(err, &setting) || setting.Setting != "--columns") ||
			want != nil && (err != nil || !maps.Equal(got, want)) {
			t.Errorf("%q: got %q, %v, want %q", text, got, err, want)
		}
	}
}

func TestMaxInvalid(t *testing.T) {
	for text, want := range map[string]struct {
		rows    int64
		percent float64
	}{"0": {0, -1}, "100000": {100_000, -1}, "2.5%": {-1, 2.5}, "100%": {-1, 100}, "": {}, "-1": {}, "1e3": {}, "NaN%": {}, "101%": {}, "%": {}} {
		c, err := ParseImporter([]string{"--max-invalid", text, "x.csv"}, Streams{Stdout: io.Discard, Stderr: io.Discard})
		if want.rows == 0 && want.percent == 0 {
			if err == nil {
				t.Errorf("%q: got no error, want one", text)
			}
			continue
		}
		if err != nil || c.MaxInvalidRows != want.rows || c.MaxInvalidPercent != want.percent {
			t.Errorf("%q: got %+v, %v, want %+v", text, c, err, want)
		}
	}
}

func FuzzColumns(f *testing.F) {
	f.Add(`address="a,b""c",externalId=x`)
	f.Fuzz(func(t *testing.T, text string) {
		names, err := parseColumns(text)
		if err == nil && len(names) == 0 && text != "" {
			t.Errorf("%q: got no name and no error, want either", text)
		}
	})
}
