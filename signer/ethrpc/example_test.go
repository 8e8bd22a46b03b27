package ethrpc_test

import (
	"context"
	"fmt"

	"github.com/purser-onboard/purser/signer"
	"github.com/purser-onboard/purser/signer/ethrpc"
)

func Example() {
	// anvil --port 8545
	_, err := ethrpc.Open(context.Background(), "eth-rpc+http://user:password@127.0.0.1:8545", signer.Environment{})
	fmt.Println(err)
	// Output:
	// signer URI eth-rpc+http:… has a user or password in it, which are not sent (want eth-rpc+http://host:8545/path or eth-rpc+https://host/path?ca-file=/file)
}
