package sandbox

import "strings"

// Operation names an endpoint of the API.
type Operation string

// The operations, in the order of the package documentation.
const (
	OpToken          Operation = "token"
	OpPutCredentials Operation = "put-credentials"
	OpPutKey         Operation = "put-signing"
	OpDeleteKey      Operation = "delete-signing"
	OpCreate         Operation = "create"
	OpList           Operation = "list"
	OpRead           Operation = "read"
	OpChallenge      Operation = "challenge"
	OpSign           Operation = "sign"
	OpVerify         Operation = "verify"
	OpReject         Operation = "reject"
)

// keyed reports whether the operation requires an Idempotency-Key: every POST, PUT, PATCH and DELETE [doc] except the
// request for a token, for which the vendor's own example has none.
func (op Operation) keyed() bool {
	switch op {
	case OpPutCredentials, OpPutKey, OpDeleteKey, OpCreate, OpSign, OpVerify, OpReject:
		return true
	}
	return false
}

// setsUp reports whether the operation changes the credentials of the API key.
func (op Operation) setsUp() bool {
	return op == OpPutCredentials || op == OpPutKey || op == OpDeleteKey
}

// hasBody reports whether the operation takes a body.
func (op Operation) hasBody() bool {
	return op == OpToken || op == OpPutCredentials || op == OpPutKey || op == OpCreate || op == OpSign
}

// route returns the operation and the customer id in the path. Without an operation, allow lists the methods that the
// path has, "" when there is no such path.
func route(method, path string) (op Operation, id, allow string) {
	rest, ok := strings.CutPrefix(path, "/v1/")
	if !ok {
		return "", "", ""
	}
	type endpoint struct {
		method string
		op     Operation
	}
	var endpoints []endpoint
	part := strings.Split(rest, "/")
	switch {
	case rest == "auth/token":
		endpoints = []endpoint{{"POST", OpToken}}
	case rest == "auth/credentials":
		endpoints = []endpoint{{"PUT", OpPutCredentials}}
	case rest == "auth/signing":
		endpoints = []endpoint{{"PUT", OpPutKey}, {"DELETE", OpDeleteKey}}
	case rest == "customers":
		endpoints = []endpoint{{"GET", OpList}, {"POST", OpCreate}}
	case part[0] == "customers" && len(part) == 2 && part[1] != "":
		id, endpoints = part[1], []endpoint{{"GET", OpRead}}
	case part[0] == "customers" && len(part) == 3 && part[2] == "challenge":
		id, endpoints = part[1], []endpoint{{"GET", OpChallenge}}
	case part[0] == "customers" && len(part) == 4 && part[2] == "challenge" && part[3] == "sign":
		id, endpoints = part[1], []endpoint{{"POST", OpSign}}
	case strings.HasPrefix(rest, "simulator/customers/") && len(part) == 4 && part[3] == "verify":
		id, endpoints = part[2], []endpoint{{"PATCH", OpVerify}}
	case strings.HasPrefix(rest, "simulator/customers/") && len(part) == 4 && part[3] == "reject":
		id, endpoints = part[2], []endpoint{{"PATCH", OpReject}}
	}
	var methods []string
	for _, e := range endpoints {
		if e.method == method {
			return e.op, id, ""
		}
		methods = append(methods, e.method)
	}
	return "", id, strings.Join(methods, ", ")
}
