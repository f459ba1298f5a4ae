package layout

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"regexp"

	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// fieldError says which field of a file is wrong. It never holds a value.
type fieldError struct{ field, reason string }

func (e *fieldError) Error() string { return e.field + ": " + e.reason }

var yamlLine = regexp.MustCompile(`line (\d+)`)

// decodeYAML decodes as the components do: to JSON first, and from there with
// case-sensitive names. Its errors hold no text of the file, which may be a
// secret.
func decodeYAML(data []byte, into any) error {
	j, err := yamlToJSON(data)
	if err != nil {
		return err
	}
	return decodeJSON(j, into)
}

// yamlToJSON is the first and slow half of decodeYAML, for who decodes a text into
// several things.
func yamlToJSON(data []byte) ([]byte, error) {
	j, err := yaml.YAMLToJSON(data)
	if err != nil {
		if line := yamlLine.FindStringSubmatch(err.Error()); line != nil {
			return nil, fmt.Errorf("is not YAML: see line %s", line[1])
		}
		return nil, errors.New("is not YAML")
	}
	return j, nil
}

func decodeJSON(data []byte, into any) error {
	err := kjson.UnmarshalCaseSensitivePreserveInts(data, into)
	var wrong *json.UnmarshalTypeError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &wrong) && wrong.Field != "":
		return &fieldError{wrong.Field, "is not " + kindName(wrong.Type)}
	}
	return errors.New("is YAML of another form")
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

// unknownFields lists the fields of a text that a value of the type of like does
// not have.
func unknownFields(data []byte, like any) []string {
	j, err := yaml.YAMLToJSON(data)
	if err != nil {
		return nil
	}
	strict, _ := kjson.UnmarshalStrict(j, reflect.New(reflect.TypeOf(like).Elem()).Interface(), kjson.DisallowUnknownFields)
	var fields []string
	for _, err := range strict {
		var f kjson.FieldError
		if errors.As(err, &f) {
			fields = append(fields, f.FieldPath())
		}
	}
	return fields
}
