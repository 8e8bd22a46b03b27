package awskms

import (
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/aws/aws-sdk-go-v2/aws"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
)

const (
	// mostIdle connections are kept for the next signature: as many as there may be signatures at once.
	mostIdle = 64
	// mostBody bounds an answer; a page of aliases has some 30 KiB.
	mostBody = 1 << 20
)

var errBody = fmt.Errorf("the response has more than %d bytes", mostBody)

// newBuildable returns the SDK's own client, for configuration and credentials: AWS_CA_BUNDLE works with no other.
func newBuildable() *awshttp.BuildableClient {
	return awshttp.NewBuildableClient().WithTimeout(patience).WithTransportOptions(func(t *http.Transport) {
		t.MaxIdleConnsPerHost, t.MaxIdleConns = mostIdle, mostIdle
		t.MaxResponseHeaderBytes = 64 << 10
	})
}

// bounded returns a client with the SDK client's transport that bounds answers and follows no redirects. The SDK's
// client follows 307 and 308 with the signed request.
func bounded(configured aws.HTTPClient) *http.Client {
	buildable, ok := configured.(*awshttp.BuildableClient)
	if !ok {
		buildable = newBuildable()
	}
	return &http.Client{
		Transport:     &boundedTransport{buildable.GetTransport()},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Timeout:       patience,
	}
}

type boundedTransport struct{ http.RoundTripper }

func (t *boundedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := t.RoundTripper.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	response.Body = &boundedBody{ReadCloser: response.Body, left: mostBody}
	return response, nil
}

func (t *boundedTransport) CloseIdleConnections() {
	if c, ok := t.RoundTripper.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// boundedBody fails after its bound instead of ending, so that a cut answer is not taken for the whole.
type boundedBody struct {
	io.ReadCloser
	left int64
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if b.left < 0 {
		return 0, errBody
	}
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.ReadCloser.Read(p)
	b.left -= int64(n)
	if b.left < 0 && (err == nil || errors.Is(err, io.EOF)) {
		err = errBody
	}
	return n, err
}
