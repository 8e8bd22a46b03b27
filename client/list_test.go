package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func listID(i int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012d", i) }

func element(i int) string {
	return `{"id":"` + listID(i) + `","chainId":"` + testChain + `","externalId":"e` + strconv.Itoa(i) +
		`","status":"active","createdAt":"2024-01-17T18:21:53Z","updatedAt":"2024-01-17T18:21:53Z"}`
}

func TestCustomers(t *testing.T) {
	two := element(0) + ` , ` + element(1)
	for name, tt := range map[string]struct {
		body    string
		yielded int
		problem string
		want    string // of a ShapeError
	}{
		"array":             {`[` + two + `]`, 2, "", ""},
		"empty array":       {" [\n] ", 0, "", ""},
		"customers":         {`{"customers":[` + two + `]}`, 2, "", ""},
		"data, with others": {`{"total":2,"meta":{"a":[{}]},"data":[` + two + `],"next":null,"hasMore":false}`, 2, "", ""},
		"items":             {`{"items":[]}`, 0, "", ""},
		"a member data":     {`{"data":{"a":1},"items":[]}`, 0, "", ""},
		"no error":          {`{"error":null,"errors":[],"items":[]}`, 0, "", ""},
		"empty":             {``, 0, "cut off", ""},
		"null":              {`null`, 0, "no list", ""},
		"a number":          {`7`, 0, "no list", ""},
		"empty object":      {`{}`, 0, `no "customers"; it has no members`, "customers"},
		"no list":           {`{"a":[]}`, 0, `it has "a"`, "customers"},
		"object of object":  {`{"data":{"customers":[]}}`, 0, `it has "data", "data.customers"`, "customers"},
		"null list":         {`{"customers":null}`, 0, `no usable "customers"`, "customers"},
		"two lists":         {`{"data":[],"items":[]}`, 0, `no usable "items"; it has "data", "items"`, "items"},
		"cut between":       {`[` + two, 2, "cut off", ""},
		"cut after comma":   {`[` + two + `,`, 2, "cut off", ""},
		"cut within":        {`[` + two[:len(two)-5], 1, "customer 1", ""},
		"object cut":        {`{"data":[` + two + `]`, 2, "cut off", ""},
		"more after it":     {`[` + two + `] []`, 2, "follows the list", ""},
		"wrong type":        {`[` + two + `,{"id":7}]`, 2, `no usable "[2].id"`, "[2].id"},
		"wrong status":      {`[{"status":{"a":1},"id":"` + listID(0) + `"}]`, 0, `no usable "[0].status"`, "[0].status"},
		"null within":       {`[` + two + `,null]`, 2, `no "[2].id"; it has no members`, "[2].id"},
		"array within":      {`[[` + two + `]]`, 0, `no "[0].id"`, "[0].id"},
		"no id":             {`[` + two + `,{"externalId":"x"},` + two + `]`, 2, `it has "[2].externalId"`, "[2].id"},
		"no id, named":      {`{"data":[{"key":"x"}]}`, 0, `no "data[0].id"; it has "data[0].key"`, "data[0].id"},
		"no id, then cut":   {`[{"externalId":"x"},` + element(0), 0, "cut off", ""},
		"no list, then cut": {`{"a":[]`, 0, "cut off", ""},
		"error":             {`{"error":"upstream"}`, 0, "tells of an error: upstream", ""},
		"error and list":    {`{"items":[` + two + `],"errors":[{"message":"shard 2"}]}`, 2, "an error: shard 2", ""},
		"error cut":         {`{"error":"upstream"`, 0, "cut off", ""},
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
			err := c.Customers(t.Context(), func(customer Customer) error {
				got = append(got, customer)
				return nil
			})
			if len(got) != tt.yielded {
				t.Errorf("got %d customers, want %d", len(got), tt.yielded)
			}
			for i, customer := range got {
				if customer.ID != listID(i) || customer.ExternalID != "e"+strconv.Itoa(i) || customer.CreatedAt.Year() != 2024 {
					t.Errorf("customer %d: %+v", i, customer)
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
			var shape *ShapeError
			if errors.As(err, &shape) != (tt.want != "") || shape != nil && shape.Want != tt.want {
				t.Errorf("got %v, want a ShapeError: %v, of %q", err, tt.want != "", tt.want)
			}
		})
	}
	t.Run("connection cut", func(t *testing.T) {
		c, _ := dial(t, func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `[`+two+`,`)
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		})
		if e := asError(t, c.Customers(t.Context(), func(Customer) error { return nil })); e.Kind != unusable(e) {
			t.Error(e)
		}
	})
	t.Run("stopped by yield", func(t *testing.T) {
		c, _ := dial(t, reply200(`[`+two+`]`))
		enough := errors.New("enough")
		err := c.Customers(t.Context(), func(Customer) error { return enough })
		if err != enough { //nolint:errorlint // as it is
			t.Error(err)
		}
	})
	t.Run("refused", func(t *testing.T) {
		c, _ := dial(t, replying(403, ""))
		if e := asError(t, c.Customers(t.Context(), nil)); e.Kind != Forbidden {
			t.Error(e)
		}
	})
}

// paged answers GET /customers with pages of one customer each, linked as link says; page n is at ?page=n.
func paged(t *testing.T, pages int, link func(n int, r *http.Request) string) (*Client, *partner) {
	return dial(t, func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.Atoi(r.URL.Query().Get("page"))
		if err != nil {
			n = 1
		}
		if n > pages {
			t.Errorf("page %d was asked for, want at most %d", n, pages)
		}
		if n < pages {
			w.Header().Add("Link", `</v1/customers>; rel="first"`)
			w.Header().Add("Link", link(n, r))
		}
		_, _ = io.WriteString(w, `{"customers":[`+element(n)+`],"hasMore":`+strconv.FormatBool(n < pages)+`,"total":3}`)
	})
}

