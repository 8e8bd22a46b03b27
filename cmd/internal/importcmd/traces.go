package importcmd

import (
	"context"
	"io"
	"log/slog"
	"os"

	"github.com/purser-onboard/purser/cmd/internal/config"
	"github.com/purser-onboard/purser/cmd/internal/tracing"
)

// openTraces returns what begins the rows' traces; nil when no variable asks for them.
func openTraces(
	ctx context.Context, c *config.Importer, importID string, stderr io.Writer, log *slog.Logger,
) (*tracing.Provider, error) {
	if c.IgnoreEnvironment {
		return nil, nil
	}
	exporter, err := config.TraceExporter(os.Getenv)
	if err != nil || exporter == "" {
		return nil, err
	}
	return tracing.Open(ctx, tracing.Options{
		Exporter: exporter, Service: "purser-importer", Version: config.Version, Instance: importID,
		CustomerData: c.CustomerData, Console: stderr, Logger: log,
	})
}
