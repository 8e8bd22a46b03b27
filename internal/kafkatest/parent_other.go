//go:build kafka && !linux

package kafkatest

import "syscall"

// withParent has no effect on this system: a killed test process leaves its brokers running.
func withParent() *syscall.SysProcAttr { return nil }
