package sandbox

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"sync"
)

// seeded derives all random values from the seed and the names of their purpose, never from the order in which requests
// arrive. So a run with many workers can be repeated.
type seeded uint64

func (s seeded) sum(parts ...string) [sha256.Size]byte {
	h := sha256.New()
	writeUint(h, uint64(s))
	for _, p := range parts {
		writeUint(h, uint64(len(p))) // the length keeps ("ab","c") apart from ("a","bc")
		h.Write([]byte(p))
	}
	var out [sha256.Size]byte
	h.Sum(out[:0])
	return out
}

func writeUint(h hash.Hash, n uint64) {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], n)
	h.Write(b[:])
}

// chance returns a number in [0,1).
func (s seeded) chance(parts ...string) float64 {
	sum := s.sum(parts...)
	return float64(binary.BigEndian.Uint64(sum[:])>>11) / (1 << 53)
}

// pick returns a number in [0,n).
func (s seeded) pick(n int, parts ...string) int {
	sum := s.sum(parts...)
	return int(binary.BigEndian.Uint64(sum[8:]) % uint64(n))
}

// uuid returns a UUID that looks like a random one (version 4).
func (s seeded) uuid(parts ...string) string {
	b := s.sum(parts...)
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	t := hex.EncodeToString(b[:16])
	return t[:8] + "-" + t[8:12] + "-" + t[12:16] + "-" + t[16:20] + "-" + t[20:]
}

// nonce returns n letters and digits; EIP-4361 requires at least 8. n is at most 32.
func (s seeded) nonce(n int, parts ...string) string {
	const alphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	sum := s.sum(parts...)
	out := make([]byte, n)
	for i := range out {
		out[i] = alphabet[int(sum[i])%len(alphabet)]
	}
	return string(out)
}

// counters count attempts and faults by name. They keep a 64-bit hash of the name only, so that a million subjects need
// some tens of megabytes; two names with the same hash are likely only beyond a thousand million names.
type counters struct {
	shards [64]struct {
		sync.Mutex
		n map[uint64]uint32
	}
}

func (c *counters) init() {
	for i := range c.shards {
		c.shards[i].n = make(map[uint64]uint32)
	}
}

// next increments the count and returns it, from 1.
func (c *counters) next(parts ...string) int {
	h := nameHash(parts)
	shard := &c.shards[h%uint64(len(c.shards))]
	shard.Lock()
	defer shard.Unlock()
	shard.n[h]++
	return int(shard.n[h])
}

// take increments the count unless it is most, and reports whether it did.
func (c *counters) take(most int, parts ...string) bool {
	h := nameHash(parts)
	shard := &c.shards[h%uint64(len(c.shards))]
	shard.Lock()
	defer shard.Unlock()
	if int(shard.n[h]) >= most {
		return false
	}
	shard.n[h]++
	return true
}

func nameHash(parts []string) uint64 {
	sum := seeded(0).sum(parts...)
	return binary.BigEndian.Uint64(sum[:])
}
