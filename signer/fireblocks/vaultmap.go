package fireblocks

import (
	"bufio"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/ethereum/go-ethereum/common"

	"github.com/purser-onboard/purser/secretfile"
	"github.com/purser-onboard/purser/signer"
)

// LineError reports an invalid line of the vault map.
type LineError struct {
	Path    string
	Line    int
	Problem string
}

func (e *LineError) Error() string { return fmt.Sprintf("%s:%d: %s", e.Path, e.Line, e.Problem) }

// readMap reads a vault map: CSV with a header that names the columns address and vaultAccountId, in any order, and
// optionally assetId, whose default is asset. Other columns are ignored.
func readMap(path, asset string) (refs map[common.Address]ref, first ref, err error) {
	if info, err := os.Stat(path); err == nil && info.Mode()&fs.ModeNamedPipe != 0 { // opening it waits for a writer
		return nil, first, fmt.Errorf("%w: vault map %s is a pipe, want a file", signer.ErrUnusable, path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, first, fmt.Errorf("%w: vault map %s: %w", signer.ErrUnusable, path, secretfile.Reason(err))
	}
	defer f.Close()
	return parseMap(path, f, asset)
}

func parseMap(path string, r io.Reader, asset string) (refs map[common.Address]ref, first ref, err error) {
	buffered := bufio.NewReader(r)
	if mark, err := buffered.Peek(3); err == nil && string(mark) == "\uFEFF" { // as spreadsheets write it
		_, _ = buffered.Discard(len(mark)) // it was just read
	}
	in := csv.NewReader(buffered)
	in.ReuseRecord = true
	columns := map[string]int{}
	refs = map[common.Address]ref{}
	lines := map[common.Address]int{}
	for n := 0; ; n++ {
		record, err := in.Read()
		var bad *csv.ParseError
		switch {
		case errors.Is(err, io.EOF) && len(refs) == 0:
			return nil, first, &LineError{path, max(n, 1), "the file has no address"}
		case errors.Is(err, io.EOF):
			return refs, first, nil
		case errors.As(err, &bad):
			return nil, first, &LineError{path, bad.Line, bad.Err.Error()}
		case err != nil:
			return nil, first, fmt.Errorf("%w: vault map %s: %w", signer.ErrUnusable, path, secretfile.Reason(err))
		}
		line, _ := in.FieldPos(0)
		if n == 0 {
			for i, name := range record {
				name = strings.ToLower(strings.ReplaceAll(strings.TrimSpace(name), "_", ""))
				if _, twice := columns[name]; twice {
					return nil, first, &LineError{path, line, "the header has a column twice"}
				}
				columns[name] = i
			}
			_, hasAddress := columns["address"]
			if _, hasAccount := columns["vaultaccountid"]; !hasAccount || !hasAddress {
				return nil, first, &LineError{path, line, "the header does not name the columns address and vaultAccountId"}
			}
			continue
		}
		found, problem := parseRow(record, columns, asset)
		if problem == "" && lines[found.address] > 0 {
			problem = fmt.Sprintf("the address is in line %d already", lines[found.address])
		}
		if problem != "" {
			return nil, first, &LineError{path, line, problem}
		}
		if len(refs) == 0 {
			first = found
		}
		refs[found.address], lines[found.address] = found, line
	}
}

func parseRow(record []string, columns map[string]int, asset string) (found ref, problem string) {
	field := func(name string) string { return strings.TrimSpace(record[columns[name]]) }
	address, err := signer.ParseAddress(field("address"))
	if err != nil {
		return found, "the address " + err.Error()
	}
	found = ref{address: address, account: field("vaultaccountid"), asset: asset}
	if _, has := columns["assetid"]; has && field("assetid") != "" {
		found.asset = field("assetid")
	}
	if !plainAccount(found.account) {
		return found, "the vaultAccountId is not a number"
	}
	if !plainAsset(found.asset) {
		return found, "the assetId has characters other than letters, digits, _, - and ."
	}
	return found, ""
}

// plainAccount reports whether s is the id of a vault account: a number, which becomes a part of a path.
func plainAccount(s string) bool {
	return s != "" && len(s) <= 20 && strings.Trim(s, "0123456789") == ""
}
