package remote

import (
	"context"
	"errors"
	"maps"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ethereum/go-ethereum/common"
)

func account(b byte) common.Address { return common.Address{b} }

func TestAccountsReadsAgainForWhatIsMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reads := 0
		there := map[common.Address]int{account(1): 11}
		a := NewAccounts(func(context.Context) (map[common.Address]int, error) {
			reads++
			known := map[common.Address]int{}
			maps.Copy(known, there)
			return known, nil
		}, nil)
		find := func(b byte, wantOK bool, wantReads int) {
			t.Helper()
			v, ok, err := a.Find(t.Context(), account(b))
			if err != nil || ok != wantOK || ok && v != int(b)*11 || reads != wantReads {
				t.Errorf("account %d: %d, %v, %v after %d reads, want %v after %d", b, v, ok, err, reads, wantOK, wantReads)
			}
		}
		find(1, true, 1)
		find(2, false, 1)
		there[account(2)] = 22
		time.Sleep(apart - 1)
		find(2, false, 1)
		time.Sleep(time.Nanosecond)
		find(2, true, 2)
		time.Sleep(time.Hour)
		find(1, true, 2)
		a.Forget(account(1))
		find(1, true, 3)
		if n, err := a.Read(t.Context()); n != 2 || err != nil || reads != 4 {
			t.Errorf("Read = %d, %v after %d reads; want 2, none, 4", n, err, reads)
		}
	})
}

func TestAccountsWithAClockThatStepsBack(t *testing.T) {
	clock := time.Unix(1_800_000_000, 0)
	reads := 0
	a := NewAccounts(func(context.Context) (map[common.Address]int, error) {
		reads++
		return map[common.Address]int{}, nil
	}, func() time.Time { return clock })
	for range 2 {
		if _, ok, err := a.Find(t.Context(), account(1)); ok || err != nil {
			t.Fatal(ok, err)
		}
		clock = clock.Add(-time.Hour)
	}
	if reads != 2 {
		t.Errorf("%d reads, want another one after the step", reads)
	}
}

// One reads for all who wait, and all of them get what he got.
func TestAccountsReadsOnce(t *testing.T) {
	broken := errors.New("broken")
	for name, outcome := range map[string]error{"well": nil, "badly": broken} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				reads := 0
				go1 := make(chan struct{})
				a := NewAccounts(func(context.Context) (map[common.Address]int, error) {
					reads++
					<-go1
					return map[common.Address]int{account(1): 11}, outcome
				}, nil)
				var all sync.WaitGroup
				for range 20 {
					all.Go(func() {
						if _, ok, err := a.Find(t.Context(), account(1)); !errors.Is(err, outcome) || ok != (outcome == nil) {
							t.Errorf("Find = %v, %v; want error %v", ok, err, outcome)
						}
					})
				}
				synctest.Wait()
				close(go1)
				all.Wait()
				if reads != 1 {
					t.Errorf("%d reads, want 1", reads)
				}
			})
		})
	}
}

// That the one who reads gives up is his affair: the next one reads.
func TestAccountsWhoseReaderLeaves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reads := 0
		a := NewAccounts(func(ctx context.Context) (map[common.Address]int, error) {
			if reads++; reads == 1 {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return map[common.Address]int{account(1): 11}, nil
		}, nil)
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		all.Go(func() {
			if _, _, err := a.Find(ctx, account(1)); !errors.Is(err, context.Canceled) {
				t.Errorf("the caller that left: got error %v, want Canceled", err)
			}
		})
		synctest.Wait()
		all.Go(func() {
			if _, ok, err := a.Find(t.Context(), account(1)); !ok || err != nil {
				t.Errorf("the caller that stayed: got %v, %v; want true", ok, err)
			}
		})
		impatient, leave := context.WithCancel(t.Context())
		all.Go(func() {
			if _, _, err := a.Find(impatient, account(1)); !errors.Is(err, context.Canceled) {
				t.Errorf("the caller that waited: got error %v, want Canceled", err)
			}
		})
		synctest.Wait()
		leave()
		synctest.Wait()
		cancel()
		all.Wait()
		if reads != 2 {
			t.Errorf("%d reads, want 2", reads)
		}
		if _, _, err := a.Find(ctx, account(1)); !errors.Is(err, context.Canceled) {
			t.Errorf("Find with an ended context: got error %v, want Canceled", err)
		}
	})
}
