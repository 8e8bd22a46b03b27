package remote

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/purser-onboard/purser/printable"
	"github.com/purser-onboard/purser/secretfile"
	"github.com/purser-onboard/purser/signer"
)

const (
	// patience bounds one exchange. go-ethereum's servers give a call up after 30 s.
	patience = time.Minute
	// dialing bounds the connection, and again the TLS handshake.
	dialing = 10 * time.Second
	// idle is shorter than what the servers allow (Web3Signer 30 s, go-ethereum 120 s), so that it is mostly our side that
	// closes.
	idle = 20 * time.Second
	// mostIdle bounds the connections that are kept for the next exchange.
	mostIdle = 64
	// mostFile bounds a file of certificates.
	mostFile = 1 << 20
)

// HTTP is a signer that is reached by HTTP requests. It may be used by many goroutines.
type HTTP struct {
	at        address
	client    *http.Client
	transport *http.Transport
	keyFile   string // of a key that everybody on this machine can read
	closed    atomic.Bool
}

// OpenHTTP returns an HTTP for the signer at a URI kind+http://host:port/path or kind+https://…; shape describes the
// URI in a *signer.URIError. With https, ca-file names the certificates to trust instead of the system's, cert-file and
// key-file our own certificate; all are PEM and are read now. A key-file that other users of the machine may use is an
// error unless insecure is set. Nothing is sent yet.
func OpenHTTP(uri, kind, shape string, insecure bool) (*HTTP, error) {
	at, err := parseAddress(uri, kind, shape, false)
	if err != nil {
		return nil, err
	}
	return openHTTP(at, insecure)
}

func openHTTP(at address, insecure bool) (*HTTP, error) {
	h := &HTTP{at: at}
	h.transport = &http.Transport{
		DialContext:         (&net.Dialer{Timeout: dialing}).DialContext,
		TLSHandshakeTimeout: dialing,
		DisableCompression:  true, // signatures do not compress, and no answer can expand
		MaxIdleConnsPerHost: mostIdle,
		IdleConnTimeout:     idle,
	}
	if at.secure {
		config, exposed, err := tlsConfig(at.params, insecure)
		if err != nil {
			return nil, fmt.Errorf("%w: %s: %w", signer.ErrUnusable, at.name(), err)
		}
		h.transport.TLSClientConfig = config
		if exposed {
			h.keyFile = at.params[keyFile]
		}
	}
	h.client = &http.Client{
		Transport:     h.transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return h, nil
}

func tlsConfig(params map[string]string, insecure bool) (config *tls.Config, exposed bool, err error) {
	config = &tls.Config{MinVersion: tls.VersionTLS12}
	if path := params[caFile]; path != "" {
		data, _, err := secretfile.Read(path, mostFile, true)
		if err != nil {
			return nil, false, fmt.Errorf("%s %w", caFile, err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(data) {
			return nil, false, fmt.Errorf("%s holds no PEM certificate", caFile)
		}
	}
	if params[certFile] == "" {
		return config, false, nil
	}
	cert, _, err := secretfile.Read(params[certFile], mostFile, true)
	if err != nil {
		return nil, false, fmt.Errorf("%s %w", certFile, err)
	}
	key, exposed, err := secretfile.Read(params[keyFile], mostFile, insecure)
	if err != nil {
		return nil, false, fmt.Errorf("%s %w", keyFile, err)
	}
	defer clear(key)
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		// The library's text may quote what it could not parse, and that may be the key.
		return nil, false, fmt.Errorf("%s and %s are not a PEM certificate and its key", certFile, keyFile)
	}
	config.Certificates = []tls.Certificate{pair}
	return config, exposed, nil
}

// Name returns the signer's address for messages: "https://host:port".
func (h *HTTP) Name() string { return h.at.name() }

// Caveats returns warnings about the connection for the operator, each beginning with "; "; empty: none.
func (h *HTTP) Caveats() string {
	var s string
	if h.at.exposed() {
		s = "; the connection is not encrypted"
	}
	if h.keyFile != "" {
		s += "; everybody on this machine can read " + h.keyFile
	}
	return s
}

// Do sends one request and reads the answer, whose body must have at most limit bytes. path follows the URI's own and
// begins with no slash; it is empty for the URI's own. contentType and body are empty for a request without a body. An
// answer other than 200 is a *StatusError. It blocks until there is an answer, for a minute at most, or until ctx ends;
// then the error wraps ctx's.
func (h *HTTP) Do(
	ctx context.Context, method, path, contentType string, body []byte, limit int64,
) (answer []byte, err error) {
	if h.closed.Load() {
		return nil, fmt.Errorf("%w: %s: closed", signer.ErrUnusable, h.Name())
	}
	inner, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	answer, err = h.exchange(inner, method, path, contentType, body, limit)
	return answer, explain(ctx, inner, h.Name(), err)
}

func (h *HTTP) exchange(
	ctx context.Context, method, path, contentType string, body []byte, limit int64,
) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, method, h.at.url(path), bytes.NewReader(body))
	if err != nil {
		return nil, errors.New("the request cannot be made") // err quotes the URL
	}
	if contentType != "" {
		request.Header.Set("Content-Type", contentType)
	}
	request.Header.Set("User-Agent", "purser") // Clef shows it to the person who approves
	// Without values the header is not sent, but allows the transport to repeat the request on a new connection when a
	// kept one turns out to be closed.
	request.Header["X-Idempotency-Key"] = nil
	response, err := h.client.Do(request)
	if err != nil {
		var whole *url.Error // it quotes the URL
		if errors.As(err, &whole) {
			err = whole.Err
		}
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		detail := ""
		if response.StatusCode > 299 { // a 2xx may have a signature
			text, _ := io.ReadAll(io.LimitReader(response.Body, mostDetail)) // shown as far as it was read
			detail = printable.Line(strings.TrimSpace(string(text)), mostDetail)
		}
		return nil, &StatusError{Endpoint: h.Name(), Status: response.StatusCode, Detail: detail,
			RetryAfter: RetryAfter(response.Header)}
	}
	answer, err := io.ReadAll(io.LimitReader(response.Body, limit+1))
	if err != nil {
		return nil, fmt.Errorf("the response broke off: %w", err)
	}
	if int64(len(answer)) > limit {
		return nil, fmt.Errorf("the response has more than %d bytes", limit)
	}
	return answer, nil
}

// Close closes the idle connections. It may be called twice.
func (h *HTTP) Close() error {
	h.closed.Store(true)
	h.transport.CloseIdleConnections()
	return nil
}
