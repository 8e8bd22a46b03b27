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

// Cause is the wrong part of the set-up.
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
	CauseController  Cause = "the listener is that of a KRaft controller, which takes no messages"
	CauseGroup       Cause = "the group has members of another program"
	CauseClosed      Cause = "closed the connection without a response: a TLS or SASL listener, a proxy, " +
		"or no Kafka broker"
	CauseNoBroker    Cause = "the listener does not speak the Kafka protocol"
	CauseUnknownHost Cause = "the host name does not exist"
	CauseClusters    Cause = "the brokers belong to different clusters"
)

// SetUpError reports that a broker cannot be used with the present set-up. Retrying does not help.
type SetUpError struct {
	Cause  Cause
	Detail string // may be empty
	Err    error  // may be nil
}

func (e *SetUpError) Error() string {
	text := string(e.Cause)
	if e.Detail != "" {
		text += ": " + e.Detail
	}
	if e.Err != nil {
		text += fmt.Sprintf(" (%v)", e.Err)
	}
	return text
}

func (e *SetUpError) Unwrap() error { return e.Err }

// brokerInfo is a broker's description of its cluster.
type brokerInfo struct {
	cluster    string         // the cluster's id; may be empty
	partitions map[string]int // of each topic; 0: it does not exist, or we may not describe it
}

// probe connects to one broker step by step, so that an error says which step failed, and asks for the topics, without
// creating them. It asks for no others: a large cluster has megabytes of metadata. (The library's Transport reports a
// failed login as "unexpected EOF".) It blocks for up to requestTimeout. Its errors are *DialError, *SetUpError,
// *TokenError, ctx's, or those of a connection that broke.
func (c *Cluster) probe(ctx context.Context, broker string, topics ...string) (*brokerInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	found, err := c.probeOnce(ctx, broker, topics)
	if err != nil && ctx.Err() != nil && !errors.As(err, new(*DialError)) {
		return nil, fmt.Errorf("no response in time: %w", ctx.Err())
	}
	return found, err
}

func (c *Cluster) probeOnce(ctx context.Context, broker string, topics []string) (*brokerInfo, error) {
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
	session := protocol.NewConn(&sizeCheck{Conn: conn}, c.dialer.ClientID)
	if err := negotiate(session); err != nil {
		return nil, c.diagnose(ctx, broker, err)
	}
	if c.dialer.SASLMechanism != nil {
		if err := logIn(ctx, session, broker, c.dialer.SASLMechanism); err != nil {
			return nil, err
		}
	}
	named := append([]string{}, topics...) // nil would ask for all
	res, err := roundTrip[*metadata.Response](session, &metadata.Request{TopicNames: named})
	if err != nil {
		if c.dialer.SASLMechanism == nil && closedByPeer(err) {
			if offers := c.offers(ctx, broker); offers != "" {
				return nil, &SetUpError{Cause: CauseNoLogin, Detail: "it offers " + offers, Err: err}
			}
		}
		return nil, fmt.Errorf("listing topics: %w", err)
	}
	found := &brokerInfo{cluster: res.ClusterID, partitions: make(map[string]int, len(res.Topics))}
	for _, t := range res.Topics {
		found.partitions[t.Name] = len(t.Partitions)
	}
	return found, nil
}

// open dials a broker. The connection is closed by stop, or when ctx ends.
func (c *Cluster) open(ctx context.Context, broker string) (conn net.Conn, stop func(), err error) {
	conn, err = c.dialer.DialFunc(ctx, "tcp", broker)
	if err != nil {
		return nil, nil, err
	}
	release := context.AfterFunc(ctx, func() { _ = conn.Close() })
	return conn, func() {
		release()
		_ = conn.Close() // all responses have been read
	}, nil
}

// secure makes the TLS handshake.
func (c *Cluster) secure(ctx context.Context, broker string, conn net.Conn) (net.Conn, error) {
	config := c.dialer.TLS.Clone()
	if config.ServerName == "" {
		config.ServerName, _, _ = net.SplitHostPort(broker) // Connect has checked the form
	}
	secure := tls.Client(conn, config)
	// A plain-text listener may read the first bytes as the length of a request and wait for the rest.
	shaking, cancel := context.WithTimeout(ctx, c.handshake)
	defer cancel()
	err := secure.HandshakeContext(shaking)
	switch {
	case err == nil:
		return secure, nil
	case errors.As(err, new(*tls.CertificateVerificationError)):
		return nil, &SetUpError{Cause: CauseAuthority, Err: err}
	case alerted(err):
		return nil, &SetUpError{Cause: CauseCertificate, Err: err}
	case errors.As(err, new(tls.RecordHeaderError)), c.speaksPlainText(ctx, broker):
		return nil, &SetUpError{Cause: CauseTLS, Err: err}
	}
	return nil, fmt.Errorf("TLS handshake: %w", err)
}

// alerted reports a TLS alert of the peer.
func alerted(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error"
}

