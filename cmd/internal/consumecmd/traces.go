package consumecmd

import (
	"github.com/purser-onboard/purser/client"
	"github.com/purser-onboard/purser/cmd/internal/config"
	"github.com/purser-onboard/purser/cmd/internal/tracing"
	"github.com/purser-onboard/purser/cmd/internal/tracing/rowtrace"
)

// trace opens the traces when a variable asks for them. stop exports the last spans; it is called at the very end.
func (r *run) trace(s Streams) (stop func(), err error) {
	exporter, err := config.TraceExporter(s.Getenv)
	if err != nil || exporter == "" {
		return func() {}, err
	}
	provider, err := tracing.Open(r.soft, tracing.Options{
		Exporter: exporter, Service: "purser-consumer", Version: config.Version, Instance: r.id.String(),
		CustomerData: r.c.CustomerData, Console: r.screen, Logger: r.log,
	})
	if err != nil {
		return nil, err
	}
	r.traces = rowtrace.New(provider, r.c.Group)
	return func() { provider.Close(r.hard) }, nil
}

// traced has the requests to the partner traced.
func (r *run) traced(c *client.Config) {
	if r.traces != nil {
		c.Around = r.traces.Around
	}
}
