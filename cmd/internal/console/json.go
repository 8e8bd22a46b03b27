package console

import (
	"encoding/json"
	"fmt"
	"io"
)

// WriteJSON writes a document as indented JSON with a final line feed. Its texts from outside must be printable.
func WriteJSON(w io.Writer, document any) error {
	raw, err := json.MarshalIndent(document, "", "  ")
	if err != nil {
		return fmt.Errorf("output as JSON: %w", err)
	}
	_, err = w.Write(append(raw, '\n'))
	return err
}
