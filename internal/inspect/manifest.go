package inspect

import (
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/config"
	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/trust"
)

// Object is a Kubernetes object that holds credentials.
type Object struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name,omitempty"`
	Type      string `json:"type,omitempty"` // of a Secret
	// Expires is, of a Secret that is a bootstrap token, when it ends; nil where it
	// has no end.
	Expires *time.Time `json:"expires,omitempty"`
}

// bootstrapToken is the type of a Secret that is a bootstrap token.
const bootstrapToken = "bootstrap.kubernetes.io/token"

// IsBootstrapToken tells whether the object is a bootstrap token.
func (o *Object) IsBootstrapToken() bool { return o.Kind == "Secret" && o.Type == bootstrapToken }

// Component is a component of the control plane that a static pod runs, with
// the flags that name its credentials and trust.
type Component struct {
	Name  string `json:"name"`
	Flags []Flag `json:"flags,omitempty"`
}

// Flag is one flag of a component.
type Flag struct {
	Name   string   `json:"name"` // without dashes
	Values []string `json:"values"`
	Use    string   `json:"use"` // what the file is used as
}

// documents describes YAML or JSON: a kubeconfig, or objects of Kubernetes.
func (d *describer) documents(data []byte) (Format, error) {
	format, known := Manifest, false
	for i, text := range config.Documents(data) {
		var o map[string]any
		if err := decodeYAML(text, &o); err != nil {
			return "", err
		}
		if o == nil {
			continue
		}
		before := len(d.parts)
		prefix := ""
		if i > 0 {
			prefix = fmt.Sprintf("document %d", i+1)
		}
		if err := d.object(prefix, o); err != nil {
			return "", err
		}
		if len(d.parts) > before {
			known = true
		}
		if i == 0 && isKubeconfig(o) {
			format = Kubeconfig
		}
	}
	if !known {
		return "", ErrUnknown
	}
	return format, nil
}

// object describes one object; one without any credential adds no part.
func (d *describer) object(prefix string, o map[string]any) error {
	if d.depth++; d.depth > maxDepth {
		d.depth--
		return nil
	}
	defer func() { d.depth-- }()
	if isKubeconfig(o) {
		return d.kubeconfig(prefix, o)
	}
	kind, _ := o["kind"].(string)
	if items, ok := o["items"].([]any); ok && strings.HasSuffix(kind, "List") {
		for i, item := range items {
			if inner, ok := item.(map[string]any); ok {
				if err := d.object(join(prefix, fmt.Sprintf("items[%d]", i)), inner); err != nil {
					return err
				}
			}
		}
		return nil
	}
	header := Part{Kind: KindObject, Field: prefix, Object: headerOf(kind, o)}
	inner := &describer{depth: d.depth}
	if err := inner.fields(kind, o); err != nil {
		return err
	}
	if len(inner.parts) == 0 && kind != "Secret" {
		return nil
	}
	if kind != "" {
		if err := d.add(header); err != nil {
			return err
		}
	}
	for _, p := range inner.parts {
		p.Field = join(prefix, p.Field)
		if err := d.add(p); err != nil {
			return err
		}
	}
	return nil
}

func headerOf(kind string, o map[string]any) *Object {
	h := &Object{Kind: kind}
	if meta, ok := o["metadata"].(map[string]any); ok {
		h.Namespace, _ = meta["namespace"].(string)
		h.Name, _ = meta["name"].(string)
	}
	h.Type, _ = o["type"].(string)
	if h.IsBootstrapToken() {
		h.Expires = expirationOf(o)
	}
	return h
}

// expirationOf reads when a bootstrap token ends; nil where it does not say.
func expirationOf(o map[string]any) *time.Time {
	var text string
	if data, ok := o["stringData"].(map[string]any); ok {
		text, _ = data["expiration"].(string)
	}
	if data, ok := o["data"].(map[string]any); ok && text == "" {
		encoded, _ := data["expiration"].(string)
		decoded, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil {
			return nil
		}
		text = string(decoded)
	}
	if end, err := time.Parse(time.RFC3339, text); err == nil {
		return date(end)
	}
	return nil
}

