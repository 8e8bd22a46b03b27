package awskmstest

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"net/http"
	"net/url"
	"strings"
)

// failure is an answer other than success.
type failure struct {
	code, message string
	status        int // 0: 400
	header        http.Header
	body          []byte // nil: made of code and message
}

func fail(code, format string, a ...any) *failure {
	return &failure{code: code, message: fmt.Sprintf(format, a...)}
}

// target returns the operation of a call by the JSON 1.1 protocol.
func target(r *http.Request) (op string, failed *failure) {
	op, ok := strings.CutPrefix(r.Header.Get("X-Amz-Target"), "TrentService.")
	switch {
	case r.Method != http.MethodPost || r.URL.Path != "/" || r.URL.RawQuery != "":
		return "", fail("UnknownOperationException", "%s %s", r.Method, r.URL)
	case r.Header.Get("Content-Type") != "application/x-amz-json-1.1":
		return "", fail("UnknownOperationException", "content type %q", r.Header.Get("Content-Type"))
	case !ok || op == "":
		return "", fail("UnknownOperationException", "target %q", r.Header.Get("X-Amz-Target"))
	}
	return op, nil
}

// queryAction returns the action of a call by the query protocol, which STS speaks; for any other call it is empty.
func queryAction(r *http.Request, body []byte) string {
	if !strings.HasPrefix(r.Header.Get("Content-Type"), "application/x-www-form-urlencoded") {
		return ""
	}
	form, err := url.ParseQuery(string(body))
	if err != nil || form.Get("Version") != "2011-06-15" || form.Get("Action") == "" {
		return "no action"
	}
	return form.Get("Action")
}

// handle decodes the input of an operation and runs do. An unknown member is an error, although AWS ignores it.
func handle[In, Out any](body []byte, do func(In) (Out, *failure)) (any, *failure) {
	var in In
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&in); err != nil {
		return nil, fail("SerializationException", "%v", err)
	}
	return do(in)
}

func answerJSON(w http.ResponseWriter, result any, failed *failure) {
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	w.Header().Set("X-Amzn-Requestid", "req-kms")
	if failed != nil {
		body, _ := json.Marshal(map[string]string{"__type": failed.code, "message": failed.message}) // cannot fail
		send(w, failed, body)
		return
	}
	_ = json.NewEncoder(w).Encode(result) // the client may have left
}

func answerXML(w http.ResponseWriter, op string, failed *failure) {
	w.Header().Set("Content-Type", "text/xml")
	if failed == nil && op != "GetCallerIdentity" {
		failed = fail("InvalidAction", "no action %s", op)
	}
	if failed != nil {
		var message strings.Builder
		_ = xml.EscapeText(&message, []byte(failed.message)) // a Builder takes everything
		send(w, failed, fmt.Appendf(nil, `<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error>`+
			`<Type>Sender</Type><Code>%s</Code><Message>%s</Message></Error><RequestId>req-sts</RequestId></ErrorResponse>`,
			failed.code, message.String()))
		return
	}
	_, _ = fmt.Fprintf(w, `<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">`+
		`<GetCallerIdentityResult>`+
		`<Arn>arn:aws:sts::%s:assumed-role/purser/night</Arn><UserId>AROAEXAMPLE:night</UserId><Account>%s</Account>`+
		`</GetCallerIdentityResult><ResponseMetadata><RequestId>req-sts</RequestId></ResponseMetadata>`+
		`</GetCallerIdentityResponse>`, accountID, accountID)
}

func send(w http.ResponseWriter, failed *failure, body []byte) {
	for name, values := range failed.header {
		w.Header()[http.CanonicalHeaderKey(name)] = values
	}
	if failed.body != nil {
		body = failed.body
	}
	status := failed.status
	if status == 0 {
		status = http.StatusBadRequest
	}
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client may have left
}
