package cainjector

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

// FieldManager is the name under which caBundles are written: cert-manager's own, so that
// a switch-over in either direction leaves no owner behind.
const FieldManager = "cert-manager-cainjector"

// Kind is a kind of object that has caBundles.
type Kind struct {
	Group, Version, Resource, Kind string
	fields                         func(*content) ([]*[]byte, error)
}

// Path is the path of the resource at the API server.
func (k *Kind) Path() string { return "/apis/" + k.Group + "/" + k.Version + "/" + k.Resource }

// Kinds are all kinds that have caBundles.
func Kinds() []*Kind {
	const admission = "admissionregistration.k8s.io"
	return []*Kind{
		{admission, "v1", "validatingwebhookconfigurations", "ValidatingWebhookConfiguration", ofWebhooks},
		{admission, "v1", "mutatingwebhookconfigurations", "MutatingWebhookConfiguration", ofWebhooks},
		{"apiregistration.k8s.io", "v1", "apiservices", "APIService", ofAPIService},
		{"apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", ofConversion},
	}
}

// content is an object as far as caBundles go, to be read and to be applied: what it does
// not name stays as it is.
type content struct {
	APIVersion string      `json:"apiVersion"`
	Kind       string      `json:"kind"`
	Metadata   contentMeta `json:"metadata"`
	Webhooks   []webhook   `json:"webhooks,omitempty"`
	Spec       *spec       `json:"spec,omitempty"`
}

type contentMeta struct {
	Name string `json:"name"`
	// ResourceVersion makes a write fail where the object has changed meanwhile.
	ResourceVersion string `json:"resourceVersion,omitempty"`
}

type webhook struct {
	Name         string       `json:"name"`
	ClientConfig clientConfig `json:"clientConfig"`
}

type clientConfig struct {
	CABundle []byte `json:"caBundle,omitempty"`
}

type spec struct {
	CABundle              []byte          `json:"caBundle,omitempty"`
	Service               json.RawMessage `json:"service,omitempty"`
	InsecureSkipTLSVerify bool            `json:"insecureSkipTLSVerify,omitempty"`
	Conversion            *conversion     `json:"conversion,omitempty"`
}

type conversion struct {
	Strategy string             `json:"strategy,omitempty"`
	Webhook  *conversionWebhook `json:"webhook,omitempty"`
}

type conversionWebhook struct {
	ClientConfig clientConfig `json:"clientConfig"`
}

func ofWebhooks(c *content) ([]*[]byte, error) {
	var all []*[]byte
	for i := range c.Webhooks {
		all = append(all, &c.Webhooks[i].ClientConfig.CABundle)
	}
	c.Spec = nil
	return all, nil
}

func ofAPIService(c *content) ([]*[]byte, error) {
	if c.Spec == nil || len(c.Spec.Service) == 0 || string(c.Spec.Service) == "null" {
		return nil, nil // served by the API server itself
	}
	if c.Spec.InsecureSkipTLSVerify {
		return nil, errors.New("spec.insecureSkipTLSVerify is true, beside which no spec.caBundle may be: remove it")
	}
	c.Spec = &spec{CABundle: c.Spec.CABundle}
	return []*[]byte{&c.Spec.CABundle}, nil
}

func ofConversion(c *content) ([]*[]byte, error) {
	if c.Spec == nil || c.Spec.Conversion == nil || c.Spec.Conversion.Strategy != "Webhook" {
		return nil, nil // no version is converted by others
	}
	w := c.Spec.Conversion.Webhook
	if w == nil {
		w = &conversionWebhook{}
	}
	c.Spec = &spec{Conversion: &conversion{Webhook: w}}
	return []*[]byte{&w.ClientConfig.CABundle}, nil
}

// Patch returns what is to be applied to an object so that each of its caBundles is what
// bundle makes of it; nil where all are right. An error tells why the object cannot have
// a bundle.
func (k *Kind) Patch(object []byte, bundle func(there []byte) []byte) ([]byte, error) {
	c := &content{}
	if err := json.Unmarshal(object, c); err != nil {
		return nil, fmt.Errorf("the API server's answer: %w", err)
	}
	fields, err := k.fields(c)
	if err != nil {
		return nil, err
	}
	changed := false
	for _, f := range fields {
		wanted := bundle(*f)
		changed = changed || !bytes.Equal(*f, wanted)
		*f = wanted
	}
	if !changed {
		return nil, nil
	}
	c.APIVersion, c.Kind = k.Group+"/"+k.Version, k.Kind
	return json.Marshal(c)
}
