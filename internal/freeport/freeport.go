// Package freeport finds ports for servers that are started as other programs.
package freeport

import (
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
)

// Addresses returns n different addresses on loopback at which nothing listens. Their ports are below those that the
// kernel gives to connections, because a connection could take one of those before the server does.
func Addresses(t testing.TB, n int) []string {
	t.Helper()
	addresses := make([]string, 0, n)
	for range 100 * n {
		address := fmt.Sprintf("127.0.0.1:%d", 20_000+rand.IntN(10_000))
		held, err := new(net.ListenConfig).Listen(t.Context(), "tcp", address)
		if err != nil {
			continue
		}
		defer held.Close() // when all are chosen, so that they differ
		if addresses = append(addresses, address); len(addresses) == n {
			return addresses
		}
	}
	t.Fatalf("got %d free ports on loopback, want %d", len(addresses), n)
	return nil
}
