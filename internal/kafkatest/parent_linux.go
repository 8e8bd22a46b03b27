//go:build kafka

package kafkatest

import "syscall"

// withParent lets the kernel end a broker whose test process has ended, however that came about.
func withParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
