package consumecmd

import (
	"fmt"
	"io/fs"
	"testing"

	"github.com/purser-onboard/purser/signer"
)

// TestMayCome: a signer that is missing is worth another attempt, and a wrong PIN never is: devices lock.
func TestMayCome(t *testing.T) {
	for name, tt := range map[string]struct {
		err  error
		want bool
	}{
		"a missing file": {fmt.Errorf("%w: %w", signer.ErrUnusable, fs.ErrNotExist), true},
		"away":           {fmt.Errorf("%w: the token is not there", signer.ErrUnusable), true},
		"a wrong PIN": {fmt.Errorf("open: %w", &signer.LockoutError{
			Err: fmt.Errorf("%w: it does not accept the PIN", signer.ErrUnusable),
		}), false},
	} {
		if got := mayCome(tt.err); got != tt.want {
			t.Errorf("%s: got %v, want %v", name, got, tt.want)
		}
	}
}
