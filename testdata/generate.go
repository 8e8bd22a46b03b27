//go:build ignore

// Generate writes the sample data into this directory: the key files, both exports, the expected outcomes of messy.csv,
// and the table in README.md. Everything follows from the seed, so it may be run again at any time and changes nothing:
//
//	go run testdata/generate.go
package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/binary"
	"encoding/csv"
	"flag"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/ethereum/go-ethereum/common"
	"github.com/ethereum/go-ethereum/crypto"
	"github.com/google/uuid"

	"github.com/purser-onboard/purser/internal/keystoretest"
)

// The seed. Key i is the Keccak-256 of seed + " key " and i as eight bytes; externalId i is the UUIDv5 of
// seed + " customer " + i in the namespace of URLs; salts and IVs come from ChaCha8 under the SHA-256 of the seed.
const (
	seed      = "purser testdata v1"
	password  = "these keys are public"
	keyCount  = 40
	customers = 30
)

func main() {
	log.SetFlags(0)
	dir := flag.String("dir", "testdata", "where to write")
	flag.Parse()
	if err := generate(*dir); err != nil {
		log.Fatal(err)
	}
}

func generate(dir string) error {
	if err := writeKeys(dir); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "customers.csv"), clean(), 0o600); err != nil {
		return err
	}
	export, expected := messy()
	if err := os.WriteFile(filepath.Join(dir, "messy.csv"), export, 0o600); err != nil {
		return err
	}
	if err := writeExpected(filepath.Join(dir, "messy-expected.csv"), expected); err != nil {
		return err
	}
	return writeTable(filepath.Join(dir, "README.md"), expected)
}

func key(i int) *ecdsa.PrivateKey {
	k, err := crypto.ToECDSA(crypto.Keccak256(binary.BigEndian.AppendUint64([]byte(seed+" key "), uint64(i))))
	if err != nil {
		log.Fatal(err)
	}
	return k
}

func address(i int) string { return crypto.PubkeyToAddress(key(i).PublicKey).Hex() }

func externalID(i int) string {
	return uuid.NewSHA1(uuid.NameSpaceURL, fmt.Appendf(nil, "%s customer %d", seed, i)).String()
}

