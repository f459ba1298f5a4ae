package inspect

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"

	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

var yamlLine = regexp.MustCompile(`line (\d+)`)

// decodeYAML decodes one document as the components do. Text that is no
// mapping is [ErrUnknown]. Errors hold no text of the file.
func decodeYAML(data []byte, into *map[string]any) error {
	if trimmed := bytes.TrimSpace(data); len(trimmed) == 0 {
		return nil
	}
	j, err := yaml.YAMLToJSON(data)
	if err != nil {
		// A file that looks like a manifest gets its line named.
		if line := yamlLine.FindStringSubmatch(err.Error()); line != nil && looksLikeManifest(data) {
			return fmt.Errorf("is not YAML: see line %s", line[1])
		}
		return ErrUnknown
	}
	if kjson.UnmarshalCaseSensitivePreserveInts(j, into) != nil {
		return ErrUnknown
	}
	return nil
}

func looksLikeManifest(data []byte) bool {
	return bytes.Contains(data, []byte("apiVersion")) || bytes.Contains(data, []byte("kind"))
}

func encodeJSON(o map[string]any) ([]byte, error) { return json.Marshal(o) }

// retype decodes an object into a struct. The error names the field alone.
func retype(o map[string]any, into any) error {
	data, err := encodeJSON(o)
	if err == nil {
		err = kjson.UnmarshalCaseSensitivePreserveInts(data, into)
	}
	var wrong *json.UnmarshalTypeError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &wrong) && wrong.Field != "":
		return errors.New(wrong.Field + " has the wrong type")
	}
	return errors.New("a field has the wrong type")
}

// plain makes foreign text fit for a terminal: control characters could move
// the cursor or colour what follows.
func plain(text string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r >= 0x7f && r < 0xa0 || r == '\u202e' || r == '\u2066' || r == '\u2067' || r == '\u2068' {
			return '?'
		}
		return r
	}, text)
}
