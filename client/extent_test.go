package client

import (
	"errors"
	"net/http"
	"regexp"
	"strings"
	"testing"
)

func wantPartial(t *testing.T, err error, announced string, read int) {
	t.Helper()
	var partial *PartialListError
	if !errors.As(err, &partial) || partial.Announced != announced || partial.Read != read {
		t.Errorf("got %v, want a PartialListError of %q and %d read", err, announced, read)
	}
}

// announcements are ways to say that there are more than the two customers of the list. announced is the member or
// header that the error names; empty: the answer announces nothing.
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
	{"", `"meta":{"page":1,"perPage":50,"limit":50,"offset":0,"total":2},`, `,"page":{"size":20,"number":0}`,
		"X-Page", "1"},
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
				t.Errorf("got %v, want it without the value %q", err, value)
			}
		}
	}
}

// TestAnnouncementsInEveryStyle: a name means the same in every style of writing.
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

// TestPartialContent: a 206 is a part, unless its Content-Range says that it ends where the list does.
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

// TestAnnouncementsOfLinkedPages: what a page announces is met by the linked page; totals count for all pages together.
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
