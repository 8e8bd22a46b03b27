package fireblocks

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/google/uuid"

	"github.com/purser-onboard/purser/printable"
	"github.com/purser-onboard/purser/signer/remote"
)

const (
	// lifetime of a token: less than the 30 s that Fireblocks allows, more than a request takes to arrive.
	lifetime = 25 * time.Second
	// mostBody bounds an answer; a page of vault accounts has the most.
	mostBody = 4 << 20
	mostIdle = 64
)

// call sends one request and reads its JSON answer into out. An answer other than 2xx is an *Error. It blocks until
// there is an answer, for half a minute at most, or until ctx ends; then the error wraps ctx's. After any error other
// than an *Error, and after some of these, the request may have been acted on.
func (v *Vault) call(ctx context.Context, method, target string, in, out any) error {
	path, _, _ := strings.Cut(target, "?")
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return fmt.Errorf("fireblocks %s %s: %w", method, path, err)
		}
	}
	inner, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	answer, err := v.exchange(inner, method, path, target, body)
	var e *Error
	switch {
	case err == nil:
	case errors.As(err, &e):
		return err
	case ctx.Err() != nil:
		return fmt.Errorf("fireblocks %s %s: %w", method, path, ctx.Err())
	case inner.Err() != nil: // our own time limit, not the end of ctx
		return fmt.Errorf("fireblocks %s %s: no response within %v", method, path, patience)
	default:
		return fmt.Errorf("fireblocks %s %s: %w", method, path, err)
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("fireblocks %s %s: the response is malformed: %w", method, path, err)
	}
	return nil
}

func (v *Vault) exchange(ctx context.Context, method, path, target string, body []byte) ([]byte, error) {
	ctx, stop := once(ctx)
	defer stop(nil)
	request, err := http.NewRequestWithContext(ctx, method, v.set.base+target, nil)
	if err != nil {
		return nil, err
	}
	if body != nil {
		request.Body, request.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		request.Header.Set("Content-Type", "application/json")
	}
	token, err := v.token(request.URL.RequestURI(), body)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Authorization", "Bearer "+token)
	request.Header.Set("X-API-Key", v.set.apiKey)
	request.Header.Set("Accept", "application/json")
	request.Header.Set("User-Agent", "purser")
	response, err := v.client.Do(request)
	if err != nil {
		var whole *url.Error // it names method and URL once more
		if errors.As(err, &whole) {
			err = whole.Err
		}
		if errors.Is(context.Cause(ctx), errNotResent) {
			err = errNotResent
		}
		return nil, err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, mostBody+1))
	if response.StatusCode < 200 || response.StatusCode > 299 {
		return nil, v.answerError(method, path, response, answer)
	}
	if err != nil {
		return nil, fmt.Errorf("the response broke off: %w", err)
	}
	if len(answer) > mostBody {
		return nil, fmt.Errorf("the response has more than %d bytes", mostBody)
	}
	return answer, nil
}

func (v *Vault) answerError(method, path string, response *http.Response, body []byte) *Error {
	now := v.now()
	e := &Error{
		Method: method, Path: path, Status: response.StatusCode,
		RequestID:  printable.Line(response.Header.Get("X-Request-ID"), mostWords),
		RetryAfter: remote.RetryAfter(response.Header),
	}
	if date, err := http.ParseTime(response.Header.Get("Date")); err == nil {
		e.Skew = now.Sub(date).Truncate(time.Second)
	}
	var said struct {
		Message string          `json:"message"`
		Code    json.RawMessage `json:"code"`
	}
	if err := json.Unmarshal(body, &said); err != nil {
		e.Message = printable.Line(strings.TrimSpace(string(body)), mostWords)
		return e
	}
	e.Message = printable.Line(said.Message, mostWords)
	_ = json.Unmarshal(bytes.Trim(said.Code, `"`), &e.Code) // a number, or it stays 0
	e.own = e.Message != "" || e.Code != 0
	return e
}

// token returns the token that authenticates one request (Fireblocks' "JWT structure"); its nonce is accepted once.
func (v *Vault) token(uri string, body []byte) (string, error) {
	nonce, err := uuid.NewRandomFromReader(v.rand)
	if err != nil {
		return "", err
	}
	now, digest := v.now(), sha256.Sum256(body)
	token := jwt.NewWithClaims(jwt.SigningMethodRS256, jwt.MapClaims{
		"uri":      uri,
		"nonce":    nonce.String(),
		"iat":      now.Unix(),
		"exp":      now.Add(lifetime).Unix(),
		"sub":      v.set.apiKey,
		"bodyHash": hex.EncodeToString(digest[:]),
	})
	signed, err := token.SignedString(v.key)
	if err != nil {
		return "", errors.New("the token cannot be signed") // the library's text is about the key
	}
	return signed, nil
}

// newClient returns a client that follows no redirects, which would send the token to another host.
func newClient() *http.Client {
	dialer := net.Dialer{Timeout: 10 * time.Second, KeepAlive: 30 * time.Second}
	return &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			Proxy:                  proxyOnce,
			DialContext:            dialer.DialContext,
			TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
			TLSHandshakeTimeout:    10 * time.Second,
			ForceAttemptHTTP2:      true,
			MaxIdleConns:           mostIdle,
			MaxIdleConnsPerHost:    mostIdle,
			IdleConnTimeout:        45 * time.Second,
			MaxResponseHeaderBytes: 64 << 10,
		},
	}
}

// errNotResent replaces the error after which net/http would send the request again.
var errNotResent = errors.New("the connection was lost after the request was sent")

type onceKey struct{}

// once keeps net/http's Transport from sending a request twice, as it does when a kept connection turns out to be dead:
// the answer to a nonce that was used before is 401, which would stop the run. HTTP/1 asks for the proxy before each
// attempt, HTTP/2 reports GotConn; another attempt is allowed if nothing was written.
func once(ctx context.Context) (context.Context, context.CancelCauseFunc) {
	ctx, stop := context.WithCancelCause(ctx)
	wrote := new(atomic.Bool)
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) {
			if wrote.Load() {
				stop(errNotResent)
			}
		},
		WroteHeaders: func() { wrote.Store(true) },
	})
	return context.WithValue(ctx, onceKey{}, wrote), stop
}

// proxyOnce returns the proxy from the environment, through which banks reach the internet. https uses CONNECT, so the
// proxy sees only the host.
func proxyOnce(r *http.Request) (*url.URL, error) {
	if wrote, ok := r.Context().Value(onceKey{}).(*atomic.Bool); ok && wrote.Load() {
		return nil, errNotResent
	}
	return http.ProxyFromEnvironment(r)
}