// readAll returns what a list yields.
func readAll(t *testing.T, c *Client) ([]Customer, error) {
	t.Helper()
	var got []Customer
	err := c.Customers(t.Context(), func(customer Customer) error {
		got = append(got, customer)
		return nil
	})
	return got, err
}

func TestCustomersFollowLinks(t *testing.T) {
	for name, link := range map[string]func(n int, r *http.Request) string{
		"query":    func(n int, _ *http.Request) string { return fmt.Sprintf(`<?page=%d>; rel="next"`, n+1) },
		"relative": func(n int, _ *http.Request) string { return fmt.Sprintf(`<customers?page=%d>;rel=next`, n+1) },
		"absolute path": func(n int, _ *http.Request) string {
			return fmt.Sprintf(`</v1/customers?a=b,%%20c&page=%d>; title="a, \"b\"; rel=x"; rel="last NEXT"`, n+1)
		},
		"URL": func(n int, r *http.Request) string {
			return fmt.Sprintf(`<http://%s/v1/customers?page=%d>; rel="next", <?page=3>; rel="last"`, r.Host, n+1)
		},
		"other path": func(n int, _ *http.Request) string {
			return fmt.Sprintf(`</v1/customers/list?page=%d>; rel="next"`, n+1)
		},
		"twice": func(n int, _ *http.Request) string {
			return fmt.Sprintf(`<?page=%d>; rel=next, <?page=%[1]d>; rel=next`, n+1)
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, p := paged(t, 3, link)
			got, err := readAll(t, c)
			if err != nil || len(got) != 3 {
				t.Fatalf("got %d customers, %v; want 3, no error", len(got), err)
			}
			requests, _ := p.requests()
			if len(requests) != 4 || c.Stats().Sent != 4 {
				t.Fatalf("got %d requests, %d counted; want 4: a token and 3 pages", len(requests), c.Stats().Sent)
			}
			signatures := map[string]bool{}
			for _, r := range requests[1:] {
				signatures[r.Header.Get("Signature")] = true
				if r.Header.Get("Authorization") != "Bearer token-1" {
					t.Errorf("got Authorization %q for %s, want the token", r.Header.Get("Authorization"), r.URL)
				}
			}
			if len(signatures) != 3 || signatures[""] {
				t.Errorf("got signatures %v, want one for each page", signatures)
			}
			if name == "absolute path" && requests[2].RequestURI != "/v1/customers?a=b,%20c&page=2" {
				t.Errorf("got %s, want the query as it was linked", requests[2].RequestURI)
			}
		})
	}
}

// A page waits for its place in the rate like any other request.
func TestPagesKeepTheRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		config := testConfig("https://api.example/v1")
		config.RateLimiter = NewRateLimiter(1)
		config.Transport = roundTripper(func(r *http.Request) *canned {
			switch r.URL.RequestURI() {
			case "/v1/auth/token":
				return response(200, `{"token":"t"}`)
			case "/v1/customers":
				return response(200, `[`+element(1)+`]`, "Link", `<?page=2>; rel="next"`)
			}
			return response(200, `[`+element(2)+`]`)
		})
		begin := time.Now()
		got, err := readAll(t, newClient(t, config))
		if took := time.Since(begin); err != nil || len(got) != 2 || took < 2*time.Second {
			t.Errorf("got %d customers, %v, after %v; want 2 after 2s or more", len(got), err, took)
		}
	})
}

func TestLinksThatAreNotFollowed(t *testing.T) {
	for name, link := range map[string]string{
		"another host":    `<https://elsewhere.example/v1/customers?page=2>; rel="next"`,
		"another scheme":  `<http://api.example/v1/customers?page=2>; rel="next"`,
		"another port":    `<https://api.example:8443/v1/customers?page=2>; rel="next"`,
		"network path":    `<//elsewhere.example/v1/customers?page=2>; rel="next"`,
		"credentials":     `<https://u:p@api.example/v1/customers?page=2>; rel="next"`,
		"outside the API": `</v10/customers?page=2>; rel="next"`,
		"above the API":   `<../customers?page=2>; rel="next"`,
		"itself":          `<>; rel="next"`,
		"itself, spelled": `<https://API.example:443/v1/customers>; rel="next"`,
		"a space":         `<?page=2 3>; rel="next"`,
		"no URL":          `<?page=%zz#%zz>; rel="next"`,
		"two":             `<?page=2>; rel="next", <?page=3>; rel="next"`,
		"another context": `<?page=2>; rel="next"; anchor="/v1/customers/x"`,
		"malformed":       `?page=2; rel="next"`,
		"unclosed":        `<?page=2; rel="next"`,
		"unquoted":        `<?page=2>; rel="next`,
		"last":            `<?page=4>; rel="last"`,
		"last, not first": `<?page=1>; rel="first", <?page=4>; rel="last"`,
		"last, elsewhere": `<https://elsewhere.example/v1/customers>; rel="last"`,
		"last, unquoted":  `<?page=4>; rel="last`,
		"last, context":   `<?page=4>; rel="last"; anchor="/x"`,
	} {
		t.Run(name, func(t *testing.T) {
			config := testConfig("https://api.example/v1")
			config.Transport = roundTripper(func(r *http.Request) *canned {
				if strings.HasSuffix(r.URL.Path, "/auth/token") {
					return response(200, `{"token":"t"}`)
				}
				return response(200, `[`+element(0)+`]`, "Link", link)
			})
			c := newClient(t, config)
			got, err := readAll(t, c)
			wantPartial(t, err, "Link", 1)
			if len(got) != 1 || c.Stats().Sent != 2 {
				t.Errorf("got %d customers of %d requests, want 1 of 2: a token and a page", len(got), c.Stats().Sent)
			}
		})
	}
	for name, link := range map[string]string{"prev": `<?page=2>; rel="prev"`, "rev": `<?page=2>; rev="next"`,
		"title": `<?page=2>; rel="prev"; title="next"`, "second rel": `<?page=2>; rel="prev"; rel="next"`,
		"last": `<customers?>; rel="last"`, "last is first": `<?page=1&n=5>; rel=first, </v1/customers?n=5&page=1>; rel=last`,
		"last is self": `<?a=b>; rel="self last"`,
		"stylesheet":   `</next.css>; rel=preload; as=style`, "empty": `,,`, "no rel": `<?page=2>`, "malformed": `?page=2`} {
		c, _ := dial(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Link", link)
			reply200(`[]`)(w, r)
		})
		if _, err := readAll(t, c); err != nil {
			t.Errorf("%s: got %v, want no error", name, err)
		}
	}
}

