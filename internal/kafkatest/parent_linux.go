//go:build kafka

package kafkatest

import "syscall"

// withParent has the kernel kill a broker when its test process has ended, even if that was killed.
func withParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
