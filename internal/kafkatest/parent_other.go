//go:build kafka && !linux

package kafkatest

import "syscall"

// withParent has no means here: a test process that is killed leaves its brokers behind.
func withParent() *syscall.SysProcAttr { return nil }
