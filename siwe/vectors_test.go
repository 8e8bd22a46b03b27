package siwe

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/ethereum/go-ethereum/common"
)

// partnerExample is the challenge as the partner's guide shows it.
const partnerExample = `api.sandbox.offblocks.xyz wants you to sign in with your Ethereum account:
0x43158f45b5EbD7b1179130130DF00393928C2691

OffBlocks wants to verify ownership of your wallet. By connecting your wallet and using OffBlocks, you ` +
	`agree to our Terms of services and Privacy Policy

URI: https://api.sandbox.offblocks.xyz
Version: 1
Chain ID: 300
Nonce: 5ufoiEqDaFvmfo78
Issued At: 2024-01-17T18:21:53Z`

// specificationExample is the text of ERC-4361, "Examples", below its first line, which is what the three differ in.
const specificationExample = ` wants you to sign in with your Ethereum account:
0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2

I accept the ExampleOrg Terms of Service: https://example.com/tos

URI: https://example.com/login
Version: 1
Chain ID: 1
Nonce: 32891756
Issued At: 2021-09-30T16:25:24Z
Resources:
- ipfs://bafybeiemxf5abjwjbikoz4mc3a3dla6ual3jsgpdr4cjr3oz3evfyavhwq/
- https://example.com/my-web2-claim.json`

func TestSpecificationExamples(t *testing.T) {
	for _, test := range []struct{ name, origin, scheme, domain string }{
		{"implicit scheme", "example.com", "", "example.com"},
		{"implicit scheme, explicit port", "example.com:3388", "", "example.com:3388"},
		{"explicit scheme", "https://example.com", "https", "example.com"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := mustParse(t, test.origin+specificationExample)
			want := &Message{
				Scheme:       test.scheme,
				Domain:       test.domain,
				Address:      common.HexToAddress("0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2"),
				AddressText:  "0xC02aaA39b223FE8D0A0e5C4F27eAD9083C756Cc2",
				Statement:    "I accept the ExampleOrg Terms of Service: https://example.com/tos",
				HasStatement: true,
				URI:          "https://example.com/login",
				Version:      "1",
				ChainID:      1,
				Nonce:        "32891756",
				IssuedAt:     time.Date(2021, 9, 30, 16, 25, 24, 0, time.UTC),
				Resources: []string{
					"ipfs://bafybeiemxf5abjwjbikoz4mc3a3dla6ual3jsgpdr4cjr3oz3evfyavhwq/",
					"https://example.com/my-web2-claim.json",
				},
				issuedAtText: "2021-09-30T16:25:24Z",
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
		})
	}
}

// The example of ERC-5573 is a sign-in message by the grammar, and the reason why the policy looks further.
const recapExample = `example.com wants you to sign in with your Ethereum account:
0x0000000000000000000000000000000000000000

I further authorize the stated URI to perform the following actions on my behalf: (1) 'example': 'ap` +
	`pend', 'read' for 'https://example.com'. (2) 'other': 'action' for 'https://example.com'. (3) 'examp` +
	`le': 'append', 'delete' for 'my:resource:uri.1'. (4) 'example': 'append' for 'my:resource:uri.2'. (5` +
	`) 'example': 'append' for 'my:resource:uri.3'.

URI: did:key:example
Version: 1
Chain ID: 1
Nonce: mynonce1
Issued At: 2022-06-21T12:00:00.000Z
Resources:
- urn:recap:eyJhdHQiOnsiaHR0cHM6Ly9leGFtcGxlLmNvbSI6eyJleGFtcGxlL2FwcGVuZCI6W10sImV4YW1wbGUvcmVhZCI6` +
	`W10sIm90aGVyL2FjdGlvbiI6W119LCJteTpyZXNvdXJjZTp1cmkuMSI6eyJleGFtcGxlL2FwcGVuZCI6W10sImV4YW1wbGUvZGVs` +
	`ZXRlIjpbXX0sIm15OnJlc291cmNlOnVyaS4yIjp7ImV4YW1wbGUvYXBwZW5kIjpbXX0sIm15OnJlc291cmNlOnVyaS4zIjp7ImV4` +
	`YW1wbGUvYXBwZW5kIjpbXX19LCJwcmYiOltdfQ`

func TestReCapExampleParses(t *testing.T) {
	m := mustParse(t, recapExample)
	if !strings.HasPrefix(m.Resources[0], "urn:recap:") {
		t.Errorf("got resource %q, want it to begin with urn:recap:", m.Resources[0])
	}
}

func TestPartnerExample(t *testing.T) {
	got := mustParse(t, partnerExample)
	want := &Message{
		Domain:      "api.sandbox.offblocks.xyz",
		Address:     common.HexToAddress("0x43158f45b5EbD7b1179130130DF00393928C2691"),
		AddressText: "0x43158f45b5EbD7b1179130130DF00393928C2691",
		Statement: "OffBlocks wants to verify ownership of your wallet. By connecting your wallet and using " +
			"OffBlocks, you agree to our Terms of services and Privacy Policy",
		HasStatement: true,
		URI:          "https://api.sandbox.offblocks.xyz",
		Version:      "1",
		ChainID:      300,
		Nonce:        "5ufoiEqDaFvmfo78",
		IssuedAt:     time.Date(2024, 1, 17, 18, 21, 53, 0, time.UTC),
		issuedAtText: "2024-01-17T18:21:53Z",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// TestAddressVectors takes the test cases of EIP-55, whose all-upper and all-lower ones are checksummed forms too.
func TestAddressVectors(t *testing.T) {
	for _, address := range []string{
		"0x52908400098527886E0F7030069857D2E4169EE7",
		"0x8617E340B3D01FA5F11F306F4090FD50E238070D",
		"0xde709f2102306220921060314715629080e2fb77",
		"0x27b1fdb04752bbc536007a920d24acb045561c26",
		"0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed",
		"0xfB6916095ca1df60bB79Ce92cE3Ea74c37c5d359",
		"0xdbF03B407c01E7cD3CBea99509d93f8DDDC8C6FB",
		"0xD1220A0cf47c7B9Be7A2E6BA89F429762e7b9aDb",
	} {
		with := func(a string) string {
			return strings.Replace(partnerExample, "0x43158f45b5EbD7b1179130130DF00393928C2691", a, 1)
		}
		if m := mustParse(t, with(address)); m.Address != common.HexToAddress(address) || m.AddressText != address {
			t.Errorf("got address %s, text %s; want %s for both", m.Address, m.AddressText, address)
		}
		// A single letter in the other case, all letters lower, all upper: each is another text for the same twenty
		// bytes, and an error unless it is the checksummed form.
		digits := address[2:]
		spellings := []string{"0x" + strings.ToLower(digits), "0x" + strings.ToUpper(digits), "0X" + digits, digits}
		for i, c := range digits {
			if isAlpha(c) {
				spellings = append(spellings, "0x"+digits[:i]+string(c^0x20)+digits[i+1:])
			}
		}
		for _, spelling := range spellings {
			if spelling != address {
				parseFails(t, with(spelling), 2, FieldAddress, "")
			}
		}
	}
}

func mustParse(t *testing.T, text string) *Message {
	t.Helper()
	m, err := Parse(text)
	if err != nil {
		t.Fatalf("Parse(%q): got %v, want a message", text, err)
	}
	if got := m.String(); got != text {
		t.Fatalf("String: got %q, want the parsed %q", got, text)
	}
	return m
}
