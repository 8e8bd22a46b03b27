package client

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// paged answers GET /customers with pages of one customer each, linked as link says; page n is at ?page=n.
func paged(t *testing.T, pages int, link func(n int, r *http.Request) string) (*Client, *partner) {
	return dial(t, func(w http.ResponseWriter, r *http.Request) {
		n, err := strconv.Atoi(r.URL.Query().Get("page"))
		if err != nil {
			n = 1
		}
		if n > pages {
			t.Errorf("got a request for page %d, want at most %d", n, pages)
		}
		if n < pages {
			w.Header().Add("Link", `</v1/customers>; rel="first"`)
			w.Header().Add("Link", link(n, r))
		}
		_, _ = io.WriteString(w, `{"customers":[`+element(n)+`],"hasMore":`+strconv.FormatBool(n < pages)+`,"total":3}`)
	})
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

// TestPagesKeepTheRate: the request for a page waits for the rate limiter like any other.
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

// TestLinksThatDoNotEnd: a list whose links do not end, or lead to an error, is incomplete.
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