func wantPartial(t *testing.T, err error, announced string, read int) {
	t.Helper()
	var partial *PartialListError
	if !errors.As(err, &partial) || partial.Announced != announced || partial.Read != read {
		t.Errorf("got %v, want a PartialListError of %q and %d read", err, announced, read)
	}
}

// Links that lead on for ever, or to what is not there, prove nothing.
func TestLinksThatDoNotEnd(t *testing.T) {
	for name, tt := range map[string]struct {
		second *canned // at ?page=2; nil: as link and first say for every page
		first  func(page int) int
		read   int
		sent   int64
	}{
		"loop":               {response(200, `[`+element(2)+`]`, "Link", `</v1/customers>; rel="next"`), nil, 2, 3},
		"the same each time": {nil, func(int) int { return 1 }, 1, 3},
		"endless":            {nil, func(page int) int { return page }, mostPages, mostPages + 1},
		"not found":          {response(404, ``), nil, 1, 3},
		"refused":            {response(400, ``), nil, 1, 3},
		"redirected":         {response(302, ``, "Location", "https://elsewhere.example/"), nil, 1, 3},
	} {
		t.Run(name, func(t *testing.T) {
			config := testConfig("https://api.example/v1")
			config.Transport = roundTripper(func(r *http.Request) *canned {
				if strings.HasSuffix(r.URL.Path, "/auth/token") {
					return response(200, `{"token":"t"}`)
				}
				page, _ := strconv.Atoi(r.URL.Query().Get("page"))
				page = max(page, 1)
				if page == 2 && tt.second != nil {
					return tt.second
				}
				first := page
				if tt.first != nil {
					first = tt.first(page)
				}
				return response(200, `[`+element(first)+`]`, "Link", fmt.Sprintf(`<?page=%d>; rel="next"`, page+1))
			})
			c := newClient(t, config)
			got, err := readAll(t, c)
			wantPartial(t, err, "Link", tt.read)
			if len(got) != tt.read || c.Stats().Sent != tt.sent {
				t.Errorf("got %d customers of %d requests, want %d of %d", len(got), c.Stats().Sent, tt.read, tt.sent)
			}
		})
	}
	t.Run("outage", func(t *testing.T) { // of the partner, not of the list
		c, _ := dial(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.RawQuery != "" {
				w.WriteHeader(http.StatusInternalServerError)
				return
			}
			w.Header().Set("Link", `<?page=2>; rel="next"`)
			reply200(`[`+element(0)+`]`)(w, r)
		})
		if _, err := readAll(t, c); asError(t, err).Kind != ServerError {
			t.Errorf("got %v, want %s", err, ServerError)
		}
	})
}

