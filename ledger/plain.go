package ledger

import (
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/google/uuid"

	"github.com/purser-onboard/purser/pipeline"
)

// readPlain reads a record as json.Marshal writes a snapshot: the members in their order, no space between them, texts
// in UTF-8. It reports false for everything else, which is for package json: it takes several times as long.
func readPlain(value []byte) (*snapshot, bool) {
	if !utf8.Valid(value) {
		return nil, false
	}
	p := plain{rest: string(value), ok: true}
	s := &snapshot{}
	p.skip(`{"v":`)
	s.V = p.int()
	p.text(`,"apiHost":`, &s.APIHost)
	p.text(`,"apiKeyId":`, &s.APIKeyID)
	p.optional(`,"apiPath":`, &s.APIPath)
	p.text(`,"chainId":`, &s.ChainID)
	p.text(`,"externalId":`, &s.ExternalID)
	p.skip(`,"version":`)
	s.Version = p.int64()
	p.text(`,"stage":`, &s.Stage)
	p.optional(`,"class":`, &s.Class)
	p.optional(`,"reason":`, &s.Reason)
	p.skip(`,"claims":`)
	s.HasClaims = p.bool()
	p.optional(`,"customerId":`, &s.CustomerID)
	p.optional(`,"partnerStatus":`, &s.Status)
	p.optional(`,"challenge":`, &s.Challenge)
	s.ChallengeAt = p.moment(`,"challengeAt":`)
	p.optional(`,"externalTxId":`, &s.TxID)
	p.optional(`,"signature":`, &s.Signature)
	if p.has(`,"refusals":`) {
		s.Refusals = p.int()
	}
	if p.has(`,"attempts":`) {
		s.Attempts = p.int()
	}
	s.Already = p.has(`,"alreadyOnboarded":`) && p.bool()
	s.Unpublished = p.has(`,"unannounced":`) && p.bool()
	p.text(`,"importId":`, &s.ImportID)
	p.text(`,"file":`, &s.File)
	p.skip(`,"line":`)
	s.Line = p.int()
	p.list(`,"earlierImports":`, func() { s.Imports = append(s.Imports, p.string()) })
	s.CreateGeneration = p.generation(`,"createGeneration":`)
	s.SubmitGeneration = p.generation(`,"submitGeneration":`)
	p.list(`,"keys":`, func() {
		if s.Keys == nil {
			s.Keys = make([]snapshotKey, 0, 2) // of a row that went well
		}
		s.Keys = append(s.Keys, p.key())
	})
	p.list(`,"earlierKeyrings":`, func() {
		var k snapshotKeyring
		p.text(`{"apiHost":`, &k.APIHost)
		p.text(`,"apiKeyId":`, &k.APIKeyID)
		p.skip(`}`)
		s.Earlier = append(s.Earlier, k)
	})
	p.list(`,"nonces":`, func() { s.Nonces = append(s.Nonces, p.digest()) })
	p.skip(`,"acceptedAt":`)
	p.stamp(&s.AcceptedAt)
	p.skip(`,"updatedAt":`)
	p.stamp(&s.UpdatedAt)
	p.skip(`}`)
	return s, p.ok && p.rest == ""
}

// plain is what is still to be read. Once ok is false, what its methods return means nothing.
type plain struct {
	rest string
	ok   bool
}

// has reads a text that may be there.
func (p *plain) has(text string) bool {
	rest, ok := strings.CutPrefix(p.rest, text)
	p.rest = rest
	return ok
}

// skip reads a text that must be there.
func (p *plain) skip(text string) { p.ok = p.has(text) && p.ok }

func (p *plain) text(name string, into *string) {
	p.skip(name)
	*into = p.string()
}

func (p *plain) optional(name string, into *string) {
	if p.has(name) {
		*into = p.string()
	}
}

// list reads an array that may be there, without null and not empty.
func (p *plain) list(name string, item func()) {
	if !p.has(name) {
		return
	}
	p.skip(`[`)
	item()
	for p.ok && p.has(`,`) {
		item()
	}
	p.skip(`]`)
}

func (p *plain) bool() bool {
	if p.has(`true`) {
		return true
	}
	p.skip(`false`)
	return false
}

func (p *plain) int() int {
	n := p.int64()
	p.ok = p.ok && int64(int(n)) == n
	return int(n)
}

