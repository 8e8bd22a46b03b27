package awskms

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
	"github.com/ethereum/go-ethereum/common"

	"github.com/purser-onboard/purser/printable"
	"github.com/purser-onboard/purser/signer"
)

// mostWords is how many bytes are kept of AWS's own text.
const mostWords = 300

// Error is a response of AWS other than success. It wraps the signer's sentinel for its Code, if there is one.
type Error struct {
	Op        string         // "Sign"
	Account   common.Address // zero if it is about none
	Code      string         // "DisabledException"
	Message   string         // AWS's text, one line
	RequestID string         // for AWS's support; may be empty
	Status    int            // of HTTP

	kind error // a sentinel or nil
}

func (e *Error) Error() string {
	var b strings.Builder
	if e.kind != nil {
		fmt.Fprintf(&b, "%v: ", e.kind)
	}
	if e.Account != (common.Address{}) {
		fmt.Fprintf(&b, "%v: ", e.Account)
	}
	fmt.Fprintf(&b, "KMS %s: %s", e.Op, e.Code)
	if e.Message != "" {
		fmt.Fprintf(&b, ": %s", e.Message)
	}
	if e.RequestID != "" {
		fmt.Fprintf(&b, " (request %s)", e.RequestID)
	}
	return b.String()
}

// Unwrap returns the sentinel.
func (e *Error) Unwrap() error { return e.kind }

// Throttled reports whether AWS throttles us. AWS does not say for how long, so after is zero.
func (e *Error) Throttled() (after time.Duration, yes bool) {
	_, yes = retry.DefaultThrottleErrorCodes[e.Code]
	return 0, yes
}

// kindOf returns the sentinel for a code of KMS, STS or their authentication; nil: transient.
func kindOf(code string) error {
	switch code {
	case "NotFoundException":
		return signer.ErrNoKey
	case "DisabledException", "KMSInvalidStateException":
		return signer.ErrDeclined
	case "InvalidKeyUsageException":
		return signer.ErrMismatch
	case "AccessDenied", "AccessDeniedException", "NotAuthorized", "OptInRequired",
		"UnrecognizedClientException", "InvalidClientTokenId", "InvalidAccessKeyId",
		"InvalidSignatureException", "SignatureDoesNotMatch", "IncompleteSignature", "IncompleteSignatureException",
		"MissingAuthenticationToken", "MissingAuthenticationTokenException",
		"ExpiredToken", "ExpiredTokenException", "RequestExpired":
		return signer.ErrUnusable
	}
	return nil
}

// explain turns an error of the SDK into an *Error, or adds op to it. The SDK's own text names endpoint and operation,
// but no credentials.
func explain(ctx context.Context, op string, account common.Address, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("KMS %s: %w", op, ctx.Err())
	}
	e := &Error{Op: op, Account: account}
	var response *awshttp.ResponseError
	if errors.As(err, &response) {
		e.RequestID, e.Status = printable.Line(response.ServiceRequestID(), mostWords), response.HTTPStatusCode()
	}
	var answer smithy.APIError
	switch {
	case e.Status >= 300 && e.Status < 400:
		e.Code, e.Message = "Redirect", fmt.Sprintf("HTTP %d is not followed: name the final endpoint", e.Status)
		e.kind = signer.ErrUnusable
	case errors.As(err, &answer):
		e.Code, e.Message = printable.Line(answer.ErrorCode(), mostWords), printable.Line(answer.ErrorMessage(), mostWords)
		e.kind = kindOf(e.Code)
	default:
		return fmt.Errorf("KMS %s: %w", op, err)
	}
	return e
}

// unusable wraps an error of opening a backend.
func unusable(ctx context.Context, what string, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return fmt.Errorf("%w: %s: %w", signer.ErrUnusable, what, err)
}