// announcements are the ways to say that there is more than the two customers of the list, by where they are expected
// to be noticed. "" is none.
var announcements = []struct{ announced, before, after, header, value string }{
	{"next", `"next":"abc",`, ``, "", ""},
	{"next", ``, `,"next":"abc"`, "", ""},
	{"next", ``, `,"next":{"href":"/x"}`, "", ""},
	{"next_page", `"next_page":2,`, ``, "", ""},
	{"nextPageToken", ``, `,"nextPageToken":"t"`, "", ""},
	{"NextToken", ``, `,"NextToken":"t"`, "", ""},
	{"next_page_url", ``, `,"next_page_url":"https://x"`, "", ""},
	{"@odata.nextLink", ``, `,"@odata.nextLink":"https://x"`, "", ""},
	{"hasMore", `"hasMore":true,`, ``, "", ""},
	{"has_more", ``, `,"has_more":"true"`, "", ""},
	{"hasNextPage", ``, `,"hasNextPage":1`, "", ""},
	{"isTruncated", ``, `,"isTruncated":true`, "", ""},
	{"truncated", ``, `,"truncated":true`, "", ""},
	{"incomplete_results", `"incomplete_results":true,`, ``, "", ""},
	{"cursor", ``, `,"cursor":"c"`, "", ""},
	{"cursors.after", ``, `,"cursors":{"before":null,"after":"c"}`, "", ""},
	{"lastEvaluatedKey", ``, `,"lastEvaluatedKey":{"id":{"S":"x"}}`, "", ""},
	{"LastEvaluatedKey", `"LastEvaluatedKey":"x",`, ``, "", ""},
	{"continuationToken", ``, `,"continuationToken":"x"`, "", ""},
	{"offset", ``, `,"offset":"itr1/rec2"`, "", ""},
	{"last", ``, `,"last":false`, "", ""},
	{"done", `"done":false,`, ``, "", ""},
	{"remaining", ``, `,"remaining":7`, "", ""},
	{"metadata.remainingItemCount", ``, `,"metadata":{"remainingItemCount":1}`, "", ""},
	{"metadata.continue", `"metadata":{"continue":"x"},`, ``, "", ""},
	{"total", `"total":3,`, ``, "", ""},
	{"total", ``, `,"total":3`, "", ""},
	{"totalCount", ``, `,"totalCount":"3"`, "", ""},
	{"total_items", ``, `,"total_items":3`, "", ""},
	{"count", `"count":3,`, ``, "", ""},
	{"totalPages", ``, `,"totalPages":2`, "", ""},
	{"last_page", ``, `,"current_page":1,"last_page":2`, "", ""},
	{"meta.next", `"meta":{"next":"x"},`, ``, "", ""},
	{"meta.pagination.total", ``, `,"meta":{"pagination":{"total":3}}`, "", ""},
	{"meta.pagination.links.next", ``, `,"meta":{"pagination":{"links":{"next":"x"}}}`, "", ""},
	{"pagination.has_more", ``, `,"pagination":{"has_more":true}`, "", ""},
	{"paging.cursors.after", ``, `,"paging":{"cursors":{"after":"x"}}`, "", ""},
	{"meta.a.b.total", ``, `,"meta":{"a":{"b":{"total":3}}}`, "", ""},
	{"page.totalElements", ``, `,"page":{"size":2,"totalElements":3,"totalPages":2,"number":0}`, "", ""},
	{"page.totalPages", ``, `,"page":{"size":2,"totalPages":2,"number":0}`, "", ""},
	{"pageInfo.hasNextPage", ``, `,"pageInfo":{"hasNextPage":true}`, "", ""},
	{"links.next", ``, `,"links":{"self":"x","next":"x"}`, "", ""},
	{"_links.next", `"_links":{"self":{"href":"a"},"next":{"href":"b"}},`, ``, "", ""},
	{"links[]", ``, `,"links":[{"rel":"self","href":"a"},{"rel":"next","href":"b"}]`, "", ""},
	{"links[]", ``, `,"links":[{"href":"b","rel":["next"]}]`, "", ""},
	{"links[]", ``, `,"links":[{"url":"b","label":"Next &raquo;","active":false}]`, "", ""},
	{"link", ``, `,"link":"<?page=2>; rel=\"next\""`, "", ""},
	{"X-Total-Count", ``, ``, "X-Total-Count", "3"},
	{"X-Total", ``, ``, "X-Total", "3"},
	{"X-Total-Count", ``, ``, "X-Total-Count", "1,200"},
	{"X-Total-Count", ``, ``, "X-Total-Count", "2+"},
	{"X-Total-Count", ``, ``, "X-Total-Count", "NaN"},
	{"X-Total-Count", ``, ``, "X-Total-Count", strings.Repeat("5", 400)},
	{"total", ``, `,"total":"2 of 3"`, "", ""},
	{"X-Total-Pages", ``, ``, "X-Total-Pages", "many"},
	{"X-Total-Pages", ``, ``, "X-Total-Pages", "2"},
	{"X-Next-Page", ``, ``, "X-Next-Page", "2"},
	{"X-Has-More", ``, ``, "X-Has-More", "true"},
	{"X-Ms-Continuation", ``, ``, "X-Ms-Continuation", "abc"},
	{"X-Pagination.TotalCount", ``, ``, "X-Pagination", `{"TotalCount":3}`},
	{"Content-Range", ``, ``, "Content-Range", "items 0-1/3"},
	{"Content-Range", ``, ``, "Content-Range", "items 0-1/*"},

	// The number of the page.
	{"of", `"page":1,"of":4,`, ``, "", ""},
	{"of", `"of":2,`, `,"page":1`, "", ""},
	{"of", ``, `,"from":1,"to":2,"of":319`, "", ""},
	{"pages", `"page":1,"pages":4,`, ``, "", ""},
	{"pageCount", `"pageNumber":1,"pageCount":2,`, ``, "", ""},
	{"lastPage", ``, `,"page":0,"lastPage":1`, "", ""},
	{"paging.maxPage", ``, `,"paging":{"maxPage":1,"pageIndex":0}`, "", ""},
	{"page", ``, `,"page":"1 of 4"`, "", ""},
	{"page", ``, `,"page":"1/4"`, "", ""},
	{"range", `"range":"Showing 1 to 2 of 319 customers",`, ``, "", ""},
	{"meta.contentRange", `"meta":{"contentRange":"items 0-1/319"},`, ``, "", ""},

	// A page as long as its limit, where nothing says that it is the last.
	{"limit", `"limit":2,"offset":0,`, ``, "", ""},
	{"limit", ``, `,"limit":"2","skip":0`, "", ""},
	{"limit", ``, `,"limit":1`, "", ""},
	{"pageSize", ``, `,"pageSize":2,"page":1`, "", ""},
	{"perPage", ``, `,"perPage":2`, "", ""},
	{"size", `"size":2,`, ``, "", ""},
	{"$top", ``, `,"$top":2,"$skip":0`, "", ""},
	{"MaxKeys", ``, `,"MaxKeys":2`, "", ""},
	{"limit", ``, `,"limit":2,"count":2`, "", ""},
	{"limit", ``, `,"limit":2,"cursor":null,"prevCursor":null`, "", ""},
	{"limit", ``, `,"limit":2,"programme":{"hasMore":false,"total":2}`, "", ""},
	{"meta.pagination.per_page", ``, `,"meta":{"pagination":{"per_page":2,"current_page":1}}`, "", ""},
	{"X-Per-Page", ``, ``, "X-Per-Page", "2"},
	{"X-Pagination-Limit", ``, ``, "X-Pagination-Limit", "2"},
	{"X-Pagination.PageSize", ``, ``, "X-Pagination", `{"PageSize":2,"CurrentPage":1}`},

	// By the libraries and vendors that write so.
	{"nextRecordsUrl", ``, `,"done":true,"nextRecordsUrl":"/query/01g-2000"`, "", ""}, // Salesforce
	{"done", ``, `,"done":false,"totalSize":2`, "", ""},
	{"has_more", `"object":"list","url":"/v1/customers","has_more":true,`, ``, "", ""}, // Stripe
	{"count", `"count":3,"next":null,"previous":null,`, ``, "", ""},                    // Django REST framework
	{"last", ``, `,"size":2,"number":0,"first":true,"last":false`, "", ""},             // Spring
	{"totalElements", ``, `,"size":2,"number":0,"totalElements":3`, "", ""},
	{"response_metadata.next_cursor", ``, `,"response_metadata":{"next_cursor":"x"}`, "", ""},          // Slack
	{"pageInfo.endCursor", ``, `,"pageInfo":{"startCursor":"a","endCursor":"x"}`, "", ""},              // Relay
	{"IsTruncated", ``, `,"IsTruncated":true,"MaxItems":1000`, "", ""},                                 // AWS
	{"isLastPage", ``, `,"size":2,"limit":2,"start":0,"isLastPage":false`, "", ""},                     // Bitbucket
	{"totalResults", ``, `,"startIndex":1,"itemsPerPage":2,"totalResults":3`, "", ""},                  // SCIM
	{"next_page_url", ``, `,"last_page_url":"x/?page=1","next_page_url":"x/?page=2"`, "", ""},          // Laravel
	{"links.last", ``, `,"links":{"self":"/c?page=1","first":"/c?page=1","last":"/c?page=4"}`, "", ""}, // JSON:API
	{"_links.last", ``, `,"_links":{"self":{"href":"/c"},"last":{"href":"/c?page=4"}}`, "", ""},        // HAL
	{"links[]", ``, `,"links":[{"rel":"self","href":"/c"},{"rel":"last","href":"/c?page=4"}]`, "", ""},
	{"links", ``, `,"links":"</c?page=4>; rel=last"`, "", ""},
	{"last_page_url", ``, `,"first_page_url":"/c?page=1","last_page_url":"/c?page=4"`, "", ""},

	{"X-Last-Evaluated-Key", ``, ``, "X-Last-Evaluated-Key", "abc"},
	{"X-Acme-Last-Evaluated-Key", ``, ``, "X-Acme-Last-Evaluated-Key", "abc"},
	{"X-Acme-Cursor", ``, ``, "X-Acme-Cursor", "abc"},
	{"X-List-Next-Id", ``, ``, "X-List-Next-Id", "abc"},
	{"X-Acme-Has-More", ``, ``, "X-Acme-Has-More", "TRUE"},
	{"X-Acme-Total-Count", ``, ``, "X-Acme-Total-Count", "3"},
	{"X-Wp-Totalpages", ``, ``, "X-WP-TotalPages", "2"},
	{"X-Pagination-Next", ``, ``, "X-Pagination-Next", "abc"},
	{"X-Pagination-State", ``, ``, "X-Pagination-State", "abc"},
	{"X-Pagination-Total-Pages", ``, ``, "X-Pagination-Total-Pages", "2"},
	{"Pagination-Count", ``, ``, "Pagination-Count", "3"},
	{"X-Page", ``, ``, "X-Page", "1/4"},
	{"Next-Range", ``, ``, "Next-Range", "]abc.."},

	{"", `"total":2,"count":2,"totalPages":1,`, `,"pages":1`, "X-Total-Count", "2"},
	{"", `"total":1,`, `,"count":0`, "Content-Range", "items 0-1/2"},
	{"", `"next":null,"nextPage":"","hasMore":false,"cursor":null,`, `,"nextCursor":[],"has_next":0`, "X-Next-Page", ""},
	{"", `"meta":{"page":1,"perPage":50,"limit":50,"offset":0,"total":2},`, `,"page":{"size":20,"number":0}`, "X-Page", "1"},
	{"", ``, `,"links":{"self":"a","first":"a","last":"a","prev":null,"next":null}`, "X-Has-More", "false"},
	{"", ``, `,"_links":{"self":{"href":"a"},"next":{"href":null}}`, "X-Pagination", `{"TotalCount":2,"next":null}`},
	{"", ``, `,"links":[{"rel":"self","href":"a"},{"rel":"next","href":null}]`, "", ""},
	{"", ``, `,"links":[{"url":null,"label":"Next &raquo;"},{"url":"x","label":"1"}]`, "", ""},
	{"", ``, `,"last":true,"first":true,"done":true,"prevCursor":"x","lastEvaluatedKey":null`, "", ""},
	{"", `"page":1,"of":1,`, `,"pages":1,"lastPage":1`, "X-Pagination-Page", "1"},
	{"", `"page":0,"pageCount":1,`, `,"number":0,"pages":1`, "X-Pagination-Limit", "3"},
	{"", ``, `,"from":1,"to":2,"of":2`, "X-Pagination-Order", "asc"},
	{"", `"limit":3,"offset":0,`, `,"pageSize":3,"size":0,"range":"0-1/2","page":"1 of 1"`, "X-Per-Page", "3"},
	{"", `"limit":2,"total":2,`, ``, "X-Pagination-Total-Count", "2"},
	{"", `"limit":2,"hasMore":false,`, ``, "X-Pagination-Offset", "1"},
	{"", ``, `,"meta":{"limit":2},"links":{"next":null,"prev":"x"}`, "X-Pagination-Prev", "x"},
	{"", ``, `,"per_page":2`, "X-Next-Page", ""},
	{"", `"page":1,"pages":1,`, `,"per_page":2`, "", ""},
	{"", ``, `,"per_page":2`, "Content-Range", "items 0-1/2"},
	{"", ``, `,"size":2,"limit":2,"isLastPage":true`, "X-Nextjs-Cache", "HIT"},
	{"", ``, `,"page":{"size":2,"number":0,"totalElements":2,"totalPages":1}`, "X-Prev-Cursor", "x"},
	{"", ``, `,"pageInfo":{"hasNextPage":false,"endCursor":"x","startCursor":"a"}`, "", ""},
	{"", ``, `,"cursor":"x","has_more":false`, "", ""},
	{"", ``, `,"links":{"self":"/c?a=1&b=2","last":"/c?b=2&a=1"},"limit":2`, "", ""},
	{"", ``, `,"links":[{"rel":"first","href":"/c"},{"rel":"last","href":"/c"}]`, "", ""},
	{"", ``, `,"_links":{"last":{"href":"/v1/customers"}}`, "", ""},
	{"", `"current_page":1,"first_page_url":"/c?page=1","from":1,"last_page":1,"last_page_url":"/c?page=1",`,
		`,"next_page_url":null,"path":"/c","per_page":2,"prev_page_url":null,"to":2,"total":2`, "", ""},
	{"", ``, `,"rateLimit":{"limit":2,"remaining":7},"programme":{"limit":1}`, "X-Ratelimit-Next", "7"},
	{"", ``, `,"context":"x","programme":{"id":"x","account":7,"rateLimitRemaining":7}`, "X-Ratelimit-Remaining", "7"},
}

