package dispatch

import (
	"testing"

	"github.com/purser-onboard/purser/pipeline/onboard"
)

// BenchmarkUntraced is an action that does nothing, without a trace and by itself: the difference is what traces cost
// that are off.
func BenchmarkUntraced(b *testing.B) {
	r := &Dispatcher{Options: Options{Worker: &onboard.Worker{}}}
	t := &item{Task: &onboard.Task{Action: onboard.DoSettle}}
	b.Run("off", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := r.step(b.Context(), t); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("bare", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := r.Worker.Step(b.Context(), t.Task); err != nil {
				b.Fatal(err)
			}
		}
	})
}
