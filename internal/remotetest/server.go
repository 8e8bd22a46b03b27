package remotetest

import (
	"encoding/hex"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// Error is the error in the answer to a call.
type Error struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

func (e *Error) Error() string { return e.Message }

// Server answers JSON-RPC 2.0 calls by the functions of Methods, over HTTP and over a Unix socket, and checks the form
// of what it is sent as go-ethereum's server does.
type Server struct {
	// Methods has what each method does: its result, or an *Error. Others are answered with -32601.
	Methods map[string]func(params []string) (any, *Error)
	// Before, if it is set, may answer an HTTP request instead of the server by returning true.
	Before func(w http.ResponseWriter, r *http.Request) bool

	mu    sync.Mutex
	calls map[string]int
}

// Calls counts the calls of method so far.
func (s *Server) Calls(method string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.calls[method]
}

// HTTP serves on loopback until the test ends and gives the URL.
func (s *Server) HTTP(t testing.TB) string {
	t.Helper()
	server := httptest.NewServer(s)
	t.Cleanup(server.Close)
	return server.URL
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.Before != nil && s.Before(w, r) {
		return
	}
	if r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/json" {
		http.Error(w, "invalid content type, only application/json is supported", http.StatusUnsupportedMediaType)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client left
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(s.answer(body), '\n')) // the client may have left
}

// Socket serves on a Unix socket until the test ends, or stop is called, and gives the path.
func (s *Server) Socket(t testing.TB) (path string, stop func()) {
	t.Helper()
	dir, err := os.MkdirTemp("", "rpc") //nolint:usetesting // a socket's path has 104 bytes at most
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	path = filepath.Join(dir, "s.ipc")
	return path, s.Listen(t, path)
}

// Listen is Socket at the given path.
func (s *Server) Listen(t testing.TB, path string) (stop func()) {
	t.Helper()
	listener, err := new(net.ListenConfig).Listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	conns, stopped := map[net.Conn]bool{}, false
	all.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			if stopped {
				_ = conn.Close()
			}
			conns[conn] = true
			mu.Unlock()
			all.Go(func() { s.serve(conn) })
		}
	})
	stop = sync.OnceFunc(func() {
		_ = listener.Close()
		mu.Lock()
		stopped = true
		for conn := range conns {
			_ = conn.Close()
		}
		mu.Unlock()
		all.Wait()
	})
	t.Cleanup(stop)
	return stop
}

func (s *Server) serve(conn net.Conn) {
	in := json.NewDecoder(conn)
	for {
		var request json.RawMessage
		if in.Decode(&request) != nil {
			return
		}
		if _, err := conn.Write(append(s.answer(request), '\n')); err != nil {
			return
		}
	}
}

func (s *Server) answer(body []byte) []byte {
	var request struct {
		Version string          `json:"jsonrpc"`
		ID      json.RawMessage `json:"id"`
		Method  string          `json:"method"`
		Params  []string        `json:"params"`
	}
	answer := map[string]any{"jsonrpc": "2.0", "id": nil}
	if err := json.Unmarshal(body, &request); err != nil || request.Version != "2.0" || request.Params == nil {
		answer["error"] = &Error{-32600, "invalid request"}
	} else {
		s.mu.Lock()
		if s.calls == nil {
			s.calls = map[string]int{}
		}
		s.calls[request.Method]++
		s.mu.Unlock()
		answer["id"] = request.ID
		answer["error"] = &Error{-32601, "the method " + request.Method + " does not exist/is not available"}
		if method := s.Methods[request.Method]; method != nil {
			delete(answer, "error")
			if result, err := method(request.Params); err != nil {
				answer["error"] = err
			} else {
				answer["result"] = result
			}
		}
	}
	text, err := json.Marshal(answer)
	if err != nil {
		panic(err) // a test's method gave something that is no JSON
	}
	return text
}

// Bytes decodes 0x and hex digits.
func Bytes(text string) ([]byte, *Error) {
	digits, ok := strings.CutPrefix(text, "0x")
	b, err := hex.DecodeString(digits)
	if !ok || err != nil {
		return nil, &Error{-32602, "invalid argument: not 0x and hex digits"}
	}
	return b, nil
}
