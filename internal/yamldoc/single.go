package yamldoc

import (
	"bytes"
	"errors"
	"io"

	"go.yaml.in/yaml/v3"
)

// ErrMore tells that something stands behind a document.
var ErrMore = errors.New("more than one YAML document: something stands behind the end of the first")

// Single refuses a text that holds more than one document with [ErrMore], and one
// that is not YAML. It asks the parser itself, for YAML knows more ends of
// documents, and of lines, than whoever splits at lines of three hyphens. An empty
// text is a single document.
func Single(text []byte) error {
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	var one yaml.Node
	if err := decoder.Decode(&one); errors.Is(err, io.EOF) {
		return nil
	} else if err != nil {
		return err
	}
	if err := decoder.Decode(&one); !errors.Is(err, io.EOF) {
		return ErrMore
	}
	return nil
}