func announcing(list string, i int) *canned {
	a := announcements[i]
	return response(200, `{`+a.before+`"data":[`+list+`]`+a.after+`}`, a.header, a.value)
}

func listOf(answer *canned) roundTripper {
	return func(r *http.Request) *canned {
		if strings.HasSuffix(r.URL.Path, "/auth/token") {
			return response(200, `{"token":"t"}`)
		}
		return answer
	}
}

func TestAPageIsNotTheWhole(t *testing.T) {
	for i, tt := range announcements {
		config := testConfig("https://api.example/v1")
		config.Transport = listOf(announcing(element(0)+`,`+element(1), i))
		got, err := readAll(t, newClient(t, config))
		if len(got) != 2 {
			t.Errorf("%+v: got %d customers, want 2", tt, len(got))
		}
		if tt.announced == "" && err != nil {
			t.Errorf("%+v: got %v, want no error", tt, err)
		}
		var partial *PartialListError
		if tt.announced != "" && (!errors.As(err, &partial) || partial.Announced != tt.announced || partial.Read != 2) {
			t.Errorf("%+v: got %v, want a PartialListError of %q", tt, err, tt.announced)
		}
		for _, value := range []string{"abc", "itr1", "https", tt.value} {
			if err != nil && value != "" && len(value) > 2 && strings.Contains(err.Error(), value) {
				t.Errorf("got %v, which shows the value %q", err, value)
			}
		}
	}
}

