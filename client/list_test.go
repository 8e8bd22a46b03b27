package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
)

func listID(i int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012d", i) }

func element(i int) string {
	return `{"id":"` + listID(i) + `","chainId":"` + testChain + `","externalId":"e` + strconv.Itoa(i) +
		`","status":"active","createdAt":"2024-01-17T18:21:53Z","updatedAt":"2024-01-17T18:21:53Z"}`
}

// customersOf is Customers without the time that it took.
func customersOf(ctx context.Context, c *Client, yield func(Customer) error) error {
	_, err := c.Customers(ctx, yield)
	return err
}

func TestCustomers(t *testing.T) {
	two := element(0) + ` , ` + element(1)
	for name, tt := range map[string]struct {
		body    string
		yielded int
		problem string
		want    string // of a shapeError
	}{
		"array":             {`[` + two + `]`, 2, "", ""},
		"empty array":       {" [\n] ", 0, "", ""},
		"customers":         {`{"customers":[` + two + `]}`, 2, "", ""},
		"data, with others": {`{"total":2,"meta":{"a":[{}]},"data":[` + two + `],"next":null,"hasMore":false}`, 2, "", ""},
		"items":             {`{"items":[]}`, 0, "", ""},
		"a member data":     {`{"data":{"a":1},"items":[]}`, 0, "", ""},
		"no error":          {`{"error":null,"errors":[],"items":[]}`, 0, "", ""},
		"empty":             {``, 0, "truncated", ""},
		"null":              {`null`, 0, "not a list", ""},
		"a number":          {`7`, 0, "not a list", ""},
		"empty object":      {`{}`, 0, `no "customers"; it has no members`, "customers"},
		"no list":           {`{"a":[]}`, 0, `it has "a"`, "customers"},
		"object of object":  {`{"data":{"customers":[]}}`, 0, `it has "data", "data.customers"`, "customers"},
		"null list":         {`{"customers":null}`, 0, `no usable "customers"`, "customers"},
		"two lists":         {`{"data":[],"items":[]}`, 0, `no usable "items"; it has "data", "items"`, "items"},
		"cut between":       {`[` + two, 2, "truncated", ""},
		"cut after comma":   {`[` + two + `,`, 2, "truncated", ""},
		"cut within":        {`[` + two[:len(two)-5], 1, "customer 1", ""},
		"object cut":        {`{"data":[` + two + `]`, 2, "truncated", ""},
		"more after it":     {`[` + two + `] []`, 2, "unexpected data after the list", ""},
		"wrong type":        {`[` + two + `,{"id":7}]`, 2, `no usable "[2].id"`, "[2].id"},
		"wrong status":      {`[{"status":{"a":1},"id":"` + listID(0) + `"}]`, 0, `no usable "[0].status"`, "[0].status"},
		"null within":       {`[` + two + `,null]`, 2, `no "[2].id"; it has no members`, "[2].id"},
		"array within":      {`[[` + two + `]]`, 0, `no "[0].id"`, "[0].id"},
		"no id":             {`[` + two + `,{"externalId":"x"},` + two + `]`, 2, `it has "[2].externalId"`, "[2].id"},
		"no id, named":      {`{"data":[{"key":"x"}]}`, 0, `no "data[0].id"; it has "data[0].key"`, "data[0].id"},
		"no id, then cut":   {`[{"externalId":"x"},` + element(0), 0, "truncated", ""},
		"no list, then cut": {`{"a":[]`, 0, "truncated", ""},
		"error":             {`{"error":"upstream"}`, 0, "reports an error: upstream", ""},
		"error and list":    {`{"items":[` + two + `],"errors":[{"message":"shard 2"}]}`, 2, "an error: shard 2", ""},
		"error cut":         {`{"error":"upstream"`, 0, "truncated", ""},
		"no comma":          {`[` + element(0) + element(1) + `]`, 1, "customer 1", ""},
		"huge element":      {`[` + two + `,{"id":"` + strings.Repeat("x", 3<<20) + `"}]`, 2, "customer 2", ""},
		"huge space":        {`[` + two + strings.Repeat(" ", 3<<20) + `]`, 2, "too large", ""},
		"huge, under another name": {`{"rows":[` + strings.Repeat(element(1)+",", 20_000) + element(1) + `]}`, 0,
			`no "customers"; it has "rows"`, "customers"},
		"deep":            {`{"a":` + strings.Repeat("[", 20_000), 0, "depth", ""},
		"page of a proxy": {`<html>`, 0, "invalid character", ""},
	} {
		t.Run(name, func(t *testing.T) {
			c, _ := dial(t, reply200(tt.body))
			var got []Customer
			err := customersOf(t.Context(), c, func(customer Customer) error {
				got = append(got, customer)
				return nil
			})
			if len(got) != tt.yielded {
				t.Errorf("got %d customers, want %d", len(got), tt.yielded)
			}
			for i, customer := range got {
				if customer.ID != listID(i) || customer.ExternalID != "e"+strconv.Itoa(i) || customer.CreatedAt.Year() != 2024 {
					t.Errorf("customer %d: got %+v, want %s, e%[1]d of 2024", i, customer, listID(i))
				}
			}
			if tt.problem == "" {
				if err != nil {
					t.Errorf("got %v, want no error", err)
				}
				return
			}
			if e := asError(t, err); e.Kind != unusable(e) || !strings.Contains(e.Error(), tt.problem) {
				t.Errorf("got %v, want %q", e, tt.problem)
			}
			var shape *shapeError
			if errors.As(err, &shape) != (tt.want != "") || shape != nil && shape.Want != tt.want {
				t.Errorf("got %v, want a shapeError: %v, of %q", err, tt.want != "", tt.want)
			}
		})
	}
	t.Run("connection cut", func(t *testing.T) {
		c, _ := dial(t, func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `[`+two+`,`)
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		})
		wantKind(t, customersOf(t.Context(), c, func(Customer) error { return nil }), Malformed)
	})
	t.Run("stopped by yield", func(t *testing.T) {
		c, _ := dial(t, reply200(`[`+two+`]`))
		enough := errors.New("enough")
		err := customersOf(t.Context(), c, func(Customer) error { return enough })
		if err != enough { //nolint:errorlint // unchanged
			t.Errorf("got %v, want %v", err, enough)
		}
	})
	t.Run("refused", func(t *testing.T) {
		c, _ := dial(t, replying(403, ""))
		wantKind(t, customersOf(t.Context(), c, nil), Forbidden)
	})
}

// readAll returns what a list yields.
func readAll(t *testing.T, c *Client) ([]Customer, error) {
	t.Helper()
	var got []Customer
	err := customersOf(t.Context(), c, func(customer Customer) error {
		got = append(got, customer)
		return nil
	})
	return got, err
}
