package config

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"regexp"
	"slices"
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
	for _, text := range Documents(data) {
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

// Documents splits a YAML text at the lines that separate its documents.
// Documents of white space alone are left out; those of comments alone are not.
func Documents(data []byte) [][]byte {
	var all [][]byte
	add := func(text []byte) {
		if len(bytes.TrimSpace(text)) > 0 {
			all = append(all, text)
		}
	}
	start := 0
	for offset := 0; offset < len(data); {
		end := len(data)
		if i := bytes.IndexByte(data[offset:], '\n'); i >= 0 {
			end = offset + i + 1
		}
		line := bytes.TrimRight(data[offset:end], " \t\r\n")
		if bytes.Equal(line, []byte("---")) || bytes.HasPrefix(line, []byte("--- #")) {
			add(data[start:offset])
			start = end
		}
		offset = end
	}
	add(data[start:])
	return all
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
		field := fieldPath(kind.Field)
		if _, number, _ := strings.Cut(kind.Value, "number "); number != "" && kindName(kind.Type) == "a number" {
			return &Error{Field: field, Cause: "is a number out of range"}
		}
		return &Error{Field: field, Cause: "is " + valueName(kind.Value) + ", wanted is " + kindName(kind.Type)}
	}
	return &Error{Cause: "is YAML of another form"}
}

// inlined are the types that stand in others without a field of their own.
var inlined = []string{
	reflect.TypeFor[typeMeta]().Name(), reflect.TypeFor[component]().Name(), reflect.TypeFor[imageMeta]().Name(),
	reflect.TypeFor[ownWorker]().Name(), reflect.TypeFor[ownEtcdSANs]().Name(),
}

// fieldPath leaves the names of inlined types out of a path as
// encoding/json gives it.
func fieldPath(path string) string {
	return strings.Join(slices.DeleteFunc(strings.Split(path, "."), func(part string) bool { return slices.Contains(inlined, part) }), ".")
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

// valueName says what JSON calls by another name.
func valueName(kind string) string {
	switch word, _, _ := strings.Cut(kind, " "); word {
	case "array":
		return "a list"
	case "object":
		return "a mapping"
	case "string":
		return "a text"
	case "bool":
		return "true or false"
	}
	return "a number"
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
	}
	return "a number"
}

// life reads a duration such as 8760h, as time.ParseDuration does; the empty
// text stands for another.
func life(field, text string, other time.Duration) (time.Duration, error) {
	if text == "" {
		return other, nil
	}
	d, err := time.ParseDuration(text)
	switch {
	case err != nil:
		return 0, wrong(field, "%q is not a duration like 8760h", text)
	case d <= 0:
		return 0, wrong(field, "%q is not more than nothing", text)
	}
	return d, nil
}