// A name means the same in every style of writing it.
func TestAnnouncementsInEveryStyle(t *testing.T) {
	member := regexp.MustCompile(`"[A-Za-z_$@.]+":`)
	words := regexp.MustCompile(`([a-z])([A-Z])`)
	for name, style := range map[string]func(string) string{
		"lower": strings.ToLower,
		"upper": strings.ToUpper,
		"snake": func(s string) string { return strings.ToLower(words.ReplaceAllString(s, "${1}_${2}")) },
		"kebab": func(s string) string {
			return strings.ReplaceAll(strings.ToUpper(words.ReplaceAllString(s, "${1}-${2}")), "_", "-")
		},
	} {
		for _, tt := range announcements {
			body := `{` + member.ReplaceAllStringFunc(tt.before, style) + `"data":[` + element(0) + `,` + element(1) + `]` +
				member.ReplaceAllStringFunc(tt.after, style) + `}`
			header := http.Header{}
			if tt.header != "" {
				header.Set(style(tt.header), member.ReplaceAllStringFunc(tt.value, style))
			}
			err := readPage(body, header, func(Customer) error { return nil })
			announced := ""
			if partial := (*PartialListError)(nil); errors.As(err, &partial) {
				announced = partial.Announced
			} else if err != nil {
				t.Errorf("%s: %s: got %v, want no error or a PartialListError", name, body, err)
			}
			if plain(announced) != plain(tt.announced) {
				t.Errorf("%s: %s, %v: got %q announced, want %q", name, body, header, announced, tt.announced)
			}
		}
	}
}

