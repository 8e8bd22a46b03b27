package broker

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/apiversions"
	"github.com/segmentio/kafka-go/protocol/metadata"
	"github.com/segmentio/kafka-go/protocol/saslauthenticate"
	"github.com/segmentio/kafka-go/protocol/saslhandshake"
	"github.com/segmentio/kafka-go/sasl"
)

// Cause is the part of the set-up for which a broker refuses a connection.
type Cause string

// The causes.
const (
	CausePlainText   Cause = "the listener speaks TLS and the client does not"
	CauseTLS         Cause = "the listener does not speak TLS and the client does"
	CauseAuthority   Cause = "the broker's certificate does not verify"
	CauseCertificate Cause = "the broker does not accept the client's certificate, or requires one"
	CauseNoLogin     Cause = "the listener requires a SASL login and none is configured"
	CauseLogin       Cause = "the SASL login failed"
	CauseMechanism   Cause = "the listener does not offer this SASL mechanism"
	CauseVersion     Cause = "the broker is too old: Apache Kafka 3.x or 4.x is required"
	CauseHungUp      Cause = "closed the connection without a response: a TLS or SASL listener, a proxy, " +
		"or no Kafka broker"
	CauseNoBroker    Cause = "the listener does not speak the Kafka protocol"
	CauseUnknownHost Cause = "the host name does not exist"
	CauseClusters    Cause = "the brokers belong to different clusters"
)

// RefusedError says that a broker cannot be used as the client is set up. Trying again does not help.
type RefusedError struct {
	Cause  Cause
	Detail string // more about it; may be empty
	Err    error  // what was seen; may be nil
}

func (e *RefusedError) Error() string {
	text := string(e.Cause)
	if e.Detail != "" {
		text += ": " + e.Detail
	}
	if e.Err != nil {
		text += fmt.Sprintf(" (%v)", e.Err)
	}
	return text
}

func (e *RefusedError) Unwrap() error { return e.Err }

// overview is what a broker says of its cluster.
type overview struct {
	cluster    string         // the cluster's id; may be empty
	partitions map[string]int // of each topic that we may see
}

// look connects to one broker step by step, so that what goes wrong can be told by its step, and asks for all topics:
// asking for one by name may create it. The library's Transport hides the reason of a failed login behind "unexpected
// EOF". Its errors are *DialError, *RefusedError, *TokenError, ctx's, or those of a connection that broke.
func (c *Cluster) look(ctx context.Context, broker string) (*overview, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	found, err := c.lookOnce(ctx, broker)
	if err != nil && ctx.Err() != nil && !errors.As(err, new(*DialError)) {
		return nil, fmt.Errorf("no response within %v: %w", requestTimeout, ctx.Err())
	}
	return found, err
}

func (c *Cluster) lookOnce(ctx context.Context, broker string) (*overview, error) {
	conn, stop, err := c.open(ctx, broker)
	if err != nil {
		return nil, err
	}
	defer stop()
	if c.dialer.TLS != nil {
		if conn, err = c.secure(ctx, broker, conn); err != nil {
			return nil, err
		}
	}
	greeted := protocol.NewConn(&sizeCheck{Conn: conn}, c.dialer.ClientID)
	if err := greet(greeted); err != nil {
		return nil, c.whyNoGreeting(ctx, broker, err)
	}
	if c.dialer.SASLMechanism != nil {
		if err := logIn(ctx, greeted, broker, c.dialer.SASLMechanism); err != nil {
			return nil, err
		}
	}
	res, err := roundTrip[*metadata.Response](greeted, new(metadata.Request))
	if err != nil {
		if c.dialer.SASLMechanism == nil && hangsUp(err) {
			if offers := c.offers(ctx, broker); offers != "" {
				return nil, &RefusedError{Cause: CauseNoLogin, Detail: "it offers " + offers, Err: err}
			}
		}
		return nil, fmt.Errorf("listing topics: %w", err)
	}
	found := &overview{cluster: res.ClusterID, partitions: make(map[string]int, len(res.Topics))}
	for _, t := range res.Topics {
		found.partitions[t.Name] = len(t.Partitions)
	}
	return found, nil
}

