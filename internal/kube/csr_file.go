package kube

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	strictjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"github.com/kubepki/kubepki/internal/csr"
	"github.com/kubepki/kubepki/internal/yamldoc"
)

// The sizes in bytes up to which files with objects are read: YAML takes many
// times its size in memory while it is read.
const (
	MaxFile = 256 << 20
	maxYAML = 32 << 20
)

// ParseRequests reads the CertificateSigningRequests of a file in YAML or JSON:
// one, several documents, or a List as kubectl get -o yaml prints it. Anything
// else in it is an error, and so is a field that certificates.k8s.io/v1 does
// not have, a field that is there twice, and a file without any: a verdict on
// half of what was meant would be none.
func ParseRequests(data []byte) ([]csr.Request, error) {
	all, err := objects(data, "CertificateSigningRequest")
	if err != nil {
		return nil, err
	}
	var requests []csr.Request
	for _, o := range all {
		r, err := o.request()
		if err != nil {
			return nil, o.wrap(err)
		}
		requests = append(requests, Request(r))
	}
	if len(requests) == 0 {
		return nil, errors.New("holds no CertificateSigningRequest")
	}
	return requests, nil
}

// ParseNodes reads the Nodes of a file in YAML or JSON: one, several documents,
// or a List or NodeList, which may be empty. Fields that v1 does not know are
// passed over: a newer cluster may have them, and they decide nothing. A field
// that is there twice is an error.
func ParseNodes(data []byte) ([]csr.Node, error) {
	all, err := objects(data, "Node")
	if err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	var nodes []csr.Node
	for _, o := range all {
		n, err := o.node()
		if err == nil && seen[n.Name] {
			err = fmt.Errorf("node %q is there twice", n.Name)
		}
		if err != nil {
			return nil, o.wrap(err)
		}
		seen[n.Name] = true
		nodes = append(nodes, Node(n))
	}
	return nodes, nil
}

// object is one object of a file, still in JSON.
type object struct {
	where string // in the file; "" where it is the only one
	kind  typeMeta
	raw   []byte
}

type typeMeta struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
}

func (o *object) wrap(err error) error {
	if o.where == "" {
		return err
	}
	return fmt.Errorf("%s: %w", o.where, err)
}

// is refuses an object of another kind or version.
func (o *object) is(apiVersion, kind string) error {
	switch {
	case o.kind.Kind == "":
		return fmt.Errorf("kind is not set, want %s", kind)
	case o.kind.Kind != kind:
		return fmt.Errorf("is a %.64q, not a %s", o.kind.Kind, kind)
	case o.kind.APIVersion != apiVersion:
		return fmt.Errorf("apiVersion is %.64q, want %s", o.kind.APIVersion, apiVersion)
	}
	return nil
}

// request decodes as the API server does with fieldValidation=Strict, and
// names a field that is absent or no base64.
func (o *object) request() (*certificatesv1.CertificateSigningRequest, error) {
	if err := o.is("certificates.k8s.io/v1", "CertificateSigningRequest"); err != nil {
		return nil, err
	}
	var bare struct {
		Spec *struct {
			Request *string `json:"request"`
		} `json:"spec"`
	}
	if err := strictjson.UnmarshalCaseSensitivePreserveInts(o.raw, &bare); err != nil {
		return nil, err
	}
	switch {
	case bare.Spec == nil:
		return nil, errors.New("spec is not set")
	case bare.Spec.Request == nil:
		return nil, errors.New("spec.request is not set")
	}
	if _, err := base64.StdEncoding.DecodeString(*bare.Spec.Request); err != nil {
		return nil, errors.New("spec.request is not base64")
	}
	r := &certificatesv1.CertificateSigningRequest{}
	strict, err := strictjson.UnmarshalStrict(o.raw, r)
	if err = errors.Join(append(strict, err)...); err != nil {
		return nil, err
	}
	if r.Spec.SignerName == "" {
		return nil, errors.New("spec.signerName is not set")
	}
	return r, nil
}

func (o *object) node() (*corev1.Node, error) {
	if err := o.is("v1", "Node"); err != nil {
		return nil, err
	}
	n := &corev1.Node{}
	strict, err := strictjson.UnmarshalStrict(o.raw, n, strictjson.DisallowDuplicateFields)
	if err = errors.Join(append(strict, err)...); err != nil {
		return nil, err
	}
	if n.Name == "" {
		return nil, errors.New("metadata.name is not set")
	}
	return n, nil
}

