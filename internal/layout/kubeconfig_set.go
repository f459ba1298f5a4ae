package layout

import (
	"bytes"
	"encoding/base64"
	"errors"
	"reflect"

	"sigs.k8s.io/yaml"

	"github.com/kubepki/kubepki/internal/trust"
)

// EmbeddedCredential is what [SetCredential] puts into a kubeconfig.
type EmbeddedCredential struct {
	Certificate, Key []byte // PEM; nil: the user's stays as it is
	CA               []byte // PEM; nil: the cluster's stays as it is
	Server           string // URL; empty: stays as it is
}

// SetCredential gives the current context of a kubeconfig (YAML or JSON) another
// credential, embedded, and keeps all else: other contexts, fields that this
// package does not know and, where only embedded values change, comments and order.
// What the file itself says wrong of other fields is an error, as is a context
// that names no cluster or user.
func SetCredential(data []byte, c EmbeddedCredential) ([]byte, error) {
	if len(data) > MaxFile {
		return nil, errors.New("larger than 1 MiB: not a kubeconfig")
	}
	j, err := yamlToJSON(data)
	if err != nil {
		return nil, err
	}
	var known kubeconfigFile
	if err := decodeJSON(j, &known); err != nil {
		return nil, err
	}
	context, ok := find(known.Contexts, func(o namedContext) bool { return o.Name == known.CurrentContext })
	if !ok || known.CurrentContext == "" {
		return nil, &fieldError{"current-context", "names no context"}
	}
	var all map[string]any
	if err := decodeJSON(j, &all); err != nil {
		return nil, err
	}
	cluster, user := inner(all, "clusters", context.Context.Cluster, "cluster"), inner(all, "users", context.Context.User, "user")
	if cluster == nil || user == nil {
		return nil, &fieldError{"contexts[" + known.CurrentContext + "].context", "names no cluster or no user that is there"}
	}
	edits := fieldEdits{}
	if c.Server != "" {
		edits.set(cluster, "server", c.Server)
	}
	if c.CA != nil {
		delete(cluster, "certificate-authority")
		edits.set(cluster, "certificate-authority-data", encoded(c.CA))
	}
	if c.Certificate != nil {
		delete(user, "client-certificate")
		delete(user, "client-key")
		edits.set(user, "client-certificate-data", encoded(c.Certificate))
		edits.set(user, "client-key-data", encoded(c.Key))
	}
	text := edits.inText(data, all)
	if text == nil {
		if text, err = yaml.Marshal(all); err != nil {
			return nil, err
		}
	}
	if k, _, _ := ParseKubeconfig(trust.Place{}, text); k.State != trust.Present {
		return nil, errors.New(k.Reason)
	}
	return text, nil
}

func encoded(data []byte) string { return base64.StdEncoding.EncodeToString(data) }

// inner is the part of a kubeconfig that a named entry of a list holds.
func inner(all map[string]any, list, name, part string) map[string]any {
	entries, _ := all[list].([]any)
	for _, e := range entries {
		fields, _ := e.(map[string]any)
		if entryName(e) != name || fields == nil {
			continue
		}
		if found, ok := fields[part].(map[string]any); ok {
			return found
		}
		made := map[string]any{}
		fields[part] = made
		return made
	}
	return nil
}

// fieldEdits are old texts of fields and what replaces them.
type fieldEdits map[string]string

func (e fieldEdits) set(in map[string]any, field, value string) {
	if old, ok := in[field].(string); ok {
		e[old] = value
	} else {
		e[""] = "" // a field is new: the text alone does not do
	}
	in[field] = value
}

// inText makes the edits in the text itself; nil where that is not exactly what is
// wanted.
func (e fieldEdits) inText(data []byte, want map[string]any) []byte {
	for old, value := range e {
		if old == value {
			continue
		}
		if old == "" || bytes.Count(data, []byte(old)) != 1 {
			return nil
		}
		data = bytes.ReplaceAll(data, []byte(old), []byte(value))
	}
	var got map[string]any
	if decodeYAML(data, &got) != nil || !reflect.DeepEqual(got, want) {
		return nil
	}
	return data
}
