package remote_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"

	"github.com/purser-onboard/purser/signer/remote"
)

func ExampleRPC_Call() {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"jsonrpc":"2.0","id":1,"error":{"code":-32000,"message":"unknown account"}}`)
	}))
	defer server.Close()

	rpc, err := remote.OpenRPC("clef+"+server.URL, "clef", "clef+http://host:8550", true, false)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer rpc.Close()
	var signature string
	err = rpc.Call(context.Background(), remote.MostSignature, &signature, "account_signData", "text/plain", "0x", "0x")
	var answered *remote.RPCError
	fmt.Println(errors.As(err, &answered), answered.Code, answered.Message)
	// Output:
	// true -32000 unknown account
}
