package config

import "github.com/purser-onboard/purser/pipeline"

// IsFile reports whether content is a configuration file: it contains settings and nothing else.
func IsFile(content []byte) bool {
	f, err := loadFile(content)
	return err == nil && len(f.values) > 0 && f.validate(namesOfAll()) == nil
}

// CheckForm returns an error for a setting of `purser init` with an invalid form. Whether the value works is tested by
// check.
func (c *Init) CheckForm(flag, value string) error {
	switch flag {
	case "api-url":
		_, err := parseAPIURL(value)
		return err
	case "api-key":
		if !isUUID(value) {
			return &Error{Setting: "--api-key", Problem: notUUID}
		}
	case "chain":
		if value == "any" {
			return nil
		}
		if _, err := pipeline.ParseChain(value); err != nil {
			return &Error{"--chain", value, err.Error()}
		}
	}
	return nil
}
