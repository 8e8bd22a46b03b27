package config

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestTargets: the URLs that are told of a run come from a flag, a variable or a file, and no error shows them.
func TestTargets(t *testing.T) {
	const token = "eyJhbGciOiJIUzI1NiJ9.c2VjcmV0LXRva2Vu" // what no other setting may hold
	file := filepath.Join(t.TempDir(), "url")
	if err := os.WriteFile(file, []byte("https://hc.example/"+token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args          []string
		ping, webhook string
		problem       string
	}{
		{nil, "", "", ""},
		{[]string{"--ping-url=https://hc.example/?k=" + token}, "https://hc.example/?k=" + token, "", ""},
		{[]string{"--ping-url-file", file, "--webhook-url=http://127.0.0.1:1/" + token},
			"https://hc.example/" + token, "http://127.0.0.1:1/" + token, ""},
		{[]string{"--ping-url-file", file, "--ping-url=https://hc.example/" + token}, "", "", "--ping-url: is set together"},
		{[]string{"--ping-url=http://hc.example/" + token}, "", "", "--ping-url: the URL is a secret"},
		{[]string{"--webhook-url=" + token}, "", "", "--webhook-url: want https://"},
		{[]string{"--webhook-url=https:///" + token}, "", "", "--webhook-url: want https://"},
		{[]string{"--webhook-url=ftp://h/" + token}, "", "", "--webhook-url: want https://"},
		{[]string{"--webhook-url=https://h/%zz" + token}, "", "", "--webhook-url: want https://"},
		{[]string{"--webhook-url-file", file + token}, "", "", "--webhook-url-file: the file"},
	} {
		var out bytes.Buffer
		c, _, err := ParseConsumer(test.args, Streams{Stdout: &out, Stderr: &out})
		if err != nil {
			t.Errorf("%q: got %v, want no error of the parser", test.args, err)
			continue
		}
		ping, webhook, err := c.Targets()
		if test.problem != "" {
			if err == nil || !strings.HasPrefix(err.Error(), test.problem) || strings.Contains(err.Error(), "c2Vj") {
				t.Errorf("%q: got %v, want an error that begins with %q and hides the URL", test.args, err, test.problem)
			}
			continue
		}
		got := []string{"", ""}
		if ping != nil {
			got[0] = ping.String()
		}
		if webhook != nil {
			got[1] = webhook.String()
		}
		if err != nil || got[0] != test.ping || got[1] != test.webhook {
			t.Errorf("%q: got %q, %v; want %q, %q", test.args, got, err, test.ping, test.webhook)
		}
	}
	t.Setenv("PURSER_PING_URL", "https://hc.example/"+token)
	var out bytes.Buffer
	c, _, err := ParseConsumer(nil, Streams{Stdout: &out, Stderr: &out})
	if err != nil {
		t.Fatal(err)
	}
	if ping, _, err := c.Targets(); err != nil || ping.String() != "https://hc.example/"+token {
		t.Errorf("variable: got %v, %v; want its URL", ping, err)
	}
}
