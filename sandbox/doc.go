// Package sandbox is a strict local stand-in for the partner API: what the partner's documents say, held to the letter,
// and where they are silent the harder of the possible readings. It is strict (one missing component in a signature
// refuses the request), seeded (the same seed and the same requests give the same ids, nonces and faults, whatever the
// order in which they arrive), forgetful (nothing survives a restart or a reset) and unlike production where a client
// must not care. The model is Let's Encrypt's pebble.
//
// Two handlers belong to two ports. [Server.API] is what the client under test sees, below /v1. [Server.Control] is
// what the test sees: it sets faults, moves the clock, asks for the history of requests, and asks the judge ([Judge])
// whether the client kept the invariants that make a replay safe.
//
// Comments mark behaviour as [doc] when the vendor states it and [inferred] when it is a reading of ours; inferred
// behaviour a client could come to depend on can be switched in [Config].
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
// Idempotency-Key, faults, the key's memory, the operation. What fails before the key's memory is not remembered under
// the key; what the operation itself answers, errors included, is [inferred].
package sandbox
