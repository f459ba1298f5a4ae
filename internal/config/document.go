package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"regexp"
	"strings"
	"time"

	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// MaxSize is the size in bytes up to which a configuration is read.
const MaxSize = 1 << 20

// typeMeta says what a document is.
type typeMeta struct {
	APIVersion string `json:"apiVersion,omitempty"`
	Kind       string `json:"kind,omitempty"`
}

// document is one YAML document of a file.
type document struct {
	typeMeta
	json []byte
}

// split returns the documents of a file; empty ones are left out.
func split(data []byte) ([]document, error) {
	if len(data) > MaxSize {
		return nil, &Error{Cause: "larger than 1 MiB: not a configuration"}
	}
	var documents []document
	for _, text := range texts(data) {
		if len(bytes.TrimSpace(text)) == 0 {
			continue
		}
		j, err := yaml.YAMLToJSONStrict(text)
		if err != nil {
			return nil, yamlError(err)
		}
		if string(j) == "null" {
			continue // comments alone
		}
		d := document{json: j}
		if err := kjson.UnmarshalCaseSensitivePreserveInts(j, &d.typeMeta); err != nil {
			return nil, jsonError(err)
		}
		if d.APIVersion == "" || d.Kind == "" {
			return nil, &Error{Field: "apiVersion, kind", Cause: "are not both set"}
		}
		documents = append(documents, d)
	}
	return documents, nil
}

// texts splits at the lines that separate YAML documents.
func texts(data []byte) [][]byte {
	var all [][]byte
	start := 0
	for offset := 0; offset < len(data); {
		end := len(data)
		if i := bytes.IndexByte(data[offset:], '\n'); i >= 0 {
			end = offset + i + 1
		}
		line := bytes.TrimRight(data[offset:end], " \t\r\n")
		if bytes.Equal(line, []byte("---")) || bytes.HasPrefix(line, []byte("--- #")) {
			all = append(all, data[start:offset])
			start = end
		}
		offset = end
	}
	return append(all, data[start:])
}

// decode fills a struct strictly: each field known, once, of the right type.
func (d document) decode(into any) error {
	strict, err := kjson.UnmarshalStrict(d.json, into)
	if err != nil {
		return jsonError(err)
	}
	if len(strict) > 0 {
		return strictError(strict[0])
	}
	return nil
}

var (
	yamlLine   = regexp.MustCompile(`line (\d+)`)
	yamlTwice  = regexp.MustCompile(`key "([^"]*)" already set in map`)
	fieldError = regexp.MustCompile(`^(unknown|duplicate) field "(.*)"$`)
)

// yamlError leaves out the text of the file, for it may hold a token.
func yamlError(err error) error {
	e := &Error{Cause: "is not YAML"}
	if twice := yamlTwice.FindStringSubmatch(err.Error()); twice != nil {
		e.Field, e.Cause = twice[1], "is given twice"
	}
	if line := yamlLine.FindStringSubmatch(err.Error()); line != nil {
		e.Cause += " (line " + line[1] + ")"
	}
	return e
}

func jsonError(err error) error {
	var kind *json.UnmarshalTypeError
	if errors.As(err, &kind) {
		return &Error{Field: kind.Field, Cause: "is a " + kind.Value + ", wanted is " + kindName(kind.Type)}
	}
	var own *Error
	if errors.As(err, &own) {
		return own
	}
	return &Error{Cause: "is YAML of another form"}
}

func strictError(err error) error {
	m := fieldError.FindStringSubmatch(err.Error())
	switch {
	case m == nil:
		return &Error{Cause: strings.TrimPrefix(err.Error(), "json: ")}
	case m[1] == "duplicate":
		return &Error{Field: m[2], Cause: "is given twice"}
	}
	return &Error{Field: m[2], Cause: "is not a field of this configuration", Help: "look for a typing error: names are case-sensitive"}
}

func kindName(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "a text"
	case reflect.Slice:
		return "a list"
	case reflect.Struct, reflect.Map:
		return "a mapping"
	case reflect.Pointer:
		return kindName(t.Elem())
	case reflect.Int64:
		return "a duration such as 8760h"
	}
	return "a number"
}

// duration is written as time.ParseDuration reads it.
type duration time.Duration

// UnmarshalJSON reads "8760h".
func (d *duration) UnmarshalJSON(data []byte) error {
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		return &json.UnmarshalTypeError{Value: "number", Type: reflect.TypeFor[duration]()}
	}
	value, err := time.ParseDuration(text)
	if err != nil {
		return &Error{Cause: "duration \"" + text + "\" does not parse: write it like 8760h"}
	}
	*d = duration(value)
	return nil
}

// MarshalJSON writes what UnmarshalJSON reads.
func (d duration) MarshalJSON() ([]byte, error) { return json.Marshal(time.Duration(d).String()) }

func (d *duration) or(other time.Duration) time.Duration {
	if d == nil {
		return other
	}
	return time.Duration(*d)
}
