// Package remote is shared by the backends whose keys are in another process: the URI of that process, a bounded
// exchange with it over HTTP, TLS or a Unix socket, JSON-RPC 2.0 on top of that, and a cache of its list of accounts.
//
// The backends decide what an answer means for a row. These rules hold for all of them:
//
//   - An exchange takes at most a minute, and reads no more than its caller allows.
//   - Redirects are not followed and proxies not used: only the host in the URI signs.
//   - A connection that was closed while it was idle is replaced, and the request sent again: requesting the same
//     signature twice does no harm.
//   - Errors about our identity or the address (401, 403, a redirect, a certificate) wrap signer.ErrUnusable,
//     because asking again gives the same. That the signer cannot be reached is a transient error, except at
//     opening and checking: see Unusable.
//   - Error texts name scheme, host and port, or the socket's path; never the path or query of a URL, where people
//     put keys.
//
// go-ethereum's rpc package is not used, because it reads answers of any length and adds WebSockets, metrics and
// tracing to the program.
package remote
