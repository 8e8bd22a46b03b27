package consumecmd

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/purser-onboard/purser/cmd/internal/config"
	"github.com/purser-onboard/purser/pipeline"
	"github.com/purser-onboard/purser/pipeline/onboard"
	"github.com/purser-onboard/purser/printable"
)

// failures prints rows that are not onboarded, in a form that the importer reads: those that ended badly, and with
// --all those that are not settled, too.
func failures(ctx context.Context, c *config.ConsumerCommands, s Streams) (err error) {
	chosen, err := choose(&c.Failures, time.Now())
	if err != nil {
		return err
	}
	if c.Failures.Dismissed && c.Failures.Fleet {
		return &config.Error{Setting: "--dismissed", Problem: "is for this ledger, and the ledger topic has no such mark"}
	}
	book, _, err := openBook(ctx, &c.Consumer, c.Failures.Fleet, s)
	if err != nil {
		return err
	}
	defer closing(&err, "ledger", book.Close)
	out := csv.NewWriter(s.Stdout)
	header := []string{"address", "externalId", "chainId", "stage", "class", "reason", "file", "line", "runbook",
		"firstFile", "firstLine"}
	if err := out.Write(header); err != nil {
		return err
	}
	printed, open, dismissed := 0, 0, 0
	err = book.Failures(ctx, func(r pipeline.Record) error {
		if !r.Stage.Terminal() {
			open++
		}
		if r.Dismissed {
			dismissed++
		}
		if !chosen.has(&r) {
			return nil
		}
		printed++
		return out.Write([]string{
			r.Account.Address.Hex(), r.ExternalID, "eip155:" + strconv.FormatUint(r.Account.Chain, 10),
			string(r.Stage), printable.Defuse(r.Class), printable.Defuse(r.Reason),
			printable.Defuse(r.File), strconv.Itoa(r.Line), onboard.ClassOf(r.Class, r.Stage).Runbook(),
			printable.Defuse(r.FirstFile), strconv.Itoa(r.FirstLine),
		})
	})
	out.Flush()
	if err := errors.Join(err, out.Error()); err != nil {
		return err
	}
	if printed == 0 && chosen.text != "" {
		fmt.Fprintf(s.Stderr, "no row matches %s%s\n", chosen.text, chosen.note())
	}
	if dismissed > 0 && !chosen.dismissed {
		fmt.Fprintf(s.Stderr, "%s dismissed and not listed; --dismissed lists them\n",
			printable.Count(dismissed, "row is", "rows are"))
	}
	if open > 0 && !chosen.unsettled {
		fmt.Fprintf(s.Stderr, "%s unsettled and not listed; --all lists unsettled rows, too\n",
			printable.Count(open, "row is", "rows are"))
	}
	return nil
}

// choice is what --stage, --class, --since, --import and --all choose.
type choice struct {
	unsettled bool // rows that are not settled, too
	dismissed bool // rows that are dismissed instead of the others
	stages    []pipeline.Stage
	classes   []onboard.Class
	since     time.Time
	importID  string // or its beginning
	text      string // the flags that are set, apart from --all
}

func choose(f *config.Failures, now time.Time) (c choice, err error) {
	c = choice{unsettled: f.All, dismissed: f.Dismissed, importID: f.Import}
	var said []string
	for _, text := range f.Stage {
		stage := pipeline.Stage(text)
		if !slices.Contains(pipeline.Stages(), stage) || stage == pipeline.Onboarded {
			known := slices.DeleteFunc(pipeline.Stages(), func(s pipeline.Stage) bool { return s == pipeline.Onboarded })
			return c, config.UnknownValue("--stage", text, texts(known))
		}
		c.stages = append(c.stages, stage)
		c.unsettled = c.unsettled || !stage.Terminal()
	}
	for _, text := range f.Class {
		class := onboard.Class(text)
		if !slices.Contains(onboard.Classes(), class) {
			return c, config.UnknownValue("--class", text, texts(onboard.Classes()))
		}
		c.classes = append(c.classes, class)
	}
	if f.Since != "" {
		if c.since, err = sinceWhen(f.Since, now); err != nil {
			return c, err
		}
	}
	for name, value := range map[string]string{
		"--stage": strings.Join(f.Stage, ","), "--class": strings.Join(f.Class, ","), "--since": f.Since,
		"--import": f.Import,
	} {
		if value != "" {
			said = append(said, name+" "+value)
		}
	}
	slices.Sort(said)
	c.text = strings.Join(said, " ")
	return c, nil
}

func texts[T ~string](list []T) []string {
	all := make([]string, len(list))
	for i, t := range list {
		all[i] = string(t)
	}
	return all
}

// note explains --import, which is easily misunderstood.
func (c *choice) note() string {
	if c.importID == "" {
		return ""
	}
	return " (a row belongs to the latest import that had it)"
}

// has reports whether a row that is not onboarded is chosen.
func (c *choice) has(r *pipeline.Record) bool {
	return (c.unsettled || r.Stage.Terminal()) && r.Dismissed == c.dismissed &&
		(len(c.stages) == 0 || slices.Contains(c.stages, r.Stage)) &&
		(len(c.classes) == 0 || slices.Contains(c.classes, onboard.ClassOf(r.Class, r.Stage))) &&
		!r.UpdatedAt.Before(c.since) && strings.HasPrefix(r.ImportID, c.importID)
}
