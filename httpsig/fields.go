package httpsig

import (
	"net/textproto"
	"slices"
	"strings"
	"time"

	"github.com/dunglas/httpsfv"
)

// Bounds on what an unauthenticated request may make us parse and compute.
const (
	maxFieldLen   = 16 << 10 // bytes in all lines of Signature-Input, Signature or Content-Digest
	maxSignatures = 8
	maxComponents = 64
)

// signature is a labelled signature of a message, parsed but not verified.
type signature struct {
	label      string
	components []component
	params     string // of the base's last line: serialized again, in the order received (RFC 9421 §2.3)
	value      []byte

	given                  []string  // names of the parameters
	created, expires       time.Time // zero when absent
	keyid, alg, nonce, tag *string   // nil when absent
}

// labels parses both dictionaries and returns their labels in the order of Signature-Input. Both must have the same
// labels: this is stricter than RFC 9421 §4.2, which lets a verifier skip a label that only one of them has.
func labels(inputs, values []string) (names []string, input, value *httpsfv.Dictionary, err error) {
	if len(inputs) == 0 && len(values) == 0 {
		return nil, nil, nil, &Error{Kind: ErrNoSignature}
	}
	if input, err = parseDictionary(headerInput, inputs); err != nil {
		return nil, nil, nil, err
	}
	if value, err = parseDictionary(headerSignature, values); err != nil {
		return nil, nil, nil, err
	}
	names = input.Names()
	if len(names) > maxSignatures {
		return nil, nil, nil, &Error{Part: "field", Name: headerInput, Kind: ErrMalformed, Problem: "has too many signatures"}
	}
	for _, label := range names {
		if _, ok := value.Get(label); !ok {
			return nil, nil, nil, &Error{Label: label, Part: "field", Name: headerSignature, Kind: ErrMissing,
				Problem: "has no member with this label"}
		}
	}
	for _, label := range value.Names() {
		if _, ok := input.Get(label); !ok {
			return nil, nil, nil, &Error{Label: label, Part: "field", Name: headerInput, Kind: ErrMissing,
				Problem: "has no member with this label"}
		}
	}
	return names, input, value, nil
}

// parseDictionary parses a field that is a dictionary (RFC 9651 §3.2). In RFC 9651 the last of several members or
// parameters with the same name wins; here they are an error, because two parsers might disagree about which was
// signed.
func parseDictionary(field string, lines []string) (*httpsfv.Dictionary, error) {
	malformed := func(problem string, cause error) error {
		return &Error{Part: "field", Name: field, Kind: ErrMalformed, Problem: problem, Err: cause}
	}
	if len(lines) == 0 {
		return nil, &Error{Part: "field", Name: field, Kind: ErrMissing, Problem: "is missing"}
	}
	size := 0
	for _, line := range lines {
		size += len(line) + 2
	}
	if size > maxFieldLen {
		return nil, malformed("is too long", nil)
	}
	d, err := httpsfv.UnmarshalDictionary(lines)
	if err != nil {
		return nil, malformed("is not a dictionary of structured values", err)
	}
	if len(d.Names()) == 0 {
		return nil, malformed("is empty", nil)
	}
	members, params := 0, 0
	for _, name := range d.Names() {
		m, _ := d.Get(name)
		members++
		params += countParams(m)
	}
	writtenMembers, writtenParams := countWritten(lines)
	switch {
	case writtenMembers != members:
		return nil, malformed("has a member twice", nil)
	case writtenParams != params:
		return nil, malformed("has a parameter twice", nil)
	}
	return d, nil
}

func countParams(m httpsfv.Member) int {
	switch m := m.(type) {
	case httpsfv.Item:
		return len(m.Params.Names())
	case httpsfv.InnerList:
		n := len(m.Params.Names())
		for _, item := range m.Items {
			n += len(item.Params.Names())
		}
		return n
	}
	return 0
}

// countWritten counts the members and parameters in the text of a well-formed dictionary, where only strings can hold
// commas and semicolons that are not separators.
func countWritten(lines []string) (members, params int) {
	text := strings.Join(lines, ",")
	members = 1
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case ',':
			members++
		case ';':
			params++
		case '"':
			escapes := i == 0 || text[i-1] != '%' // a display string, %"…", has no backslash escapes
			for i++; i < len(text) && text[i] != '"'; i++ {
				if escapes && text[i] == '\\' {
					i++
				}
			}
		}
	}
	return members, params
}

