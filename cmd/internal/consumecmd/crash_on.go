//go:build crashpoints

package consumecmd

import (
	"fmt"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
)

// crashHook kills this process with SIGKILL at the n-th passing of a named point, as $PURSER_CRASH_AT says: "point:n".
func crashHook(getenv func(string) string) func(string) {
	at, count, ok := strings.Cut(getenv("PURSER_CRASH_AT"), ":")
	if !ok {
		return nil
	}
	n, err := strconv.ParseInt(count, 10, 64)
	if err != nil {
		panic(fmt.Sprintf("PURSER_CRASH_AT: %v", err))
	}
	var passed atomic.Int64
	return func(point string) {
		if point == at && passed.Add(1) == n {
			if err := syscall.Kill(syscall.Getpid(), syscall.SIGKILL); err != nil {
				panic(err)
			}
			select {} // the signal arrives before anything else happens
		}
	}
}
