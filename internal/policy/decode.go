package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	kjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"github.com/kubepki/kubepki/internal/yamldoc"
)

// MaxSize is the size in bytes up to which a file is read.
const MaxSize = 1 << 20

// decode reads one YAML document strictly: each field known, once, of the right
// type and not empty. A setting that is lost is a hole in a policy.
func decode(data []byte, kind string, into any) error {
	if len(data) > MaxSize {
		return errors.New("larger than 1 MiB: not a policy")
	}
	j, err := yaml.YAMLToJSONStrict(data)
	if err == nil {
		err = yamldoc.Single(data)
	}
	if errors.Is(err, yamldoc.ErrMore) {
		return fmt.Errorf("holds %w", err)
	}
	if err != nil {
		return fmt.Errorf("is not YAML: %s", oneLine(err))
	}
	var meta typeMeta
	if err := kjson.UnmarshalCaseSensitivePreserveInts(j, &meta); err != nil {
		return fmt.Errorf("is no %s: %s", kind, oneLine(err))
	}
	if meta.APIVersion != APIVersion || meta.Kind != kind {
		return fmt.Errorf("apiVersion, kind: are %q and %q, wanted are %q and %q", meta.APIVersion, meta.Kind, APIVersion, kind)
	}
	var tree any
	if err := json.Unmarshal(j, &tree); err != nil {
		return fmt.Errorf("is no %s: %s", kind, oneLine(err))
	}
	if path, empty := findNull("", tree); empty {
		return fmt.Errorf("%s: is empty: give it a value, or leave it out", path)
	}
	strict, err := kjson.UnmarshalStrict(j, into)
	if err == nil && len(strict) > 0 {
		err = strict[0]
	}
	var other *json.UnmarshalTypeError
	switch {
	case errors.As(err, &other):
		return fmt.Errorf("%s: is a %s, wanted is a %s", other.Field, other.Value, other.Type)
	case err != nil:
		return errors.New(oneLine(err))
	}
	return nil
}

// findNull returns the path of a null, which YAML makes of a field without value.
func findNull(path string, v any) (string, bool) {
	switch v := v.(type) {
	case nil:
		return path, true
	case []any:
		for i, e := range v {
			if p, found := findNull(fmt.Sprintf("%s[%d]", path, i), e); found {
				return p, true
			}
		}
	case map[string]any:
		names := make([]string, 0, len(v))
		for name := range v {
			names = append(names, name)
		}
		slices.Sort(names)
		for _, name := range names {
			if p, found := findNull(strings.TrimPrefix(path+"."+name, "."), v[name]); found {
				return p, true
			}
		}
	}
	return "", false
}

var spaces = regexp.MustCompile(`\s+`)

// oneLine makes the error of a library one line of bounded length.
func oneLine(err error) string {
	text := spaces.ReplaceAllString(err.Error(), " ")
	for _, prefix := range []string{"error converting YAML to JSON: ", "yaml: ", "json: "} {
		text = strings.TrimPrefix(text, prefix)
	}
	if len(text) > 300 {
		text = strings.ToValidUTF8(text[:300], "") + " …"
	}
	return text
}
