package pursercmd

import (
	"context"
	"errors"

	"github.com/purser-onboard/purser/cmd/internal/config"
	"github.com/purser-onboard/purser/cmd/internal/console"
	"github.com/purser-onboard/purser/cmd/internal/consumecmd"
	"github.com/purser-onboard/purser/cmd/internal/importcmd"
)

// night is the command `purser night`: what `importer` and `consumer --drain` do, as one run.
func night(soft, hard context.Context, args []string, stdout *console.Stdout, screen *console.Screen, s Streams) error {
	i, c, err := config.ParseNight(args, config.Streams{Stdout: stdout, Stderr: screen, Program: Program})
	if err != nil {
		return err
	}
	screen.Format(c.LogFormat)
	screen.Find(config.Whereabouts(args))
	console.WarnOfVariables(screen, c.Common)
	streams := consumecmd.Streams{Stdout: stdout, Stderr: screen, Getenv: s.Getenv}
	summaries := consumecmd.Summaries(c, streams)
	feed := func(ctx context.Context) consumecmd.Import {
		result, err := importcmd.Import(ctx, i, s.Stdin, summaries, screen)
		err = i.Explain(err)
		done := consumecmd.Import{ID: result.ID, Err: err, Stops: err != nil && (result.QueueFailed || ctx.Err() != nil)}
		if unread := (*importcmd.ExportError)(nil); errors.As(err, &unread) {
			done.Export = unread.Path
		}
		return done
	}
	return c.Explain(consumecmd.Night(soft, hard, c, feed, streams))
}
