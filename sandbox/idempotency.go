package sandbox

import (
	"crypto/sha256"
	"sync"
	"time"
)

// keyStore keeps the answer under each idempotency key. During a key's lifetime the same payload gets the same answer
// without a second execution, another payload a 422, and a request during the execution of another a 409. [doc] A key
// belongs to the API key that used it, so that two integrations cannot collide. [inferred]
type keyStore struct {
	ttl    time.Duration
	shards [64]keyShard
}

type keyShard struct {
	sync.Mutex
	known map[keyName]*storedKey
	aging []agingKey // in the order of first use
}

type keyName struct{ apiKey, key string }

type agingKey struct {
	name  keyName
	since time.Time
}

type storedKey struct {
	fingerprint [sha256.Size]byte
	since       time.Time
	done        bool
	reply       reply
}

// claimed is what to do with a request with a key.
type claimed int

const (
	claimFresh    claimed = iota + 1 // execute, then complete or forget
	claimReplay                      // give the stored answer
	claimInFlight                    // another request with the key is in progress
	claimMismatch                    // the key was used with another payload
)

func (k *keyStore) init(ttl time.Duration) {
	k.ttl = ttl
	for i := range k.shards {
		k.shards[i].known = make(map[keyName]*storedKey)
	}
}

func (k *keyStore) shard(n keyName) *keyShard {
	return &k.shards[nameHash([]string{n.apiKey, n.key})%uint64(len(k.shards))]
}

// claim looks the key up and reserves it when it is fresh: exactly one of many callers gets claimFresh.
func (k *keyStore) claim(n keyName, fingerprint [sha256.Size]byte, now time.Time) (claimed, reply) {
	shard := k.shard(n)
	shard.Lock()
	defer shard.Unlock()
	shard.forgetOld(now, k.ttl)

	stored := shard.known[n]
	if stored != nil && stored.done && now.Sub(stored.since) >= k.ttl {
		stored = nil
	}
	switch {
	case stored == nil:
		shard.known[n] = &storedKey{fingerprint: fingerprint, since: now}
		shard.aging = append(shard.aging, agingKey{n, now})
		return claimFresh, reply{}
	case stored.fingerprint != fingerprint:
		return claimMismatch, reply{}
	case !stored.done:
		return claimInFlight, reply{}
	}
	return claimReplay, stored.reply
}

// forgetOld drops expired keys, a few at a time, so that no request takes long.
func (s *keyShard) forgetOld(now time.Time, ttl time.Duration) {
	for range 4 {
		if len(s.aging) == 0 || now.Sub(s.aging[0].since) < ttl {
			return
		}
		oldest := s.aging[0]
		s.aging = s.aging[1:]
		if stored := s.known[oldest.name]; stored != nil && stored.done && stored.since.Equal(oldest.since) {
			delete(s.known, oldest.name)
		}
	}
}

// complete stores the answer of a claimed key.
func (k *keyStore) complete(n keyName, r reply) {
	shard := k.shard(n)
	shard.Lock()
	defer shard.Unlock()
	if stored := shard.known[n]; stored != nil {
		stored.done, stored.reply = true, r
	}
}

// forget releases a claimed key without an answer: the next request with it is executed.
func (k *keyStore) forget(n keyName) {
	shard := k.shard(n)
	shard.Lock()
	defer shard.Unlock()
	delete(shard.known, n)
}
