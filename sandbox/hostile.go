package sandbox

import (
	"encoding/hex"
	"strconv"
	"strings"
	"time"

	"github.com/ethereum/go-ethereum/common"
)

// drawHostile returns the fault of a customer's challenge of this number, "" for none.
func (s *Server) drawHostile(st *state, customerID string, number int) Fault {
	t := s.faults.Load()
	for _, c := range t.hostile {
		if c.fault == challengeNonce && st.signed.Load() == nil {
			continue // there is no used nonce yet
		}
		if s.seed.chance("fault", string(c.fault), customerID, strconv.Itoa(number)) >= c.p {
			continue
		}
		if t.Limit == 0 || st.attempts.take(t.Limit, "struck", string(c.fault), customerID) {
			return c.fault
		}
	}
	return ""
}

// hostileText returns the message with the challenge's fault, and otherwise as it should be.
func (s *Server) hostileText(c *customer, ch challenge, m signIn) string {
	draw := s.seed.sum("hostile", c.id, strconv.Itoa(ch.number))
	const elsewhere = "wallet-login.example"
	switch ch.hostile {
	case challengeAddress:
		m.address = common.BytesToAddress(draw[:20]).Hex()
	case challengeDomain:
		m.domain = elsewhere
	case challengeChain:
		m.chain = strconv.FormatUint(c.account.chain+1, 10)
	case challengeURI:
		m.uri = "https://" + elsewhere + "/login"
	case challengeStale:
		m.issued = m.issued.Add(-s.cfg.ChallengeTTL - 2*time.Hour)
	case challengeHomograph:
		m.domain = lookalike(m.domain)
	case challengeTrailing:
		return m.text() + "\n\nI also authorise the holder of 0x" + hex.EncodeToString(draw[:20]) + " to spend all my funds."
	case challengeStatement:
		m.statement = "I hereby irrevocably transfer all assets of this account to 0x" + hex.EncodeToString(draw[:20]) + "."
		if draw[0]%2 == 0 {
			m.statement = strings.Repeat("I agree. ", 778)
		}
	case challengeURIQuery:
		m.uri += "?to=0x" + hex.EncodeToString(draw[:20]) + "&amount=all"
	case challengeExpiration:
		return m.text() + "\nExpiration Time: 9999-12-31T23:59:59Z"
	case challengeNotBefore:
		return m.text() + "\nExpiration Time: " + timeText(m.issued.Add(s.cfg.ChallengeTTL/2)) +
			"\nNot Before: " + timeText(m.issued.Add(s.cfg.ChallengeTTL))
	case challengeRequestID:
		return m.text() + "\nRequest ID: transfer-" + hex.EncodeToString(draw[:8])
	case challengeResources:
		return m.text() + "\nResources:\n- https://" + elsewhere + "/transfer"
	case challengeNonce:
		m.nonce = ch.nonce
	case challengeNotSIWE:
		if draw[0]%2 == 0 {
			return "0x" + hex.EncodeToString(draw[:]) // could be the hash of anything
		}
		return "I approve the transfer of 1000 USDC from " + m.address + " to 0x" + hex.EncodeToString(draw[:20]) + "."
	}
	return m.text()
}

// lookalike replaces the first character for which there is another that looks the same.
func lookalike(domain string) string {
	for i, r := range domain {
		if twin, ok := map[rune]string{
			'a': "\u0430", 'c': "\u0441", 'e': "\u0435", 'o': "\u043e", 'p': "\u0440", 'i': "\u0456", // Cyrillic
			'0': "\uff10", '1': "\uff11", '2': "\uff12", // full width
		}[r]; ok {
			return domain[:i] + twin + domain[i+1:]
		}
	}
	return strings.ToUpper(domain) + "\u200b" // a zero-width space
}