// A 206 is a part, unless its Content-Range says that it ends where the list does.
func TestPartialContent(t *testing.T) {
	for name, tt := range map[string]struct{ body, contentRange, announced string }{
		"range":            {`{"data":[` + element(0) + `,` + element(1) + `]}`, "customers 0-1/319", "Content-Range"},
		"unknown total":    {`[` + element(0) + `,` + element(1) + `]`, "customers 0-1/*", "Content-Range"},
		"no range":         {`[` + element(0) + `,` + element(1) + `]`, "", "206"},
		"total too small":  {`[` + element(0) + `,` + element(1) + `]`, "customers 0-1/1", "Content-Range"},
		"hasMore is false": {`{"data":[` + element(0) + `,` + element(1) + `],"hasMore":false}`, "", "206"},
		"whole":            {`[` + element(0) + `,` + element(1) + `]`, "customers 0-1/2", ""},
	} {
		config := testConfig("https://api.example/v1")
		config.Transport = roundTripper(func(r *http.Request) *canned {
			if strings.HasSuffix(r.URL.Path, "/auth/token") {
				return response(200, `{"token":"t"}`)
			}
			answer := response(206, tt.body)
			if tt.contentRange != "" {
				answer.headers = []string{"Content-Range", tt.contentRange}
			}
			return answer
		})
		got, err := readAll(t, newClient(t, config))
		if len(got) != 2 || tt.announced == "" && err != nil {
			t.Errorf("%s: got %d customers, %v, want 2", name, len(got), err)
		}
		if tt.announced != "" {
			wantPartial(t, err, tt.announced, 2)
		}
	}
	c, _ := dial(t, replying(206, `[`+element(0)+`,`))
	if _, err := readAll(t, c); asError(t, err).Kind != Malformed {
		t.Errorf("got %v for a 206 that is cut off, want %s", err, Malformed)
	}
}

// What one page announces is forgotten when its link was followed; the totals hold for all of them together.
func TestAnnouncementsOfLinkedPages(t *testing.T) {
	for name, tt := range map[string]struct{ first, last, announced string }{
		"done":            {`,"hasMore":true,"cursor":"x","total":2,"pages":2`, `,"hasMore":false,"total":2`, ""},
		"total, first":    {`,"total":3`, ``, "total"},
		"total, last":     {``, `,"total":3`, "total"},
		"pages":           {`,"pages":3`, ``, "pages"},
		"more at the end": {``, `,"hasMore":true`, "hasMore"},
		"limit":           {`,"limit":1,"page":1`, `,"limit":1,"page":2`, ""},
		"last page":       {`,"page":0,"lastPage":1`, `,"page":1,"lastPage":1`, ""},
		"of":              {`,"page":1,"of":2`, `,"page":2,"of":2`, ""},
		"of more":         {`,"page":1,"of":3`, `,"page":2,"of":3`, "of"},
		"last link":       {`,"links":{"last":"/v1/customers?page=2"}`, `,"links":{"last":"/v1/customers?page=2"}`, ""},
		"last link ahead": {`,"links":{"last":"?page=3"}`, `,"links":{"last":"?page=3"}`, "links.last"},
	} {
		c, _ := dial(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.RawQuery != "" {
				reply200(`{"data":[`+element(1)+`]`+tt.last+`}`)(w, r)
				return
			}
			w.Header().Set("Link", `<?page=2>; rel="next"`)
			reply200(`{"data":[`+element(0)+`]`+tt.first+`}`)(w, r)
		})
		got, err := readAll(t, c)
		if len(got) != 2 || tt.announced == "" && err != nil {
			t.Errorf("%s: got %d customers, %v, want 2", name, len(got), err)
		}
		if tt.announced != "" {
			wantPartial(t, err, tt.announced, 2)
		}
	}
}

// FuzzCustomers: a list that is said to be complete is complete JSON, yields each of its elements, and announces
// nothing, by another reading than the client's.
func FuzzCustomers(f *testing.F) {
	two := element(0) + `,` + element(1)
	for i, a := range announcements {
		body, err := io.ReadAll(announcing(two, i).body)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(body), a.value)
	}
	for _, body := range []string{`[` + two + `]`, `[` + two, `{"customers":[` + two + `]}{}`, `{"data":{"items":[]}}`,
		`[{"id":7}]`, `{"error":"x"}`, `null`, `<html>`} {
		f.Add(body, "2")
	}
	f.Fuzz(func(t *testing.T, body, count string) {
		if strings.ContainsFunc(count, func(r rune) bool { return r < ' ' || r > '~' }) {
			count = ""
		}
		yielded := 0
		err := readPage(body, http.Header{"X-Total-Count": {count}}, func(c Customer) error {
			yielded++
			if !isUUID(c.ID) {
				t.Errorf("got the id %q, want a UUID", c.ID)
			}
			return nil
		})
		var shape *ShapeError
		var partial *PartialListError
		whole := json.Valid([]byte(body))
		switch {
		case err == nil, errors.As(err, &partial):
			var elements []json.RawMessage
			var members map[string]json.RawMessage
			if json.Unmarshal([]byte(body), &elements) != nil && json.Unmarshal([]byte(body), &members) != nil {
				t.Fatalf("got %v for %q, want an error", err, body)
			}
			if partial != nil && partial.Read != yielded {
				t.Errorf("got %d read, want %d", partial.Read, yielded)
			}
			if err == nil && (moreThan(count, yielded) || announces(members, yielded, 0)) {
				t.Errorf("%q, X-Total-Count: %q: got %d customers and no error, want a PartialListError", body, count, yielded)
			}
		case errors.As(err, &shape):
			if !whole {
				t.Errorf("%q: got %v, want no ShapeError of what is no JSON", body, err)
			}
		}
	})
}

// moreThan reports whether a total may be more than n: it is, or it cannot be read.
func moreThan(total string, n int) bool {
	total = strings.TrimSpace(total)
	switch strings.ToLower(total) {
	case "", "false", "null":
		return false
	}
	f, err := strconv.ParseFloat(total, 64)
	return err != nil || !(f <= float64(n))
}

