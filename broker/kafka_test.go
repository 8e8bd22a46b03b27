//go:build kafka

package broker_test

import (
	"testing"
	"time"

	"github.com/purser-onboard/purser/broker/kafkatest"
)

func TestScratch(t *testing.T) {
	for _, v := range []kafkatest.Version{kafkatest.V4, kafkatest.V39} {
		b := time.Now()
		c := kafkatest.Start(t, v, 1)
		t.Log(v, time.Since(b), c.Addrs())
	}
	b := time.Now()
	kafkatest.Start(t, kafkatest.V4, 3)
	t.Log(time.Since(b))
}
