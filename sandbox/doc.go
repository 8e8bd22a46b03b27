// Package sandbox is a strict local stand-in for the partner API. It does what the partner's documents say, and where
// they say nothing, follows the stricter reading. It is strict (a request whose signature misses a component fails),
// seeded (the same seed and requests give the same ids, nonces and faults, in whatever order the requests arrive),
// forgetful (nothing survives a restart or a reset), and unlike production where a client must not depend on it. Its
// model is Let's Encrypt's pebble.
//
// Two handlers belong to two ports. [Server.API] is for the client under test, below /v1. [Server.Control] is for the
// test: it sets faults, moves the clock, returns the history of requests, and has the judge ([Server.Judge]) check
// whether the client kept the invariants that make a replay safe.
//
// Comments mark behaviour as [doc] when the vendor states it, as [lib] when the vendor's server library has it, and as
// [inferred] when it is our reading. Inferred behaviour on which a client could depend can be changed in [Config].
//
// The API, all of it below /v1:
//
//	POST   /auth/token                        200 {"token","expiresAt","tokenType"}     [doc]
//	PUT    /auth/credentials                  204, body {"apiKey","apiSecret"}          [doc], names, 204 [inferred]
//	PUT    /auth/signing                      200 {"keyId"}, body {"publicKey"}         [doc], names [inferred]
//	DELETE /auth/signing                      204                                       [doc], 204 [inferred]
//	POST   /customers                         201, 400, 401, 409                        [doc]
//	GET    /customers                         200, a JSON array of all customers        [doc], a bare array [inferred]
//	GET    /customers/{id}                    200, 404                                  [doc]
//	GET    /customers/{id}/challenge          200 {"challenge"}, 404, 409 past initiating  [doc], body, 409 [inferred]
//	POST   /customers/{id}/challenge/sign     204, 400, 404, 409 past initiating        [doc], 409 [inferred]
//	PATCH  /simulator/customers/{id}/verify   202, 404, 409 unless screening or later   [doc], 409 [inferred]
//	PATCH  /simulator/customers/{id}/reject   202, 404, 409 when rejected already       [doc], 409 [inferred]
//
// The order of the checks is: route, size of the body, rate, query, token, signature, Content-Digest, media type,
// Idempotency-Key, faults, stored answer, operation. Only the answer of the operation, also an error, is stored under
// the key. [inferred]
package sandbox
