// Package remote is what the backends share whose keys are held by another process: the URI that says where it is, one
// bounded exchange with it over HTTP, TLS or a local socket, JSON-RPC 2.0 on top of that, and the list of accounts it
// said it has.
//
// Nothing here decides what an answer means for a row; the backends do. What is decided here holds for all of them:
//
//   - An exchange takes at most a minute, and reads no more than its caller allows.
//   - No redirect is followed and no proxy asked. Who signs is who the URI names.
//   - A connection that the other side closed while it was idle is replaced without a word: asking for the same
//     signature twice does no harm.
//   - What is refused for who we are (401, 403, a redirect, a certificate) wraps signer.ErrUnusable, because asking
//     again gives the same. What cannot be reached is transient, until it is opened or checked: see Unusable.
//   - Messages name scheme, host and port, or the socket's path; never the path or query of a URL, where people put
//     keys.
//
// It is written out here rather than taken from go-ethereum's rpc package, which reads answers of any length, and
// brings WebSockets, metrics and tracing along.
package remote