// open makes a connection that is closed by stop, or when ctx ends.
func (c *Cluster) open(ctx context.Context, broker string) (conn net.Conn, stop func(), err error) {
	conn, err = c.dialer.DialFunc(ctx, "tcp", broker)
	if err != nil {
		return nil, nil, err
	}
	release := context.AfterFunc(ctx, func() { _ = conn.Close() })
	return conn, func() {
		release()
		_ = conn.Close() // it was only asked
	}, nil
}

// secure is the TLS handshake.
func (c *Cluster) secure(ctx context.Context, broker string, conn net.Conn) (net.Conn, error) {
	config := c.dialer.TLS.Clone()
	if config.ServerName == "" {
		config.ServerName, _, _ = net.SplitHostPort(broker) // Connect has split it before
	}
	secure := tls.Client(conn, config)
	// A plain-text listener may take the first bytes for the length of a request and wait for the rest.
	shaking, cancel := context.WithTimeout(ctx, c.handshake)
	defer cancel()
	err := secure.HandshakeContext(shaking)
	switch {
	case err == nil:
		return secure, nil
	case errors.As(err, new(*tls.CertificateVerificationError)):
		return nil, &RefusedError{Cause: CauseAuthority, Err: err}
	case alerted(err):
		return nil, &RefusedError{Cause: CauseCertificate, Err: err}
	case errors.As(err, new(tls.RecordHeaderError)), c.speaksPlainText(ctx, broker):
		return nil, &RefusedError{Cause: CauseTLS, Err: err}
	}
	return nil, fmt.Errorf("TLS handshake: %w", err)
}

// alerted reports an alert of the peer's TLS.
func alerted(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error"
}

// greet asks for the versions of the protocol that the broker speaks. Brokers answer that before a login.
func greet(conn *protocol.Conn) error {
	res, err := roundTrip[*apiversions.Response](conn, new(apiversions.Request))
	if err != nil {
		return err
	}
	if res.ErrorCode != 0 {
		return &RefusedError{Cause: CauseVersion, Err: kafka.Error(res.ErrorCode)}
	}
	versions := make(map[protocol.ApiKey]int16, len(res.ApiKeys))
	for _, k := range res.ApiKeys {
		key := protocol.ApiKey(k.ApiKey)
		versions[key] = key.SelectVersion(k.MinVersion, k.MaxVersion)
	}
	// Record batches with headers and transactions, which came with Kafka 0.11 (KIP-98).
	if versions[protocol.Produce] < 3 || versions[protocol.Fetch] < 4 {
		return &RefusedError{Cause: CauseVersion}
	}
	conn.SetVersions(versions)
	return nil
}

// whyNoGreeting finds out why a broker did not answer the first request.
func (c *Cluster) whyNoGreeting(ctx context.Context, broker string, err error) error {
	var refused *RefusedError
	switch {
	case errors.As(err, &refused) && refused.Cause != CauseNoBroker, ctx.Err() != nil:
		return err
	case alerted(err): // with TLS 1.3 the verdict on the client's certificate comes after the handshake
		return &RefusedError{Cause: CauseCertificate, Err: err}
	case c.dialer.TLS == nil && c.speaksTLS(ctx, broker):
		return &RefusedError{Cause: CausePlainText, Err: err}
	case refused != nil:
		return err
	}
	return fmt.Errorf("protocol versions: %w", err)
}

// speaksTLS reports whether a broker begins a TLS handshake, whatever becomes of it.
func (c *Cluster) speaksTLS(ctx context.Context, broker string) bool {
	conn, stop, err := c.open(ctx, broker)
	if err != nil {
		return false
	}
	defer stop()
	host, _, _ := net.SplitHostPort(broker)
	err = tls.Client(conn, &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}).HandshakeContext(ctx)
	return err == nil || alerted(err) || errors.As(err, new(*tls.CertificateVerificationError))
}

// speaksPlainText reports whether a broker answers without TLS.
func (c *Cluster) speaksPlainText(ctx context.Context, broker string) bool {
	conn, stop, err := c.open(ctx, broker)
	if err != nil {
		return false
	}
	defer stop()
	return greet(protocol.NewConn(&sizeCheck{Conn: conn}, c.dialer.ClientID)) == nil
}

