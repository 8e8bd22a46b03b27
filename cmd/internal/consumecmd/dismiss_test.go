package consumecmd

import (
	"context"
	"errors"
	"io"
	"testing"
)

// TestDismissIsInterrupted: an interruption ends a read that blocks, as that of a terminal does.
func TestDismissIsInterrupted(t *testing.T) {
	t.Parallel()
	ctx, interrupt := context.WithCancel(t.Context())
	terminal, keyboard := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		_, err := readRows(until(ctx, terminal), "-")
		ended <- err
	}()
	if _, err := keyboard.Write([]byte("address,externalId,chainId\n")); err != nil {
		t.Fatal(err)
	}
	interrupt()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
}
