package signer

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
)

// ReadSecret reads a file that holds a secret of at most so many bytes. exposed says that everybody may read the file,
// which is worth a word and no refusal: mounted secrets commonly are. The error says what is wrong and leaves naming
// the file to the caller. Wipe the content when it is of no more use.
func ReadSecret(path string, most int) (content []byte, exposed bool, err error) {
	unreadable := func(err error) error {
		var operation *fs.PathError
		if errors.As(err, &operation) {
			err = operation.Err
		}
		return fmt.Errorf("cannot be read: %w", err)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, false, unreadable(err)
	}
	if info.IsDir() {
		return nil, false, errors.New("is a directory")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, false, unreadable(err)
	}
	defer f.Close()
	content, err = io.ReadAll(io.LimitReader(f, int64(most)+1))
	if err != nil {
		clear(content)
		return nil, false, unreadable(err)
	}
	if len(content) > most {
		clear(content)
		return nil, false, fmt.Errorf("has more than %d bytes", most)
	}
	return content, info.Mode().IsRegular() && info.Mode().Perm()&0o004 != 0, nil
}

// CutLine cuts one line end off the end of a secret's file, which editors add and echo does.
func CutLine(content []byte) []byte {
	if line, ok := bytes.CutSuffix(content, []byte("\n")); ok {
		return bytes.TrimSuffix(line, []byte("\r"))
	}
	return content
}