// objects returns the objects of a file that shall hold some of a kind, those
// of lists one by one.
func objects(data []byte, kind string) ([]object, error) {
	if len(data) > MaxFile {
		return nil, fmt.Errorf("larger than %d MiB", MaxFile>>20)
	}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	documents, err := documentsOf(data)
	if err != nil {
		return nil, err
	}
	if len(documents) == 0 {
		return nil, fmt.Errorf("is empty, want a %s", kind)
	}
	var all []object
	for i, d := range documents {
		o := object{raw: d}
		if len(documents) > 1 {
			o.where = fmt.Sprintf("document %d", i+1)
		}
		if err := strictjson.UnmarshalCaseSensitivePreserveInts(d, &o.kind); err != nil {
			return nil, o.wrap(errors.New("is no object of Kubernetes"))
		}
		if !strings.HasSuffix(o.kind.Kind, "List") {
			all = append(all, o)
			continue
		}
		if o.kind.Kind != "List" && o.kind.Kind != kind+"List" {
			return nil, o.wrap(fmt.Errorf("is a %.64q, not a %s or a list of them", o.kind.Kind, kind))
		}
		items, err := itemsOf(d)
		if err == nil {
			all, err = appendItems(all, o, items)
		}
		if err != nil {
			return nil, o.wrap(err)
		}
	}
	return all, nil
}

// itemsOf returns the items of a list. A second field of that name would hide the
// first.
func itemsOf(data []byte) ([]json.RawMessage, error) {
	var list struct {
		typeMeta
		Metadata json.RawMessage   `json:"metadata"`
		Items    []json.RawMessage `json:"items"`
	}
	strict, err := strictjson.UnmarshalStrict(data, &list)
	if err = errors.Join(append(strict, err)...); err != nil {
		return nil, err
	}
	return list.Items, nil
}

// appendItems adds the items of a list. Those of a typed list, as the API
// server itself sends it, carry neither kind nor version.
func appendItems(all []object, list object, items []json.RawMessage) ([]object, error) {
	for i, raw := range items {
		o := object{raw: raw, where: strings.TrimPrefix(list.where+": "+fmt.Sprintf("items[%d]", i), ": ")}
		if err := strictjson.UnmarshalCaseSensitivePreserveInts(raw, &o.kind); err != nil {
			return nil, fmt.Errorf("items[%d] is no object of Kubernetes", i)
		}
		if kind := strings.TrimSuffix(list.kind.Kind, "List"); kind != "" && o.kind == (typeMeta{}) {
			o.kind = typeMeta{APIVersion: list.kind.APIVersion, Kind: kind}
			raw, err := withKind(raw, o.kind)
			if err != nil {
				return nil, err
			}
			o.raw = raw
		}
		all = append(all, o)
	}
	return all, nil
}

// withKind puts kind and version into an object that has none.
func withKind(raw []byte, kind typeMeta) ([]byte, error) {
	head, err := json.Marshal(kind)
	if err != nil {
		return nil, err
	}
	rest := bytes.TrimSpace(raw)[1:] // it was an object
	if bytes.HasPrefix(bytes.TrimSpace(rest), []byte("}")) {
		return head, nil
	}
	return append(append(head[:len(head)-1], ','), rest...), nil
}

// documentsOf returns the documents of a file as JSON, without empty ones.
func documentsOf(data []byte) ([][]byte, error) {
	if bytes.HasPrefix(bytes.TrimSpace(data), []byte("{")) && !bytes.Contains(data, []byte("\n---")) {
		return jsonDocuments(data)
	}
	if len(data) > maxYAML {
		return nil, fmt.Errorf("larger than %d MiB of YAML: give it as JSON (kubectl get -o json)", maxYAML>>20)
	}
	var all [][]byte
	reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, fmt.Errorf("is not YAML: %w", err)
		}
		converted, err := yaml.YAMLToJSONStrict(document)
		if err == nil {
			err = yamldoc.Single(document)
		}
		if err != nil {
			return nil, fmt.Errorf("is not YAML: %s", strings.TrimPrefix(err.Error(), "yaml: "))
		}
		if string(converted) != "null" {
			all = append(all, converted)
		}
	}
}

func jsonDocuments(data []byte) ([][]byte, error) {
	var all [][]byte
	decoder := json.NewDecoder(bytes.NewReader(data))
	for {
		var one json.RawMessage
		err := decoder.Decode(&one)
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, fmt.Errorf("is not JSON: %w", err)
		}
		all = append(all, one)
	}
}