func writeKeys(dir string) error {
	if err := os.WriteFile(filepath.Join(dir, "keystore-password"), []byte(password+"\n"), 0o600); err != nil {
		return err
	}
	store := filepath.Join(dir, "keystore")
	if err := os.MkdirAll(store, 0o700); err != nil {
		return err
	}
	random := rand.NewChaCha8(sha256.Sum256([]byte(seed)))
	for i := range keyCount {
		data, err := keystoretest.KeyFile(key(i), password, 2, 1, random)
		if err != nil {
			return err
		}
		name := fmt.Sprintf("UTC--2025-01-01T00-00-%02d.000000000Z--%s", i, strings.ToLower(address(i)[2:]))
		if err := os.WriteFile(filepath.Join(store, name), append(data, '\n'), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// clean is the export of the README's first command. Most rows leave the chain to --chain, as most exports do.
func clean() []byte {
	var b bytes.Buffer
	b.WriteString("address,externalId,chainId\n")
	for i := range customers {
		chain := ""
		switch i % 10 {
		case 4:
			chain = "eip155:300"
		case 9:
			chain = "eip155:421614"
		}
		fmt.Fprintf(&b, "%s,%s,%s\n", address(i), externalID(i), chain)
	}
	return b.Bytes()
}

// expectation is the expected outcome of a line of messy.csv.
type expectation struct {
	line    int
	outcome string // as README.md lists them
	field   string // of a reject
	what    string
}

// export is messy.csv while it is written.
type export struct {
	text     bytes.Buffer
	line     int // of what comes next, from 1
	expected []expectation
}

// put writes a record as it is, with its line end, and adds its expected outcome.
func (e *export) put(record, end, outcome, field, what string, a ...any) {
	if outcome != "" {
		e.expected = append(e.expected, expectation{e.line, outcome, field, fmt.Sprintf(what, a...)})
	}
	e.text.WriteString(record + end)
	e.line += strings.Count(record+end, "\n")
}

func (e *export) good(record, end, what string, a ...any) int {
	line := e.line
	e.put(record, end, "onboarded", "", what, a...)
	return line
}

func (e *export) bad(record, field, what string, a ...any) {
	e.put(record, "\n", "invalid", field, what, a...)
}

func writeExpected(path string, expected []expectation) error {
	var b bytes.Buffer
	w := csv.NewWriter(&b)
	_ = w.Write([]string{"line", "outcome", "field", "what"})
	for _, x := range expected {
		_ = w.Write([]string{strconv.Itoa(x.line), x.outcome, x.field, x.what})
	}
	w.Flush()
	return os.WriteFile(path, b.Bytes(), 0o600)
}

// writeTable replaces the table between the README's two marks.
func writeTable(path string, expected []expectation) error {
	const begin, end = "<!-- begin messy.csv -->\n", "<!-- end messy.csv -->\n"
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	head, rest, ok := strings.Cut(string(text), begin)
	_, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		return fmt.Errorf("%s has lost its marks", path)
	}
	var b strings.Builder
	io.WriteString(&b, head+begin+"\n| line | content | expected outcome |\n|---:|---|---|\n")
	for _, x := range expected {
		outcome := x.outcome
		if x.field != "" {
			outcome += ": `" + x.field + "`"
		}
		fmt.Fprintf(&b, "| %d | %s | %s |\n", x.line, strings.ReplaceAll(x.what, "|", `\|`), outcome)
	}
	io.WriteString(&b, "\n"+end+tail)
	return os.WriteFile(path, []byte(b.String()), 0o644)
}

// messy returns an export with the mistakes of real exports, and the expected outcomes. Columns are
// Address,External_Id,Name,ChainID.
func messy() ([]byte, []expectation) {
	e := &export{line: 1}
	const lf, crlf = "\n", "\r\n"
	row := func(address, id, name, chain string) string {
		return strings.Join([]string{address, id, name, chain}, ",")
	}
	caip := func(chain int, i int) string { return fmt.Sprintf("eip155:%d:%s", chain, address(i)) }
	lower := func(i int) string { return strings.ToLower(address(i)) }
	upper := func(i int) string { return "0x" + strings.ToUpper(address(i)[2:]) }

	// What a parser has to bear.
	e.put("\ufeffAddress,External_Id,Name,ChainID", crlf, "", "", "")
	plain := e.good(row(address(30), externalID(30), "Ada", ""), crlf, "a good row behind a byte order mark, CRLF")
	first := e.good(row(lower(31), externalID(31), "Bob", ""), lf, "all-lower-case address, LF")
	shared := e.line
	e.put(row(upper(32), externalID(32), "Cem", ""), crlf, "either", "",
		"all-upper-case digits; line %d has its externalId too", shared+30)
	account := e.good(row(caip(300, 33), externalID(33), "Dana", ""), lf, "CAIP-10 account")
	e.good(row(caip(300, 34), externalID(34), `"Eve, of the quoted comma"`, "eip155:300"), crlf,
		"CAIP-10 account and the same chainId, quoted comma")
	e.put("", crlf, "blank", "", "empty line")
	e.put("", lf, "blank", "", "empty line")
	e.good(row(address(35), externalID(35), "\"Finn\r\nof two lines\"", ""), crlf,
		"line break inside quotes: the record has two lines")
	e.good(row(address(36), `"`+externalID(36)+`"`, `"Gus ""the Quote"" Hall"`, ""), lf,
		"quoted externalId, doubled quotes")
	e.good(row(address(3), externalID(103), "Hana", "eip155:421614"), lf,
		"an address of customers.csv on another chain: another customer")
	e.good(row(address(4), "+491701234567", "", "eip155:324"), lf, "externalId is a telephone number, not a formula")
	e.good(row(address(5), "@jane_doe", "", "eip155:324"), lf, "externalId is a handle, not a formula")
	e.good(row(address(6), "Köln-Ä42/7", "", "eip155:324"), lf, "externalId outside ASCII")
	e.good(row(address(7), `"Kunde, 7"`, "", "eip155:324"), lf, "externalId with comma and space")
	e.good(row(address(8), strings.Repeat("e", 255), "", "eip155:324"), lf, "externalId of 255 bytes, the most allowed")
	e.good(row(address(38), externalID(38), strings.Repeat("long ", 400), ""), lf,
		"name of 2,000 bytes: other columns are ignored")

	// Addresses.
	a := address(10)
	e.bad(row(flip(a), externalID(110), "Ina", ""), "address", "one letter in the wrong case: fails its EIP-55 checksum")
	e.bad(row(mistype(a), externalID(110), "Ina", ""), "address", "one digit mistyped: fails its EIP-55 checksum")
	e.bad(row(a[:len(a)-1], externalID(110), "Ina", ""), "address", "truncated by one digit")
	e.bad(row(a[:12]+"…", externalID(110), "Ina", ""), "address", "abbreviated with an ellipsis")
	e.bad(row("0x"+strings.Repeat("0", 24)+a[2:], externalID(110), "Ina", ""), "address",
		"padded with zeros to 32 bytes")
	e.bad(row(a+"0", externalID(110), "Ina", ""), "address", "one digit too many")
	e.bad(row(strings.Repeat("f", 300), externalID(110), "Ina", ""), "address", "over-long")
	e.bad(row(" "+a, externalID(110), "Ina", ""), "address", "space before it")
	e.bad(row(a+" ", externalID(110), "Ina", ""), "address", "space behind it")
	e.bad(row(a[2:], externalID(110), "Ina", ""), "address", "no 0x")
	e.bad(row("0X"+a[2:], externalID(110), "Ina", ""), "address", "0X for 0x")
	e.bad(row("", externalID(110), "Ina", ""), "address", "empty")
	e.bad(row("0x"+strings.Repeat("0", 40), externalID(110), "Ina", ""), "address",
		"the zero address, for which no key is known")
	e.bad(",,,", "address", "nothing but commas, as spreadsheets append")
	e.bad("address,externalId,name,chainId", "chainId", "a second header: files were joined")
	second := row(address(37), externalID(32), "Jan", "")
	if want := shared + 30; e.line != want {
		log.Fatalf("line %d announces its externalId again for line %d, it is on %d", shared, want, e.line)
	}
	e.put(second, lf, "either", "", "another address with the externalId of line %d", shared)
	e.bad("\ufeff"+row(a, externalID(110), "Ina", ""), "address", "a byte order mark in the middle: files were joined")

	// Chains.
	solana := "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp:7S3P4HxJpyyigGzodYwHtCxZyUQe9JiBMHyRWXArAaKv"
	e.bad(row(solana, externalID(110), "Ina", ""), "address",
		"a Solana account: only eip155 customers can answer a challenge")
	e.bad(row("eip155:0x12c:"+a, externalID(110), "Ina", ""), "address", "chain in hex")
	e.bad(row(a, externalID(110), "Ina", "300"), "chainId", "chainId without its namespace")
	e.bad(row(a, externalID(110), "Ina", "eip155:0300"), "chainId", "chainId with a leading zero")
	e.bad(row(a, externalID(110), "Ina", "eip155:"+strings.Repeat("3", 300)), "chainId", "over-long chainId")
	e.bad(row(caip(300, 10), externalID(110), "Ina", "eip155:324"), "chainId", "chainId contradicts the CAIP-10 account")

	// External ids.
	for _, c := range []struct{ id, what string }{
		{"", "empty"},
		{`=cmd|' /C calc'!A0`, "formula: =cmd"},
		{`"=HYPERLINK(""http://example.com"",""x"")"`, "formula in quotes"},
		{"+1+cmd|x", "formula that begins with +"},
		{"-2+3", "formula that begins with -"},
		{"@SUM(1)", "formula that begins with @"},
		{strings.Repeat("e", 256), "256 bytes"},
		{strings.Repeat("ü", 128), "128 characters, but 256 bytes"},
		{" c-110", "leading space"},
		{"c-110 ", "trailing space"},
		{"   ", "nothing but spaces"},
		{"\t=1+1", "leading tab"},
		{"c\x00110", "NUL"},
		{"c\x1b[2J110", "control characters"},
		{"\"c\n110\"", "line break inside quotes: the record has two lines"},
		{"c\u200b110", "zero-width space"},
		{"c\u202e011", "right-to-left override"},
		{"c\u00a0110", "no-break space"},
	} {
		e.bad(row(a, c.id, "Ina", ""), "externalId", "%s", c.what)
	}

	// Whole records.
	e.bad(a, "record", "too few fields")
	e.bad(row(a, externalID(110), "Ina", "")+",x", "record", "too many fields")
	e.bad(strings.ReplaceAll(row(a, externalID(110), "Ina", ""), ",", ";"), "record", "separated by semicolons")
	e.bad(row(a, "c-\xff\xfe", "Ina", ""), "record", "invalid UTF-8 in the externalId")
	e.bad(row(a, externalID(110), "M\xfcller", ""), "record", "Latin-1 in the name")
	e.bad(row(a, externalID(110), strings.Repeat("x", 66_000), ""), "record", "line of more than 64 KiB")
	e.bad(row(a, externalID(110), `"Ina" Jr`, ""), "record", "text behind a closing quote")
	e.bad(row(a, externalID(110), `5" screen`, ""), "record", "a single quote inside an unquoted field")

	// What only the ledger can see.
	e.put(row(address(30), externalID(30), "Ada", ""), lf, "skipped", "", "line %d once more", plain)
	e.put(row(lower(33), externalID(33), "Dana", "eip155:300"), lf, "skipped", "",
		"line %d once more, written otherwise", account)
	e.put(row(address(31), externalID(131), "Bob", ""), lf, "conflict", "",
		"the address of line %d with another externalId", first)
	e.put(row(keyless(), externalID(111), "Kim", ""), lf, "failed", "", "an address whose key the signer does not hold")

	// A quote that is never closed: its line is lost, and nothing behind it.
	e.bad(row(a, externalID(110), `"Ina, whose quote is not closed`, ""), "record",
		"unterminated quote")
	e.good(row(address(0), externalID(0), "Lea", ""), lf, "good row behind the unterminated quote; in customers.csv too")
	e.good(row(address(1), externalID(1), `"Mia, M."`, ""), crlf, "good row with quotes of its own")
	e.put("   ", lf, "blank", "", "nothing but spaces")
	e.good(row(address(2), externalID(2), "\"Noa\nof two lines\"", ""), lf,
		"good row with a line break in its quotes")
	e.good(row(address(39), externalID(39), "Ole", ""), crlf, "the last row")
	return e.text.Bytes(), e.expected
}

// flip changes the case of the last letter of a checksummed address.
func flip(address string) string {
	b := []byte(address)
	for i := len(b) - 1; ; i-- {
		if c := b[i] | 0x20; c >= 'a' && c <= 'f' {
			b[i] ^= 0x20
			return string(b)
		}
	}
}

// mistype replaces the last decimal digit of an address by its successor.
func mistype(address string) string {
	b := []byte(address)
	for i := len(b) - 1; ; i-- {
		if b[i] >= '0' && b[i] <= '8' {
			b[i]++
			return string(b)
		}
	}
}

// keyless is an address made of a hash, not of a key.
func keyless() string {
	return common.BytesToAddress(crypto.Keccak256([]byte(seed + " nobody"))[12:]).Hex()
}
