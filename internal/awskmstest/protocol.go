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

// refusal is an answer that is no success.
type refusal struct {
	code, message string
	status        int // 0: 400
	header        http.Header
	body          []byte // nil: made of code and message
}

func refuse(code, format string, a ...any) *refusal {
	return &refusal{code: code, message: fmt.Sprintf(format, a...)}
}

// target gives the operation of a call by the JSON 1.1 protocol.
func target(r *http.Request) (op string, refused *refusal) {
	op, ok := strings.CutPrefix(r.Header.Get("X-Amz-Target"), "TrentService.")
	switch {
	case r.Method != http.MethodPost || r.URL.Path != "/" || r.URL.RawQuery != "":
		return "", refuse("UnknownOperationException", "%s %s", r.Method, r.URL)
	case r.Header.Get("Content-Type") != "application/x-amz-json-1.1":
		return "", refuse("UnknownOperationException", "content type %q", r.Header.Get("Content-Type"))
	case !ok || op == "":
		return "", refuse("UnknownOperationException", "target %q", r.Header.Get("X-Amz-Target"))
	}
	return op, nil
}

// queryAction gives the action of a call by the query protocol, which STS speaks; for any other call it is empty.
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

// handle reads the input of an operation. An unknown member is refused: AWS would pass over it, and a test shall not.
func handle[In, Out any](body []byte, do func(In) (Out, *refusal)) (any, *refusal) {
	var in In
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&in); err != nil {
		return nil, refuse("SerializationException", "%v", err)
	}
	return do(in)
}

func answerJSON(w http.ResponseWriter, result any, refused *refusal) {
	w.Header().Set("Content-Type", "application/x-amz-json-1.1")
	w.Header().Set("X-Amzn-Requestid", "req-kms")
	if refused != nil {
		body, _ := json.Marshal(map[string]string{"__type": refused.code, "message": refused.message}) // cannot fail
		send(w, refused, body)
		return
	}
	_ = json.NewEncoder(w).Encode(result) // whoever went away is not answered
}

func answerXML(w http.ResponseWriter, op string, refused *refusal) {
	w.Header().Set("Content-Type", "text/xml")
	if refused == nil && op != "GetCallerIdentity" {
		refused = refuse("InvalidAction", "no action %s", op)
	}
	if refused != nil {
		var message strings.Builder
		_ = xml.EscapeText(&message, []byte(refused.message)) // a Builder takes everything
		send(w, refused, fmt.Appendf(nil, `<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error>`+
			`<Type>Sender</Type><Code>%s</Code><Message>%s</Message></Error><RequestId>req-sts</RequestId></ErrorResponse>`,
			refused.code, message.String()))
		return
	}
	_, _ = fmt.Fprintf(w, `<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">`+
		`<GetCallerIdentityResult>`+
		`<Arn>arn:aws:sts::%s:assumed-role/purser/night</Arn><UserId>AROAEXAMPLE:night</UserId><Account>%s</Account>`+
		`</GetCallerIdentityResult><ResponseMetadata><RequestId>req-sts</RequestId></ResponseMetadata>`+
		`</GetCallerIdentityResponse>`, accountID, accountID)
}

func send(w http.ResponseWriter, refused *refusal, body []byte) {
	for name, values := range refused.header {
		w.Header()[http.CanonicalHeaderKey(name)] = values
	}
	if refused.body != nil {
		body = refused.body
	}
	status := refused.status
	if status == 0 {
		status = http.StatusBadRequest
	}
	w.WriteHeader(status)
	_, _ = w.Write(body) // whoever went away is not answered
}
