package ledger

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/purser-onboard/purser/pipeline"
)

func testCustomer(n int) pipeline.Customer {
	at := time.Date(2026, 2, 1, 0, 0, n, 123456000, time.UTC)
	return pipeline.Customer{
		ID: fmt.Sprintf("c0ffee00-0000-4000-8000-%012d", n), ChainID: account(n).String(),
		ExternalID: testRow(n, "").ExternalID, Status: "screening", CreatedAt: at, UpdatedAt: at.Add(time.Hour),
	}
}

func replace(t testing.TB, l *Ledger, begun time.Time, list ...pipeline.Customer) {
	t.Helper()
	err := l.ReplaceDirectory(t.Context(), begun, func(add func(pipeline.Customer) error) error {
		for _, c := range list {
			if err := add(c); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func find(t testing.TB, l *Ledger, chainID, externalID string) []pipeline.Customer {
	t.Helper()
	found, err := l.FindCustomers(t.Context(), chainID, externalID)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestFindCustomers(t *testing.T) {
	l, _ := openTest(t)
	begun := time.Date(2026, 3, 1, 1, 2, 3, 0, time.UTC)
	twice := testCustomer(4)
	twice.Status = "active" // its status when it was listed again
	lower := testCustomer(5)
	lower.ChainID = strings.ToLower(lower.ChainID)
	replace(t, l, begun, testCustomer(1), testCustomer(2), testCustomer(4), lower, twice)
	if at, err := l.DirectoryAsOf(t.Context()); err != nil || !at.Equal(begun) {
		t.Errorf("DirectoryAsOf: got %v, %v; want %v", at, err, begun)
	}
	one, two := testCustomer(1), testCustomer(2)
	for name, c := range map[string]struct {
		chainID, externalID string
		want                []pipeline.Customer
	}{
		"none":           {account(9).String(), "cust-9", nil},
		"pair":           {one.ChainID, one.ExternalID, []pipeline.Customer{one}},
		"account":        {one.ChainID, "cust-9", []pipeline.Customer{one}},
		"any case":       {strings.ToLower(one.ChainID), "cust-9", []pipeline.Customer{one}},
		"upper case":     {strings.ToUpper(one.ChainID), "cust-9", []pipeline.Customer{one}},
		"listed lower":   {account(5).String(), "cust-9", []pipeline.Customer{lower}},
		"externalId":     {account(9).String(), two.ExternalID, []pipeline.Customer{two}},
		"exact id":       {account(9).String(), strings.ToUpper(two.ExternalID), nil},
		"two":            {one.ChainID, two.ExternalID, []pipeline.Customer{one, two}},
		"listed twice":   {account(9).String(), twice.ExternalID, []pipeline.Customer{twice}},
		"nothing at all": {"", "", nil},
	} {
		if got := find(t, l, c.chainID, c.externalID); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: got %+v, want %+v", name, got, c.want)
		}
	}
	var plan strings.Builder
	rows, err := l.readers.QueryContext(t.Context(), "EXPLAIN QUERY PLAN "+findCustomersQuery(), "a", "b")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var id, parent, unused int
		var detail string
		if err := rows.Scan(&id, &parent, &unused, &detail); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(&plan, detail)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(plan.String(), "SCAN d") || strings.Count(plan.String(), "USING INDEX directory_") != 4 {
		t.Errorf("got plan\n%s\nwant four uses of the indexes and no scan", plan.String())
	}
}

// TestEachWithListedCustomers: each row comes with the customers of its account, in any case, in the list's order.
func TestEachWithListedCustomers(t *testing.T) {
	l, o := openTest(t)
	rows := make([]pipeline.Row, eachPage+1) // a second page
	for n := range rows {
		rows[n] = testRow(n, "import-1")
	}
	accept(t, l, rows...)
	of := func(n int, externalID, status string) pipeline.Customer {
		c := testCustomer(n)
		c.ChainID, c.ExternalID, c.Status = strings.ToLower(rows[n].Account.String()), externalID, status
		return c
	}
	want := map[int64][]pipeline.Customer{
		2:            {of(1, "cust-1", "screening"), of(1, "other", "rejected"), of(1, "cust-1", "active")},
		eachPage + 1: {of(eachPage, fmt.Sprintf("cust-%d", eachPage), "active")},
	}
	for range 2 { // each copy of the list is in force once
		replace(t, l, o.Now(), append(slices.Clone(want[2]), want[eachPage+1]...)...)
		got := map[int64][]pipeline.Customer{}
		err := l.Each(t.Context(), func(r pipeline.Record, listed []pipeline.Customer) error {
			if len(listed) > 0 {
				got[r.ID] = listed
			}
			return nil
		})
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, %v; want %+v", got, err, want)
		}
	}
}

// TestReplaceDirectoryIsAllOrNothing: the earlier list is used until the new one is complete, and after an
// interruption.
func TestReplaceDirectoryIsAllOrNothing(t *testing.T) {
	l, o := openTest(t)
	if at, err := l.DirectoryAsOf(t.Context()); err != nil || !at.IsZero() {
		t.Errorf("DirectoryAsOf without a list: got %v, %v; want the zero time", at, err)
	}
	first := o.Now()
	replace(t, l, first, testCustomer(1))
	cut := errors.New("cut off")
	err := l.ReplaceDirectory(t.Context(), first.Add(time.Hour), func(add func(pipeline.Customer) error) error {
		for n := range 3 * customersPerChunk {
			if err := add(testCustomer(100 + n)); err != nil {
				return err
			}
		}
		if got := find(t, l, account(1).String(), ""); len(got) != 1 {
			t.Errorf("during ReplaceDirectory: got %+v, want the customer of the earlier list", got)
		}
		if got := find(t, l, account(100).String(), ""); len(got) != 0 {
			t.Errorf("during ReplaceDirectory: got %+v, want no customer of the new list", got)
		}
		return cut
	})
	if !errors.Is(err, cut) {
		t.Fatalf("got %v, want feed's error", err)
	}
	if at, err := l.DirectoryAsOf(t.Context()); err != nil || !at.Equal(first) {
		t.Errorf("DirectoryAsOf after an interruption: got %v, %v; want %v", at, err, first)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = reopen(t, o)
	for round := range 3 {
		replace(t, l, first.Add(time.Duration(round)*time.Hour), testCustomer(2+round))
		if got := find(t, l, account(2+round).String(), ""); len(got) != 1 {
			t.Errorf("round %d: got %+v, want a customer", round, got)
		}
		if got := find(t, l, account(1+round).String(), ""); len(got) != 0 {
			t.Errorf("round %d: got %+v, want no customer of the earlier list", round, got)
		}
	}
	var left int
	err = l.readers.QueryRowContext(t.Context(),
		`SELECT (SELECT count(*) FROM directory_0) + (SELECT count(*) FROM directory_1)`).Scan(&left)
	if err != nil || left != 1 {
		t.Errorf("got %d entries in both copies, %v; want 1", left, err)
	}
	replace(t, l, first) // an empty list is a list
	if got := find(t, l, account(4).String(), ""); len(got) != 0 {
		t.Errorf("empty list: got %+v, want no customer", got)
	}
}

func TestReplaceDirectoryStopsWithItsContext(t *testing.T) {
	l, o := openTest(t)
	ctx, cancel := context.WithCancel(t.Context())
	added := 0
	err := l.ReplaceDirectory(ctx, o.Now(), func(add func(pipeline.Customer) error) error {
		cancel()
		for ; added < 10*customersPerChunk; added++ {
			if add(testCustomer(added)) != nil {
				return nil // a feed that forgets the error
			}
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) || added >= customersPerChunk {
		t.Errorf("got %v after %d customers, want context.Canceled before %d", err, added, customersPerChunk)
	}
	if at, err := l.DirectoryAsOf(t.Context()); err != nil || !at.IsZero() {
		t.Errorf("DirectoryAsOf: got %v, %v; want the zero time", at, err)
	}
}

// TestReplaceDirectoryLetsOthersWrite: updates get through while a long list is written, and a second list waits.
func TestReplaceDirectoryLetsOthersWrite(t *testing.T) {
	l, o := openTest(t)
	r := acceptOne(t, l, testRow(1, "i1"), pipeline.Open)
	r = advance(t, l, r, pipeline.Creating, nil)
	inside := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		<-inside
		replace(t, l, o.Now().Add(time.Hour), testCustomer(7))
	})
	err := l.ReplaceDirectory(t.Context(), o.Now(), func(add func(pipeline.Customer) error) error {
		close(inside)
		for n := range 4 * customersPerChunk {
			if err := add(testCustomer(n)); err != nil {
				return err
			}
			if n%customersPerChunk == 0 {
				r = advance(t, l, r, pipeline.Creating, nil)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	if at, err := l.DirectoryAsOf(t.Context()); err != nil || !at.Equal(o.Now().Add(time.Hour)) {
		t.Errorf("DirectoryAsOf: got %v, %v; want that of the second list", at, err)
	}
}

// TestReplaceDirectoryIsBounded: Go's memory does not grow with the list; SQLite's is bounded by its page cache.
func TestReplaceDirectoryIsBounded(t *testing.T) {
	l, o := openTest(t)
	size := 40_000
	if testing.Short() {
		size = 10_000
	}
	var most uint64
	err := l.ReplaceDirectory(t.Context(), o.Now(), func(add func(pipeline.Customer) error) error {
		for n := range size {
			if err := add(testCustomer(n)); err != nil {
				return err
			}
			if n%5_000 == 4_999 {
				runtime.GC()
				var stats runtime.MemStats
				runtime.ReadMemStats(&stats)
				most = max(most, stats.HeapAlloc)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if most > 16<<20 {
		t.Errorf("got a heap of %d MiB for %d customers, want at most 16 MiB", most>>20, size)
	}
}
