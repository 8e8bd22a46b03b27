package config

import (
	"net/url"

	"github.com/purser-onboard/purser/loopback"
)

// Targets reads and checks the URLs of notifications; nil: none. Errors do not show them.
func (c *Consumer) Targets() (ping, webhook *url.URL, err error) {
	if ping, err = c.target("--ping-url", c.PingURL, c.PingURLFile); err != nil {
		return nil, nil, err
	}
	webhook, err = c.target("--webhook-url", c.WebhookURL, c.WebhookURLFile)
	return ping, webhook, err
}

func (c *Consumer) target(setting, value, file string) (*url.URL, error) {
	switch {
	case value == "" && file == "":
		return nil, nil
	case value != "" && file != "":
		return nil, &Error{Setting: setting, Problem: "is set together with " + setting + "-file: unset one"}
	case file != "":
		var err error
		if value, err = ReadSecret(setting+"-file", file, c.InsecurePermissions); err != nil {
			return nil, err
		}
		setting += "-file"
	}
	u, err := url.Parse(value)
	switch {
	case err != nil, u.Hostname() == "", u.Scheme != "https" && u.Scheme != "http", u.Fragment != "":
		return nil, &Error{Setting: setting, Problem: "want https://host/path"}
	case u.Scheme == "http" && !loopback.Is(u.Hostname()):
		return nil, &Error{Setting: setting, Problem: "the URL is a secret and is sent only over https, or over http to " +
			"loopback"}
	}
	return u, nil
}
