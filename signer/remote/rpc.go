package remote

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"sync/atomic"

	"github.com/ethereum/go-ethereum/common"

	"github.com/purser-onboard/purser/printable"
	"github.com/purser-onboard/purser/signer"
)

// RPC calls a signer by JSON-RPC 2.0, over HTTP or a Unix socket. It is safe for concurrent use.
type RPC struct {
	at     address
	http   *HTTP   // nil for a socket
	socket *socket // nil for HTTP
	last   atomic.Uint64
	closed atomic.Bool
}

// OpenRPC returns an RPC for the signer at a URI that OpenHTTP accepts or, if sockets are allowed, kind+unix:///path.
// Nothing is sent yet.
func OpenRPC(uri, kind, shape string, sockets, insecure bool) (*RPC, error) {
	at, err := parseAddress(uri, kind, shape, sockets)
	if err != nil {
		return nil, err
	}
	if at.socket != "" {
		return &RPC{at: at, socket: newSocket(at.socket)}, nil
	}
	h, err := openHTTP(at, insecure)
	if err != nil {
		return nil, err
	}
	return &RPC{at: at, http: h}, nil
}

// Name returns the signer's address for messages: "http://host:port" or "unix:/path".
func (r *RPC) Name() string { return r.at.name() }

// Caveats returns HTTP.Caveats; a socket has none.
func (r *RPC) Caveats() string {
	if r.http == nil {
		return ""
	}
	return r.http.Caveats()
}

// Call calls method with params and decodes the result, which may be anything but null, into result. The whole answer
// must have at most limit bytes. An error that was answered is a *RPCError, another HTTP status than 200 a
// *StatusError. It blocks until there is an answer, for a minute at most, or until ctx ends; then the error wraps
// ctx's.
func (r *RPC) Call(ctx context.Context, limit int64, result any, method string, params ...any) error {
	if r.closed.Load() {
		return fmt.Errorf("%w: %s: closed", signer.ErrUnusable, r.Name())
	}
	if params == nil {
		params = []any{}
	}
	id := r.last.Add(1)
	request, err := json.Marshal(rpcRequest{Version: "2.0", ID: id, Method: method, Params: params})
	if err != nil {
		return fmt.Errorf("%s: %s: %w", r.Name(), method, err)
	}
	answer, err := r.exchange(ctx, request, limit)
	if err != nil {
		return err
	}
	value, err := r.read(answer, id, method)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(value, result); err != nil {
		return fmt.Errorf("%s: %s: malformed result: %w", r.Name(), method, err)
	}
	return nil
}

// Accounts calls method, which has no parameters, and reads its result as a list of addresses.
func (r *RPC) Accounts(ctx context.Context, method string) (map[common.Address]struct{}, error) {
	var list []string
	if err := r.Call(ctx, MostList, &list, method); err != nil {
		return nil, err
	}
	accounts, err := addressSet(list)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.Name(), err)
	}
	return accounts, nil
}

// Sign calls method with params and reads its result as a signature.
func (r *RPC) Sign(ctx context.Context, method string, params ...any) (signer.Signature, error) {
	var text string
	if err := r.Call(ctx, MostSignature, &text, method, params...); err != nil {
		return signer.Signature{}, err
	}
	sig, err := ParseSignature(text)
	if err != nil {
		return signer.Signature{}, fmt.Errorf("%s: %w", r.Name(), err)
	}
	return sig, nil
}

func (r *RPC) exchange(ctx context.Context, request []byte, limit int64) ([]byte, error) {
	if r.http != nil {
		return r.http.Do(ctx, http.MethodPost, "", "application/json", request, limit)
	}
	inner, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	answer, err := r.socket.exchange(inner, request, limit)
	return answer, explain(ctx, inner, r.Name(), err)
}

type rpcRequest struct {
	Version string `json:"jsonrpc"`
	ID      uint64 `json:"id"`
	Method  string `json:"method"`
	Params  []any  `json:"params"`
}

type rpcAnswer struct {
	Version string          `json:"jsonrpc"`
	ID      json.RawMessage `json:"id"`
	Result  json.RawMessage `json:"result"`
	Error   *struct {
		Code    *int   `json:"code"`
		Message string `json:"message"`
	} `json:"error"`
}

// read returns the result in answer. Anything but one well-formed response to this call is an error.
func (r *RPC) read(answer []byte, id uint64, method string) (json.RawMessage, error) {
	malformed := func(problem string) (json.RawMessage, error) {
		return nil, fmt.Errorf("%s: %s: %w: %s", r.Name(), method, errMalformed, problem)
	}
	var a rpcAnswer
	if err := json.Unmarshal(answer, &a); err != nil {
		return malformed("it is not a JSON object of that form")
	}
	null := func(v json.RawMessage) bool { return len(v) == 0 || bytes.Equal(v, []byte("null")) }
	if a.Version != "2.0" {
		return malformed("its version is not 2.0")
	}
	// A server that could not read the request does not know its id.
	if string(a.ID) != strconv.FormatUint(id, 10) && (a.Error == nil || !null(a.ID)) {
		return malformed("its id is that of another call")
	}
	switch {
	case a.Error != nil && !null(a.Result):
		return malformed("it has a result and an error")
	case a.Error != nil && a.Error.Code == nil:
		return malformed("its error has no code")
	case a.Error != nil:
		return nil, &RPCError{Endpoint: r.Name(), Method: method, Code: *a.Error.Code,
			Message: printable.Line(a.Error.Message, mostDetail)}
	case null(a.Result):
		return malformed("it has no result")
	}
	return a.Result, nil
}

var errMalformed = errors.New("the response is not JSON-RPC 2.0")

// Close closes the idle connections. It may be called twice.
func (r *RPC) Close() error {
	r.closed.Store(true)
	if r.http != nil {
		return r.http.Close()
	}
	r.socket.close()
	return nil
}
