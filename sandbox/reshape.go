package sandbox

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// reshaping returns the faults that can change the form of this 2xx.
func (x *exchange) reshaping(r reply) []Fault {
	switch x.op {
	case OpToken, OpChallenge:
		return []Fault{renamed}
	case OpCreate, OpRead:
		return []Fault{statusUnknown, statusCase, wrapped, renamed}
	case OpSign:
		if r.status == http.StatusNoContent {
			return []Fault{sign2xx}
		}
	case OpList:
		faults := []Fault{statusUnknown, statusCase}
		if x.page.size > 0 {
			return faults
		}
		if len(r.list.of) > 0 { // otherwise there is no more to announce
			faults = append(faults, listPaged)
		}
		return append(faults, listLink, listNoList)
	}
	return nil
}

// unreadable reports whether an answer with the fault does not say what became of the request.
func (f Fault) unreadable() bool {
	return f == truncated || f == malformed || f == wrapped || f == renamed
}

// coin returns a number in [0,n) that depends on the fault, the operation, the subject and the attempt.
func (x *exchange) coin(n int, f Fault) int {
	return x.s.seed.pick(n, string(f), string(x.op), x.subject, strconv.Itoa(x.attempt))
}

func (x *exchange) reshaped(r reply, f Fault) reply {
	switch f {
	case statusUnknown, statusCase:
		return x.withStatus(r, f)
	case sign2xx:
		return x.other2xx()
	case wrapped:
		r.body = fmt.Appendf(nil, `{%q:%s}`, []string{"data", "customer"}[x.coin(2, f)], r.body)
	case renamed:
		return x.renamed(r)
	case listPaged:
		return x.paged(r)
	case listLink:
		x.page = page{0, (len(r.list.of) + 2) / 3}
		return x.linked(r)
	case listNoList:
		bodies := []string{`{}`, `null`, `"customers"`, `{"customers":"none"}`, `{"message":"ok"}`, `42`}
		r.list, r.body = nil, []byte(bodies[x.coin(len(bodies), f)])
	}
	return r
}

// withStatus replaces the status: by a word that is not documented, or by the same in another case.
func (x *exchange) withStatus(r reply, f Fault) reply {
	words := []Status{"pending", "suspended", "completed", "onboarded", "in_review"}
	coin := x.coin(len(words), f)
	show := func(s Status) Status {
		switch {
		case f == statusUnknown:
			return words[coin]
		case coin%2 == 0:
			return Status(strings.ToUpper(string(s)))
		}
		return Status(strings.ToUpper(string(s[:1]))) + s[1:]
	}
	if r.list != nil {
		shown := *r.list
		shown.show = show
		r.list = &shown
		return r
	}
	var v view
	mustRead(r.body, &v)
	v.Status = show(v.Status)
	r.body = mustJSON(v)
	return r
}

// other2xx returns a 2xx for a submission that is not the documented 204.
func (x *exchange) other2xx() reply {
	answers := []reply{
		{status: 200},
		jsonReply(200, map[string]string{"status": "ok"}),
		{status: 201},
		jsonReply(201, map[string]string{"id": x.id}),
		{status: 202},
		jsonReply(202, map[string]string{"message": "accepted"}),
	}
	return answers[x.coin(len(answers), sign2xx)]
}

// renamed moves one member of the answer to another name.
func (x *exchange) renamed(r reply) reply {
	var body map[string]json.RawMessage
	mustRead(r.body, &body)
	renames := [][2]string{{"id", "customerId"}, {"challenge", "message"}, {"token", "accessToken"}}
	for i := range renames {
		name := renames[(i+x.coin(len(renames), renamed))%len(renames)]
		if value, ok := body[name[0]]; ok {
			delete(body, name[0])
			body[name[1]] = value
			break
		}
	}
	r.body = mustJSON(body)
	return r
}

// paged returns the first half of the list, with one of the usual announcements of more.
func (x *exchange) paged(r reply) reply {
	all := len(r.list.of)
	half := all / 2
	path := x.r.URL.Path
	forms := []string{
		fmt.Sprintf(`"meta":{"total":%d,"page":1,"pageSize":%d}`, all, half),
		`"meta":{"hasMore":true}`,
		fmt.Sprintf(`"pagination":{"page":1,"totalPages":2,"totalItems":%d}`, all),
		`"pagination":{"nextCursor":"b2Zmc2V0"}`,
		fmt.Sprintf(`"paging":{"cursors":{"after":"b2Zmc2V0"},"next":"%s?after=b2Zmc2V0"}`, path),
		fmt.Sprintf(`"links":{"self":%q,"next":"%s?page=2"}`, path, path),
		fmt.Sprintf(`"_links":{"next":{"href":"%s?page=2"}}`, path),
		`"cursor":"b2Zmc2V0"`,
		`"nextPageToken":"b2Zmc2V0"`,
		`"next":2`,
		fmt.Sprintf(`"total":%d`, all),
		`"lastEvaluatedKey":{"id":"b2Zmc2V0"}`,
		"", // an array, and the total in a field of the header
	}
	l := &listing{of: r.list.of[:half]}
	if form := forms[x.coin(len(forms), listPaged)]; form != "" {
		l.head, l.tail = `{"data":`, ","+form+"}"
	} else {
		r.total = strconv.Itoa(all)
	}
	r.list = l
	return r
}

// mustRead reads JSON that this package has written.
func mustRead(body []byte, into any) {
	if err := json.Unmarshal(body, into); err != nil {
		panic("sandbox: " + err.Error())
	}
}
