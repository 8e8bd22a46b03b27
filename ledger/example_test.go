package ledger_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/purser-onboard/purser/ledger"
	"github.com/purser-onboard/purser/pipeline"
)

func ExampleOpen() {
	dir, err := os.MkdirTemp("", "ledger-example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = os.RemoveAll(dir) }()
	ctx := context.Background()
	l, err := ledger.Open(ctx, ledger.Options{
		Path:        filepath.Join(dir, "ledger.db"),
		Environment: ledger.Environment{APIHost: "api.example.com", APIKeyID: "key-1"},
		Now:         func() time.Time { return time.Date(2026, 3, 1, 22, 0, 0, 0, time.UTC) },
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer l.Close()

	account, err := pipeline.ParseAccount("eip155:300:0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed")
	if err != nil {
		fmt.Println(err)
		return
	}
	row := pipeline.Row{Account: account, ExternalID: "cust-1", ImportID: "monday", File: "export.csv", Line: 2}
	answers, err := l.Accept(ctx, []pipeline.Row{row})
	if err != nil {
		fmt.Println(err)
		return
	}
	next := answers[0].Record
	fmt.Println(next.Stage, "at version", next.Version)

	next.Stage, next.Class, next.Reason = pipeline.Failed, "no-key", "the signer has no key for this account"
	if _, err := l.Update(ctx, next); err != nil {
		fmt.Println(err)
		return
	}
	// The same message again is skipped; a new import starts the row again.
	for _, importID := range []string{"monday", "tuesday"} {
		row.ImportID = importID
		answers, err := l.Accept(ctx, []pipeline.Row{row})
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(importID, answers[0].Admission == pipeline.Settled, answers[0].Record.Stage)
	}
	// Output:
	// planned at version 1
	// monday true failed
	// tuesday false planned
}
