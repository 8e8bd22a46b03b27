package queue

import (
	"errors"
	"fmt"

	"github.com/purser-onboard/purser/broker"
	"github.com/purser-onboard/purser/cmd/internal/console"
)

// Coded adds to an error of the broker its exit code and the settings to check, as docs/kafka.md lists them. An error
// that has a code keeps it. An error that is not caused by the set-up is returned unchanged: it ends the command with
// console.ExitUnfinished.
func Coded(err error) error {
	if errors.As(err, new(*console.CodedError)) || !broker.SetUp(err) {
		return err
	}
	if settings := settings(err); settings != "" {
		err = fmt.Errorf("%w: see %s", err, settings)
	}
	return console.Coded(console.ExitUsage, err)
}

// settings names the settings to change, "" where the error text names them.
func settings(err error) string {
	var setUp *broker.SetUpError
	switch {
	case errors.As(err, new(*broker.DirError)):
		return "--data-dir"
	case errors.As(err, &setUp):
		switch setUp.Cause {
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
		case broker.CauseClosed:
			return "--kafka-tls, --kafka-sasl and the port in --brokers"
		case broker.CauseGroup:
			return "--group: consumers need a group of their own"
		case broker.CauseUnknownHost, broker.CauseClusters, broker.CauseNoBroker, broker.CauseController:
			return "--brokers"
		}
	}
	return ""
}
