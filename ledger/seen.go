package ledger

import (
	"hash/maphash"
)

// seen knows the accounts, externalIds and nonces of the records of a fill, with errors in one direction: it may take a
// new text for a known text. It is a series of Bloom filters, each eight times the size of the one before up to 32 MiB,
// so that few records need little memory: 26 bits for each text. A full filter mistakes one text in 11,800. Of 14
// million records with three texts, about maxAside are mistaken.
type seen struct {
	seed    maphash.Seed
	filters [][]bloomBlock
	room    int // texts that the latest filter can take
}

// bloomBlock is a Bloom filter in a line of the processor's cache.
type bloomBlock [8]uint64

const (
	firstBlocks   = 1 << 11 // 128 KiB
	textsPerBlock = 20      // of 512 bits
	bitsPerText   = 7
)

// any reports whether an account, externalId or nonce of the snapshot may be known, and adds all of them.
func (f *seen) any(s *snapshot) bool {
	known := f.add(maphash.String(f.seed, s.ChainID))
	known = f.add(^maphash.String(f.seed, s.ExternalID)) || known // another hash than that of an equal account
	for i := range s.Nonces {
		known = f.add(maphash.Bytes(f.seed, s.Nonces[i][:nonceHalf])) || known
	}
	return known
}

// add reports whether a hash may be known, and adds it.
func (f *seen) add(hash uint64) (known bool) {
	if f.room == 0 {
		blocks := firstBlocks << min(3*len(f.filters), 8)
		f.filters = append(f.filters, make([]bloomBlock, blocks))
		f.room = blocks * textsPerBlock
	}
	// The high bits choose the block, the low bits its bits.
	var bits bloomBlock
	for rest, n := hash, 0; n < bitsPerText; n++ {
		bits[rest&7] |= 1 << (rest >> 3 & 63)
		rest >>= 9
	}
	high := (hash * 0x9e3779b97f4a7c15) >> 32 // mixes, so that block and bits do not depend on each other
	latest := len(f.filters) - 1
	for i, filter := range f.filters {
		block := &filter[high&uint64(len(filter)-1)]
		there := true
		for w := range bits {
			there = there && block[w]&bits[w] == bits[w]
			if i == latest {
				block[w] |= bits[w]
			}
		}
		known = known || there
	}
	f.room--
	return known
}
