package sandboxcmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/purser-onboard/purser/cmd/internal/config"
	"github.com/purser-onboard/purser/cmd/internal/console"
	"github.com/purser-onboard/purser/sandbox"
)

// newServer returns the stand-in with the settings a, and those in cfg.
func newServer(a config.Adversary, cfg sandbox.Config) (*sandbox.Server, error) {
	faults, err := sandbox.ParseFaults(a.Faults)
	if err != nil {
		return nil, &config.Error{Setting: "--faults", Value: a.Faults, Problem: err.Error()}
	}
	if skew := a.SignatureSkew; skew != nil {
		if *skew < 0 {
			return nil, &config.Error{Setting: "--signature-skew", Value: skew.String(), Problem: "must be 0 or more"}
		}
		cfg.SignatureSkew = *skew
		if *skew == 0 {
			cfg.SignatureSkew = -1 // no skew; 0 is the default
		}
	}
	cfg.Now, cfg.Seed, cfg.Faults, cfg.Verify = time.Now, a.Seed, faults, sandbox.Verification(a.Verify)
	cfg.KeyTTL, cfg.ChallengeTTL, cfg.TokenTTL, cfg.Latency = a.KeyTTL, a.ChallengeTTL, a.TokenTTL, a.Latency
	server, err := sandbox.New(cfg)
	if err != nil {
		return nil, console.Coded(console.ExitUsage, err)
	}
	return server, nil
}

// serve serves the stand-in until ctx ends.
func serve(ctx context.Context, c *config.SandboxCommands, stdout, stderr io.Writer) error {
	log := console.NewLogger(stderr, c.LogFormat, c.LogLevel)
	server, err := newServer(c.Serve.Adversary, sandbox.Config{
		Domain: c.Serve.Domain, Rate: c.Serve.Rate, DeclaredRate: c.Serve.DeclaredRate, Logger: log,
		RequiredParams: c.Serve.RequireParameters,
	})
	if err != nil {
		return err
	}
	creds, err := openCredentials(c.Serve.Dir)
	if err != nil {
		return console.Unusable(err)
	}
	if err := server.RegisterCredentials(creds); err != nil {
		return err
	}
	api, err := new(net.ListenConfig).Listen(ctx, "tcp", c.Serve.Listen)
	if err != nil {
		return &config.Error{Setting: "--listen", Value: c.Serve.Listen, Problem: err.Error()}
	}
	control, err := new(net.ListenConfig).Listen(ctx, "tcp", c.Serve.Control)
	if err != nil {
		err = &config.Error{Setting: "--control", Value: c.Serve.Control, Problem: err.Error()}
		return errors.Join(err, api.Close())
	}
	server.RedirectTo("http://" + control.Addr().String())
	url := "http://" + api.Addr().String() + "/v1"
	env, err := writeEnvironment(c.Serve, creds, url)
	if err != nil {
		return errors.Join(console.Unusable(err), api.Close(), control.Close())
	}
	fmt.Fprintf(stdout, "API       %s\ncontrol   http://%s\nsettings  %s (source it, then run purser night FILE)\n",
		url, control.Addr(), env)
	return serveAll(ctx, map[net.Listener]http.Handler{api: server.API(), control: server.Control()})
}

// serveAll serves until ctx ends, and then waits up to 5 s for requests in flight.
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
