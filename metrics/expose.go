package metrics

import (
	"bytes"
	"errors"
	"io"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/common/expfmt"
)

// Handler answers scrapes with all metrics, those of the Go runtime and the process included.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(prometheus.Gatherers{m.own, m.process}, promhttp.HandlerOpts{EnableOpenMetrics: true})
}

// WriteText writes the metrics with the prefix purser_ in Prometheus's text format, for the textfile collector of
// node_exporter.
func (m *Metrics) WriteText(w io.Writer) error {
	families, err := m.own.Gather()
	if err != nil {
		return err
	}
	for _, family := range families {
		if _, err := expfmt.MetricFamilyToText(w, family); err != nil {
			return err
		}
	}
	return nil
}

// IsText reports whether a file that begins so may be what WriteText writes, in this version or another.
func IsText(head []byte) bool { return bytes.HasPrefix(head, []byte("# HELP purser_")) }

// Ready returns nil if the run can work on rows: it has partitions of the queue, and the partner is not unavailable.
func (m *Metrics) Ready() error {
	now := m.read()
	switch {
	case len(now.positions) == 0:
		return errors.New("no partitions are assigned")
	case !now.brokers:
		return errors.New("the brokers do not answer")
	case now.outage:
		return errors.New("the partner is unavailable")
	}
	return nil
}
