package signer

import (
	"strconv"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
)

// Prefix returns the bytes that are hashed: EIP-191's "\x19Ethereum Signed Message:\n", the length of message in bytes
// as decimal text, and message. Backends that add no prefix receive these bytes.
func Prefix(message []byte) []byte {
	b := make([]byte, 0, len(message)+32)
	b = append(b, "\x19Ethereum Signed Message:\n"...)
	b = strconv.AppendInt(b, int64(len(message)), 10)
	return append(b, message...)
}

// MessageHash returns the digest that is signed for a personal message: keccak256 over Prefix(message). It equals
// go-ethereum's accounts.TextHash; importing that package would add transactions, KZG commitments and pairing curves to
// the program.
func MessageHash(message []byte) common.Hash {
	return crypto.Keccak256Hash(Prefix(message))
}