// readPage reads a list of one page without a request.
func readPage(body string, header http.Header, yield func(Customer) error) error {
	m := &meter{r: strings.NewReader(body), most: DefaultMaxBody, patience: time.Hour}
	m.timer = time.AfterFunc(time.Hour, func() {})
	defer m.timer.Stop()
	var all extent
	list := listReader{decoder: json.NewDecoder(m), body: m, yield: yield, extent: &all}
	if err := list.read(); err != nil {
		return err
	}
	all.pages++
	all.noteHeader(header)
	_, err := all.next("https://api.example/v1", "/customers", header)
	return err
}

// announces is a second opinion on the members of an answer, to two levels of nesting.
func announces(members map[string]json.RawMessage, read, depth int) bool {
	for name, value := range members {
		if depth == 0 && (name == "customers" || name == "data" || name == "items") && value[0] == '[' {
			continue
		}
		switch strings.ToLower(strings.ReplaceAll(name, "_", "")) {
		case "next", "nextpage", "nextcursor", "nextpagetoken", "nexttoken", "hasmore", "hasnext", "istruncated",
			"truncated", "lastevaluatedkey":
			var scalar any
			if json.Unmarshal(value, &scalar) == nil {
				if text, ok := scalar.(string); ok && len(text) > 5 || scalar == true {
					return true
				}
			}
		case "total", "totalcount", "count", "totalitems":
			var n float64
			if json.Unmarshal(value, &n) == nil && n > float64(read) {
				return true
			}
		case "totalpages", "pages":
			var n float64
			if json.Unmarshal(value, &n) == nil && n > 1 {
				return true
			}
		}
		var inner map[string]json.RawMessage
		if depth < 2 && json.Unmarshal(value, &inner) == nil && announces(inner, read, depth+1) {
			return true
		}
	}
	return false
}

// generated is a list of n customers that exists nowhere as a whole. It is slow, if asked to be.
type generated struct {
	n, next int
	left    string
	pause   time.Duration
	gone    <-chan struct{}
}

func (g *generated) Read(p []byte) (int, error) {
	if g.left == "" {
		if g.pause > 0 {
			select {
			case <-time.After(g.pause):
			case <-g.gone:
				return 0, errors.New("request ended")
			}
		}
		switch {
		case g.next == 0:
			g.left = "[" + element(0)
		case g.next < g.n:
			g.left = "," + element(g.next)
		case g.next == g.n:
			g.left = "]"
		default:
			return 0, io.EOF
		}
		g.next++
	}
	n := copy(p, g.left)
	g.left = g.left[n:]
	return n, nil
}

func listing(n int, pause time.Duration) roundTripper {
	return func(r *http.Request) *canned {
		if strings.HasSuffix(r.URL.Path, "/auth/token") {
			return response(200, `{"token":"t"}`)
		}
		return &canned{status: http.StatusOK, body: &generated{n: n, pause: pause, gone: r.Context().Done()}}
	}
}

func TestCustomersInBoundedMemory(t *testing.T) {
	n := 1_000_000
	if raceEnabled || testing.Short() {
		n = 100_000
	}
	config := testConfig("https://api.example/v1")
	config.Transport = listing(n, 0)
	c := newClient(t, config)
	var memory runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&memory)
	before, most, count := memory.HeapAlloc, uint64(0), 0
	err := c.Customers(t.Context(), func(Customer) error {
		if count++; count%10_000 == 0 {
			runtime.ReadMemStats(&memory)
			most = max(most, memory.HeapAlloc)
		}
		return nil
	})
	if err != nil || count != n {
		t.Fatalf("%d customers, %v", count, err)
	}
	if grown := int64(most) - int64(before); grown > 16<<20 {
		t.Errorf("the heap grew by %d MiB", grown>>20)
	}
}

func TestCustomersTakeTheirTime(t *testing.T) {
	list := func(t *testing.T, pause time.Duration, yield func(Customer) error) error {
		config := testConfig("https://api.example/v1")
		config.Transport = listing(60, pause)
		return newClient(t, config).Customers(t.Context(), yield)
	}
	nothing := func(Customer) error { return nil }
	synctest.Test(t, func(t *testing.T) {
		// Ten minutes are more than one attempt's timeout, but there is progress.
		if err := list(t, 10*time.Second, nothing); err != nil {
			t.Error(err)
		}
		begin := time.Now()
		if e := asError(t, list(t, 31*time.Second, nothing)); !errors.Is(e, errStuck) || e.Kind != Malformed {
			t.Error(e)
		}
		if took := time.Since(begin); took != DefaultTimeout {
			t.Errorf("noticed after %v", took)
		}
		// Trickling: always some progress, never an end.
		begin = time.Now()
		if e := asError(t, list(t, 20*time.Second, nothing)); !errors.Is(e, errTimeout) {
			t.Error(e)
		}
		if took := time.Since(begin); took != DefaultListTimeout {
			t.Errorf("ended after %v", took)
		}
		// The taker's time is not the partner's.
		if err := list(t, 0, func(Customer) error { time.Sleep(time.Second); return nil }); err != nil {
			t.Error(err)
		}
	})
}

func BenchmarkCustomers(b *testing.B) {
	config := testConfig("https://api.example/v1")
	config.Transport = listing(b.N, 0)
	c := newClient(b, config)
	b.ReportAllocs()
	b.SetBytes(int64(len(element(0))))
	if err := c.Customers(b.Context(), func(Customer) error { return nil }); err != nil {
		b.Fatal(err)
	}
}
