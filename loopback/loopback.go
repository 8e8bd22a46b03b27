// Package loopback recognises hosts of this machine: only to them may secrets be sent in clear text.
package loopback

import (
	"net"
	"strings"
)

// Is reports whether host is localhost or a loopback address, with or without the brackets of IPv6. Names are not
// resolved.
func Is(host string) bool {
	ip := net.ParseIP(strings.Trim(host, "[]"))
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}
