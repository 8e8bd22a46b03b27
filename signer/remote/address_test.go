package remote

import (
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/purser-onboard/purser/signer"
)

const shape = "some+http://host"

func TestParseAddress(t *testing.T) {
	files := map[string]string{"ca-file": "/a b+", "cert-file": "c", "key-file": "k"}
	tests := map[string]struct {
		want    address
		name    string
		url     string // of "x/y"
		exposed bool
	}{
		"some+http://localhost:8550": {address{scheme: "some+http", host: "localhost:8550"},
			"http://localhost:8550", "http://localhost:8550/x/y", false},
		"SOME+HTTP://LocalHost/": {address{scheme: "some+http", host: "LocalHost", path: "/"},
			"http://LocalHost", "http://LocalHost/x/y", false},
		"some+http://127.1.2.3:1/a%2Fb/": {address{scheme: "some+http", host: "127.1.2.3:1", path: "/a%2Fb/"},
			"http://127.1.2.3:1", "http://127.1.2.3:1/a%2Fb/x/y", false},
		"some+http://[::1]:65535": {address{scheme: "some+http", host: "[::1]:65535"},
			"http://[::1]:65535", "http://[::1]:65535/x/y", false},
		"some+http://10.0.0.1": {address{scheme: "some+http", host: "10.0.0.1"},
			"http://10.0.0.1", "http://10.0.0.1/x/y", true},
		"some+http://localhost.example:": {address{scheme: "some+http", host: "localhost.example"},
			"http://localhost.example", "http://localhost.example/x/y", true},
		"some+https://signer.example/s3cret": {address{scheme: "some+https", secure: true, host: "signer.example", path: "/s3cret"},
			"https://signer.example", "https://signer.example/s3cret/x/y", false},
		"some+https://h?ca-file=/a%20b+&cert-file=c&key-file=k": {
			address{scheme: "some+https", secure: true, host: "h", params: files},
			"https://h", "https://h/x/y", false},
		"some+unix:///run/a%20b.ipc": {address{scheme: "some+unix", socket: "/run/a b.ipc"}, "unix:/run/a b.ipc", "", false},
		"some+unix:run/s.ipc":        {address{scheme: "some+unix", socket: "run/s.ipc"}, "unix:run/s.ipc", "", false},
	}
	for uri, test := range tests {
		got, err := parseAddress(uri, "some", shape, true)
		if err != nil {
			t.Errorf("%s: got error %v, want none", uri, err)
			continue
		}
		if got.scheme != test.want.scheme || got.socket != test.want.socket || got.secure != test.want.secure ||
			got.host != test.want.host || got.path != test.want.path || !maps.Equal(got.params, test.want.params) {
			t.Errorf("%s: %+v, want %+v", uri, got, test.want)
		}
		if got.name() != test.name || got.exposed() != test.exposed || test.url != "" && got.url("x/y") != test.url {
			t.Errorf("%s: name %q, URL %q, exposed %v", uri, got.name(), got.url("x/y"), got.exposed())
		}
	}
}

func TestParseAddressRefuses(t *testing.T) {
	for uri, problem := range map[string]string{
		"":                                        "has no scheme",
		"//s3cret":                                "has no scheme",
		"some:":                                   "another scheme",
		"http://s3cret":                           "another scheme",
		"other+http://s3cret":                     "another scheme",
		"some+ftp://s3cret":                       "another scheme",
		"some+http:":                              "names no host",
		"some+http://":                            "names no host",
		"some+http:///s3cret":                     "names no host",
		"some+http://:80":                         "names no host",
		"some+http:s3cret":                        "names no host",
		"some+http://u:s3cret@h":                  "user or password",
		"some+http://s3cret@h":                    "user or password",
		"some+http://h:port":                      "malformed",
		"some+http://h:0":                         "port",
		"some+http://h:65536":                     "port",
		"some+http://h/%s3cret":                   "malformed",
		"some+http://h /s3cret":                   "malformed",
		"some+http://h#s3cret":                    "fragment",
		"some+https://h?ca-file=x#s3cret":         "fragment",
		"some+http://h?ca-file=s3cret":            "only https",
		"some+http://h?":                          "only https",
		"some+https://h?":                         "parameter 1",
		"some+https://h?key=s3cret":               `unknown parameter "key"`,
		"some+https://h?cert-file=s3cret":         "without the other",
		"some+https://h?key-file=s3cret":          "without the other",
		"some+https://h?ca-file=":                 "empty parameter",
		"some+https://h?ca-file=x&ca-file=s3cret": "twice",
		"some+unix:":                              "names no path",
		"some+unix://h/s3cret":                    "names a host",
		"some+unix:///s3cret?x=y":                 "unknown parameter",
	} {
		_, err := parseAddress(uri, "some", shape, true)
		var bad *signer.URIError
		if !errors.As(err, &bad) || bad.Shape != shape || !strings.Contains(err.Error(), problem) {
			t.Errorf("%q: error %v, want %q", uri, err, problem)
		} else if strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%q: got error %v, want no value of the URI in it", uri, err)
		}
	}
	if _, err := parseAddress("some+unix:x", "some", shape, false); err == nil {
		t.Error("a socket where only HTTP is supported: got no error, want one")
	}
}

func FuzzParseAddress(f *testing.F) {
	f.Add("some+http://localhost:8550/x")
	f.Add("some+https://[::1%25x]:1?ca-file=a&cert-file=b&key-file=c")
	f.Add("some+unix:///run/x")
	f.Fuzz(func(t *testing.T, uri string) {
		a, err := parseAddress(uri, "some", shape, true)
		var bad *signer.URIError
		if err != nil && !errors.As(err, &bad) {
			t.Fatalf("got error %v, want a *URIError", err)
		}
		if err == nil && (a.host == "") == (a.socket == "") {
			t.Fatalf("%q: got %+v, want either a host or a socket", uri, a)
		}
	})
}