// int64 reads an integer of up to 18 digits.
func (p *plain) int64() int64 {
	n := 0
	for n < len(p.rest) && ('0' <= p.rest[n] && p.rest[n] <= '9' || n == 0 && p.rest[n] == '-') {
		n++
	}
	digits := strings.TrimPrefix(p.rest[:n], "-")
	number, err := strconv.ParseInt(p.rest[:n], 10, 64)
	if err != nil || len(digits) > 18 || digits[0] == '0' && p.rest[:n] != "0" {
		p.ok = false
		return 0
	}
	p.rest = p.rest[n:]
	return number
}

func (p *plain) generation(name string) *int {
	if !p.has(name) {
		return nil
	}
	n := p.int()
	return &n
}

// string reads a JSON string.
func (p *plain) string() string {
	p.skip(`"`)
	end := strings.IndexByte(p.rest, '"')
	if !p.ok || end < 0 {
		p.ok = false
		return ""
	}
	text := p.rest[:end]
	if !hasEscape(text) {
		p.rest = p.rest[end+1:]
		return text
	}
	return p.escaped()
}

// hasEscape reports whether there is a backslash, or a control character, which a JSON string may not have.
func hasEscape(text string) bool {
	for i := 0; i < len(text); i++ {
		if text[i] == '\\' || text[i] < ' ' {
			return true
		}
	}
	return false
}

// escaped reads the rest of a JSON string that has escapes. A surrogate pair is not read: json.Marshal writes none.
func (p *plain) escaped() string {
	text := make([]byte, 0, 512)
	for i := 0; i < len(p.rest); i++ {
		begin := i
		for i < len(p.rest) && p.rest[i] >= ' ' && p.rest[i] != '"' && p.rest[i] != '\\' {
			i++
		}
		text = append(text, p.rest[begin:i]...)
		if i < len(p.rest) && p.rest[i] == '"' {
			p.rest = p.rest[i+1:]
			return string(text)
		}
		if i == len(p.rest) || p.rest[i] != '\\' { // a control character
			break
		}
		if i++; i == len(p.rest) {
			break
		}
		switch p.rest[i] {
		case '"', '\\', '/':
			text = append(text, p.rest[i])
		case 'b':
			text = append(text, '\b')
		case 'f':
			text = append(text, '\f')
		case 'n':
			text = append(text, '\n')
		case 'r':
			text = append(text, '\r')
		case 't':
			text = append(text, '\t')
		case 'u':
			if len(p.rest) < i+5 {
				p.ok = false
				return ""
			}
			unit, err := strconv.ParseUint(p.rest[i+1:i+5], 16, 16)
			if err != nil || utf16.IsSurrogate(rune(unit)) {
				p.ok = false
				return ""
			}
			text = utf8.AppendRune(text, rune(unit))
			i += 4
		default:
			p.ok = false
			return ""
		}
	}
	p.ok = false
	return ""
}

// stamp reads a time. Package time does not read escapes.
func (p *plain) stamp(s *stamp) {
	p.skip(`"`)
	text, rest, _ := strings.Cut(p.rest, `"`)
	p.rest = rest
	p.ok = p.ok && s.UnmarshalText([]byte(text)) == nil
}

func (p *plain) moment(name string) *stamp {
	if !p.has(name) {
		return nil
	}
	s := &stamp{}
	p.stamp(s)
	return s
}

func (p *plain) key() (k snapshotKey) {
	var operation, outcome string
	p.text(`{"operation":`, &operation)
	p.skip(`,"generation":`)
	k.Generation = p.int()
	p.skip(`,"id":`)
	if id := p.string(); len(id) == len(uuid.Nil.String()) {
		var err error
		k.ID, err = uuid.Parse(id)
		p.ok = p.ok && err == nil
	} else {
		p.ok = false // another form
	}
	p.skip(`,"digest":`)
	k.Digest = p.digest()
	k.FirstSent = p.moment(`,"firstSent":`)
	k.LastSent = p.moment(`,"lastSent":`)
	p.text(`,"outcome":`, &outcome)
	p.skip(`}`)
	k.Operation, k.Outcome = pipeline.Operation(operation), pipeline.KeyState(outcome)
	return k
}

func (p *plain) digest() (d hexDigest) {
	p.ok = d.UnmarshalText([]byte(p.string())) == nil && p.ok
	return d
}