// negotiate agrees on protocol versions. Brokers answer the request before a login.
func negotiate(conn *protocol.Conn) error {
	res, err := roundTrip[*apiversions.Response](conn, new(apiversions.Request))
	if err != nil {
		return err
	}
	if res.ErrorCode != 0 {
		return &SetUpError{Cause: CauseVersion, Err: kafka.Error(res.ErrorCode)}
	}
	versions := make(map[protocol.ApiKey]int16, len(res.ApiKeys))
	for _, k := range res.ApiKeys {
		key := protocol.ApiKey(k.ApiKey)
		versions[key] = key.SelectVersion(k.MinVersion, k.MaxVersion)
	}
	if _, ok := versions[protocol.Produce]; !ok {
		return &SetUpError{Cause: CauseController}
	}
	// Record batches with headers and transactions require Kafka 0.11 (KIP-98).
	if versions[protocol.Produce] < 3 || versions[protocol.Fetch] < 4 {
		return &SetUpError{Cause: CauseVersion}
	}
	conn.SetVersions(versions)
	return nil
}

// diagnose finds out why a broker did not answer the first request.
func (c *Cluster) diagnose(ctx context.Context, broker string, err error) error {
	var setUp *SetUpError
	switch {
	case errors.As(err, &setUp) && setUp.Cause != CauseNoBroker, ctx.Err() != nil:
		return err
	case alerted(err): // with TLS 1.3 the client's certificate is checked after the handshake
		return &SetUpError{Cause: CauseCertificate, Err: err}
	case c.dialer.TLS == nil && c.speaksTLS(ctx, broker):
		return &SetUpError{Cause: CausePlainText, Err: err}
	case setUp != nil:
		return err
	}
	return fmt.Errorf("protocol versions: %w", err)
}

// speaksTLS reports whether a broker begins a TLS handshake, even one that fails.
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
	return negotiate(protocol.NewConn(&sizeCheck{Conn: conn}, c.dialer.ClientID)) == nil
}

// offers returns the SASL mechanisms of a broker, "" if it accepts no login.
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
	session := protocol.NewConn(&sizeCheck{Conn: conn}, c.dialer.ClientID)
	if negotiate(session) != nil {
		return ""
	}
	res, err := roundTrip[*saslhandshake.Response](session, new(saslhandshake.Request))
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

// logIn makes the SASL exchange (KIP-43, KIP-152). Its errors do not contain the broker's message, which may quote what
// the client sent.
func logIn(ctx context.Context, conn *protocol.Conn, broker string, mechanism sasl.Mechanism) error {
	res, err := roundTrip[*saslhandshake.Response](conn, &saslhandshake.Request{Mechanism: mechanism.Name()})
	if err != nil {
		return fmt.Errorf("SASL handshake: %w", err)
	}
	switch code := kafka.Error(res.ErrorCode); code {
	case 0:
	case kafka.UnsupportedSASLMechanism:
		return &SetUpError{Cause: CauseMechanism,
			Detail: fmt.Sprintf("it offers %s, not %s", mechanisms(res), mechanism.Name()), Err: code}
	case kafka.IllegalSASLState:
		return &SetUpError{Cause: CauseMechanism, Detail: "it accepts no SASL login", Err: code}
	default:
		return fmt.Errorf("SASL handshake: %w", code)
	}
	host, port, _ := net.SplitHostPort(broker)
	number, _ := strconv.Atoi(port)
	session, next, err := mechanism.Start(sasl.WithMetadata(ctx, &sasl.Metadata{Host: host, Port: number}))
	for done := false; !done; {
		if err != nil {
			return &SetUpError{Cause: CauseLogin, Detail: mechanism.Name(), Err: err}
		}
		res, e := roundTrip[*saslauthenticate.Response](conn, &saslauthenticate.Request{AuthBytes: next})
		switch {
		case e != nil && closedByPeer(e): // older brokers do so
			e = kafka.SASLAuthenticationFailed
		case e == nil && res.ErrorCode != 0:
			e = kafka.Error(res.ErrorCode)
		case e != nil:
			return fmt.Errorf("SASL login: %w", e)
		}
		if e != nil {
			return &SetUpError{Cause: CauseLogin, Detail: mechanism.Name(), Err: e}
		}
		done, next, err = session.Next(ctx, res.AuthBytes)
		if done {
			return nil
		}
	}
	return nil
}

// maxResponse bounds the response to a preflight request, in bytes. A broker's has some hundreds.
const maxResponse = 1 << 20

// sizeCheck fails a response that is too large for a broker's before it is decoded: the text of another protocol, read
// as a length, is about 10⁹ bytes, and the library would allocate arrays of that many elements.
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
		if size > maxResponse {
			return 0, &SetUpError{Cause: CauseNoBroker}
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
		return none, fmt.Errorf("the response to %s has another type", req.ApiKey())
	}
	return r, nil
}
