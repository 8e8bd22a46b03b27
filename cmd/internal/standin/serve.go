package standin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/purser-onboard/purser/cmd/internal/config"
	"github.com/purser-onboard/purser/cmd/internal/console"
	"github.com/purser-onboard/purser/sandbox"
)

// newServer makes the stand-in that the settings describe.
func newServer(
	a config.Adversary, domain string, rate float64, declared float64, log *slog.Logger,
) (*sandbox.Server, error) {
	faults, err := sandbox.ParseFaults(a.Faults)
	if err != nil {
		return nil, &config.Error{Setting: "--faults", Value: a.Faults, Problem: err.Error()}
	}
	server, err := sandbox.New(sandbox.Config{
		Now: time.Now, Seed: a.Seed, Domain: domain, Rate: rate, Faults: faults,
		KeyTTL: a.KeyTTL, ChallengeTTL: a.ChallengeTTL, TokenTTL: a.TokenTTL, Latency: a.Latency,
		DeclaredRate: declared, Logger: log,
	})
	if err != nil {
		return nil, console.Coded(console.ExitUsage, err)
	}
	return server, nil
}

// serve runs the stand-in until it is stopped.
func serve(ctx context.Context, c *config.SandboxCommands, stdout, stderr io.Writer) error {
	log := console.NewLogger(stderr, c.LogFormat, c.LogLevel)
	server, err := newServer(c.Serve.Adversary, c.Serve.Domain, c.Serve.Rate, c.Serve.DeclaredRate, log)
	if err != nil {
		return err
	}
	creds, err := openCredentials(c.Serve.Dir)
	if err != nil {
		return err
	}
	if err := server.RegisterCredentials(creds); err != nil {
		return err
	}
	api, err := new(net.ListenConfig).Listen(ctx, "tcp", c.Serve.Listen)
	if err != nil {
		return err
	}
	control, err := new(net.ListenConfig).Listen(ctx, "tcp", c.Serve.Control)
	if err != nil {
		return errors.Join(err, api.Close())
	}
	server.RedirectTo("http://" + control.Addr().String())
	url := "http://" + api.Addr().String() + "/v1"
	env, err := writeEnvironment(c.Serve.Dir, creds, url)
	if err != nil {
		return errors.Join(err, api.Close(), control.Close())
	}
	fmt.Fprintf(stdout, "API       %s\ncontrol   http://%s\nsettings  %s (source it, then start a consumer)\n",
		url, control.Addr(), env)
	return serveAll(ctx, map[net.Listener]http.Handler{api: server.API(), control: server.Control()})
}

// serveAll serves until ctx ends, then lets requests in flight finish for a few seconds.
func serveAll(ctx context.Context, handlers map[net.Listener]http.Handler) error {
	group, ctx := errgroup.WithContext(ctx)
	for listener, handler := range handlers {
		server := &http.Server{Handler: handler, ReadHeaderTimeout: 10 * time.Second}
		group.Go(func() error {
			if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
				return err
			}
			return nil
		})
		group.Go(func() error {
			<-ctx.Done()
			graceful, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			if err := server.Shutdown(graceful); err != nil {
				return server.Close()
			}
			return nil
		})
	}
	return group.Wait()
}
