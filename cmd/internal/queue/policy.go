package queue

import (
	"errors"
	"fmt"

	"github.com/purser-onboard/purser/broker"
	"github.com/purser-onboard/purser/cmd/internal/console"
)

// Coded gives an error of the broker its exit code and the settings to look at: the policy of docs/kafka.md, for
// importer and consumer alike, at the start and later. Errors that have a code keep it, and what is not the set-up's
// ends with console.ExitUnfinished anyway.
func Coded(err error) error {
	if errors.As(err, new(*console.CodedError)) || !broker.SetUp(err) {
		return err
	}
	if settings := settings(err); settings != "" {
		err = fmt.Errorf("%w: see %s", err, settings)
	}
	return console.Coded(console.ExitUsage, err)
}

// settings names what has to be changed, "" where the error says so itself.
func settings(err error) string {
	var refused *broker.RefusedError
	switch {
	case errors.As(err, new(*broker.DirError)):
		return "--data-dir"
	case errors.As(err, &refused):
		switch refused.Cause {
		case broker.CausePlainText, broker.CauseTLS:
			return "--kafka-tls"
		case broker.CauseAuthority:
			return "--kafka-ca and the host names in --brokers"
		case broker.CauseCertificate:
			return "--kafka-cert and --kafka-key"
		case broker.CauseNoLogin, broker.CauseMechanism:
			return "--kafka-sasl"
		case broker.CauseLogin:
			return "--kafka-username and --kafka-password-file, or --kafka-token-file"
		case broker.CauseHungUp:
			return "--kafka-tls, --kafka-sasl and the port in --brokers"
		case broker.CauseUnknownHost, broker.CauseClusters, broker.CauseNoBroker:
			return "--brokers"
		}
	}
	return ""
}