func (d *describer) fields(kind string, o map[string]any) error {
	switch kind {
	case "Pod":
		if c := componentOf(o); c != nil {
			return d.add(Part{Kind: KindComponent, Component: c})
		}
	case "Secret":
		return errors.Join(d.secret(o), d.values("stringData", o))
	case "ConfigMap":
		return d.values("data", o)
	}
	return d.walk("", o, 0)
}

// secret describes data, which is base64. Values that are no credential are
// named and not shown.
func (d *describer) secret(o map[string]any) error {
	data, _ := o["data"].(map[string]any)
	for _, key := range slices.Sorted(maps.Keys(data)) {
		field := "data[" + key + "]"
		text, _ := data[key].(string)
		value, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(text), ""))
		if err != nil {
			if err := d.add(Part{Kind: KindOther, Field: field, Problem: "is not base64"}); err != nil {
				return err
			}
			continue
		}
		if err := d.value(field, value); err != nil {
			return err
		}
	}
	return nil
}

func (d *describer) values(of string, o map[string]any) error {
	data, _ := o[of].(map[string]any)
	for _, key := range slices.Sorted(maps.Keys(data)) {
		text, _ := data[key].(string)
		if err := d.value(of+"["+key+"]", []byte(text)); err != nil {
			return err
		}
	}
	return nil
}

// value describes one value of a Secret or ConfigMap.
func (d *describer) value(field string, value []byte) error {
	if hasBoundary(value) {
		return d.pem(field, value)
	}
	inner := &describer{depth: d.depth}
	if len(value) > 0 {
		if _, err := inner.file(value); err != nil {
			inner.parts = nil
		}
	}
	if len(inner.parts) == 0 {
		return d.add(Part{Kind: KindOther, Field: field, Note: "no certificate, key or token: not shown"})
	}
	for _, p := range inner.parts {
		p.Field = join(field, p.Field)
		if err := d.add(p); err != nil {
			return err
		}
	}
	return nil
}

// walk looks for PEM and tokens in every text of an object of another kind:
// the caBundle of a webhook, the request of a CertificateSigningRequest, the
// token of a TokenRequest or ExecCredential.
func (d *describer) walk(field string, v any, depth int) error {
	if depth > 100 {
		return nil
	}
	switch v := v.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			if err := d.walk(join(field, key), v[key], depth+1); err != nil {
				return err
			}
		}
	case []any:
		for i, e := range v {
			if err := d.walk(fmt.Sprintf("%s[%d]", field, i), e, depth+1); err != nil {
				return err
			}
		}
	case string:
		return d.text(field, v)
	}
	return nil
}

func (d *describer) text(field, text string) error {
	if hasBoundary([]byte(text)) {
		return d.pem(field, []byte(text))
	}
	if looksLikeToken(text) {
		return d.token(field, text)
	}
	if strings.HasPrefix(text, "LS0t") { // base64 of ---
		if inner, ok := decodeBase64(text); ok && hasBoundary(inner) {
			return d.pem(field, inner)
		}
	}
	return nil
}

// componentOf returns the component of the control plane that a static pod
// runs, nil for a Pod of something else.
func componentOf(o map[string]any) *Component {
	data, err := encodeJSON(o)
	if err != nil {
		return nil
	}
	c, err := layout.ParseManifest(trust.Place{Path: "/"}, data)
	if err != nil {
		return nil
	}
	described := &Component{Name: c.Name}
	for _, u := range catalog.FlagUses(c.Name) {
		if values := c.Flags[u.Flag]; len(values) > 0 {
			described.Flags = append(described.Flags, Flag{Name: u.Flag, Values: values, Use: string(u.Role)})
		}
	}
	return described
}