// offers names the SASL mechanisms of a broker, "" if it takes no login.
func (c *Cluster) offers(ctx context.Context, broker string) string {
	conn, stop, err := c.open(ctx, broker)
	if err != nil {
		return ""
	}
	defer stop()
	if c.dialer.TLS != nil {
		if conn, err = c.secure(ctx, broker, conn); err != nil {
			return ""
		}
	}
	greeted := protocol.NewConn(&sizeCheck{Conn: conn}, c.dialer.ClientID)
	if greet(greeted) != nil {
		return ""
	}
	res, err := roundTrip[*saslhandshake.Response](greeted, new(saslhandshake.Request))
	if err != nil || kafka.Error(res.ErrorCode) != kafka.UnsupportedSASLMechanism {
		return ""
	}
	return mechanisms(res)
}

func mechanisms(res *saslhandshake.Response) string {
	if len(res.Mechanisms) == 0 {
		return "others"
	}
	return strings.Join(slices.Sorted(slices.Values(res.Mechanisms)), ", ")
}

// logIn is the SASL exchange (KIP-43, KIP-152). What the broker says of a failure is not passed on: it may quote what
// it was sent.
func logIn(ctx context.Context, conn *protocol.Conn, broker string, mechanism sasl.Mechanism) error {
	res, err := roundTrip[*saslhandshake.Response](conn, &saslhandshake.Request{Mechanism: mechanism.Name()})
	if err != nil {
		return fmt.Errorf("SASL handshake: %w", err)
	}
	switch code := kafka.Error(res.ErrorCode); code {
	case 0:
	case kafka.UnsupportedSASLMechanism:
		return &RefusedError{Cause: CauseMechanism,
			Detail: fmt.Sprintf("it offers %s, not %s", mechanisms(res), mechanism.Name()), Err: code}
	case kafka.IllegalSASLState:
		return &RefusedError{Cause: CauseMechanism, Detail: "it takes no SASL login", Err: code}
	default:
		return fmt.Errorf("SASL handshake: %w", code)
	}
	host, port, _ := net.SplitHostPort(broker)
	number, _ := strconv.Atoi(port)
	session, next, err := mechanism.Start(sasl.WithMetadata(ctx, &sasl.Metadata{Host: host, Port: number}))
	for done := false; !done; {
		if err != nil {
			return &RefusedError{Cause: CauseLogin, Detail: mechanism.Name(), Err: err}
		}
		res, e := roundTrip[*saslauthenticate.Response](conn, &saslauthenticate.Request{AuthBytes: next})
		switch {
		case e != nil && hangsUp(e): // how older brokers say so
			e = kafka.SASLAuthenticationFailed
		case e == nil && res.ErrorCode != 0:
			e = kafka.Error(res.ErrorCode)
		case e != nil:
			return fmt.Errorf("SASL login: %w", e)
		}
		if e != nil {
			return &RefusedError{Cause: CauseLogin, Detail: mechanism.Name(), Err: e}
		}
		done, next, err = session.Next(ctx, res.AuthBytes)
		if done {
			return nil
		}
	}
	return nil
}

// mostResponse bounds the response to a preflight request, in bytes: that of a broker has some hundreds.
const mostResponse = 1 << 20

// sizeCheck refuses a response that is no broker's before it is decoded: another protocol's text, taken for a length,
// is a thousand million bytes, and would be read as arrays of that many elements.
type sizeCheck struct {
	net.Conn
	head [4]byte
	have int // bytes of head that were read
	left int // bytes of the response that are still to come
}

func (c *sizeCheck) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return c.Conn.Read(p)
	}
	if c.left > 0 {
		n, err := c.Conn.Read(p[:min(len(p), c.left)])
		c.left -= n
		return n, err
	}
	n, err := c.Conn.Read(p[:min(len(p), len(c.head)-c.have)])
	copy(c.head[c.have:], p[:n])
	if c.have += n; c.have == len(c.head) {
		c.have = 0
		size := binary.BigEndian.Uint32(c.head[:])
		if size > mostResponse {
			return 0, &RefusedError{Cause: CauseNoBroker}
		}
		c.left = int(size)
	}
	return n, err
}

func roundTrip[R protocol.Message](conn *protocol.Conn, req protocol.Message) (R, error) {
	var none R
	res, err := conn.RoundTrip(req)
	if err != nil {
		return none, err
	}
	r, ok := res.(R)
	if !ok {
		return none, fmt.Errorf("the response to %s is of another kind", req.ApiKey())
	}
	return r, nil
}