// readSignature reads both members of a label.
func readSignature(label string, input, value httpsfv.Member) (signature, error) {
	s := signature{label: label}
	malformed := func(field, problem string) (signature, error) {
		return signature{}, &Error{Label: label, Part: "field", Name: field, Kind: ErrMalformed, Problem: problem}
	}
	item, _ := value.(httpsfv.Item)
	raw, ok := item.Value.([]byte)
	if !ok {
		return malformed(headerSignature, "member is not a byte sequence")
	}
	s.value = raw
	list, ok := input.(httpsfv.InnerList)
	if !ok {
		return malformed(headerInput, "member is not an inner list")
	}
	if len(list.Items) > maxComponents {
		return malformed(headerInput, "member has too many components")
	}
	seen := make(map[string]bool, len(list.Items))
	for _, item := range list.Items {
		c, err := readComponent(item)
		if err != nil {
			return signature{}, labelled(label, err)
		}
		same := canonicalID(c)
		if seen[same] {
			return signature{}, labelled(label, componentError(c.name, ErrMalformed, "is covered twice"))
		}
		seen[same] = true
		s.components = append(s.components, c)
	}
	var err error
	if s.params, err = httpsfv.Marshal(list); err != nil {
		return malformed(headerInput, "member cannot be serialized")
	}
	if err := s.readParams(list.Params); err != nil {
		return signature{}, labelled(label, err)
	}
	return s, nil
}

// readComponent reads a component identifier of the message. The source decides later whether it supports the
// component.
func readComponent(item httpsfv.Item) (component, error) {
	name, ok := item.Value.(string)
	if !ok {
		return component{}, &Error{Part: "field", Name: headerInput, Kind: ErrMalformed,
			Problem: "a component is not a string"}
	}
	if name == "@signature-params" { // RFC 9421 §2.3
		return component{}, componentError(name, ErrMalformed, "must not be covered")
	}
	if bare := strings.TrimPrefix(name, "@"); !isFieldName(bare) {
		return component{}, componentError(name, ErrMalformed, "is not a component name in lower case")
	}
	c := component{name: name}
	if len(item.Params.Names()) == 0 {
		c.id = `"` + name + `"`
	} else {
		var err error
		if c.id, err = httpsfv.Marshal(item); err != nil {
			return component{}, componentError(name, ErrMalformed, "has parameters that cannot be serialized")
		}
		c.params = item.Params
	}
	if name[0] != '@' {
		c.key = textproto.CanonicalMIMEHeaderKey(name)
	}
	return c, nil
}

// canonicalID returns the same text for identifiers that differ only in the order of their parameters: RFC 9421 §2
// calls these duplicates.
func canonicalID(c component) string {
	if c.params == nil || len(c.params.Names()) < 2 {
		return c.id
	}
	names := slices.Sorted(slices.Values(c.params.Names()))
	sorted := httpsfv.NewParams()
	for _, name := range names {
		value, _ := c.params.Get(name)
		sorted.Add(name, value)
	}
	id, err := httpsfv.Marshal(httpsfv.Item{Value: c.name, Params: sorted})
	if err != nil {
		return c.id
	}
	return id
}

// readParams reads the parameters of RFC 9421 §2.3. Others are part of the base but have no further meaning.
func (s *signature) readParams(params *httpsfv.Params) error {
	s.given = params.Names()
	for _, name := range s.given {
		value, _ := params.Get(name)
		switch name {
		case "created", "expires":
			seconds, ok := value.(int64)
			if !ok || seconds <= 0 {
				return parameterError(name, ErrMalformed, "is not a time in whole seconds since 1970")
			}
			if name == "created" {
				s.created = time.Unix(seconds, 0)
			} else {
				s.expires = time.Unix(seconds, 0)
			}
		case "keyid", "alg", "nonce", "tag":
			text, ok := value.(string)
			if !ok {
				return parameterError(name, ErrMalformed, "is not a string")
			}
			switch name {
			case "keyid":
				s.keyid = &text
			case "alg":
				s.alg = &text
			case "nonce":
				s.nonce = &text
			case "tag":
				s.tag = &text
			}
		}
	}
	return nil
}

// sfString serializes a string (RFC 9651 §4.1.6); an error means that it is not printable ASCII.
func sfString(s string) (string, error) { return httpsfv.Marshal(httpsfv.NewItem(s)) }

// isKey reports whether s can be a key of a dictionary (RFC 9651 §3.1.2).
func isKey(s string) bool {
	d := httpsfv.NewDictionary()
	d.Add(s, httpsfv.NewItem(true))
	_, err := httpsfv.Marshal(d)
	return err == nil
}
