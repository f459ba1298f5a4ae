package objects

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/kubepki/kubepki/deploy"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/yaml"
)

// controller returns the manifests of kubepki controller as they are installed
// anywhere, but for the image, and for the address of the API server: the pod
// dials that of its own node, for nobody has programmed kube-proxy's filters yet.
func controller(v Values) ([]*unstructured.Unstructured, error) {
	data, err := deploy.Files.ReadFile("controller.yaml")
	if err != nil {
		return nil, err
	}
	server, err := v.ServerURL()
	if err != nil {
		return nil, err
	}
	all, err := decode(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	for _, o := range all {
		if o.GetKind() != "Deployment" {
			continue
		}
		containers, found, err := unstructured.NestedSlice(o.Object, "spec", "template", "spec", "containers")
		if err != nil || !found || len(containers) != 1 {
			return nil, errors.Join(errors.New("controller.yaml: the Deployment has not one container"), err)
		}
		container, ok := containers[0].(map[string]any)
		if !ok {
			return nil, fmt.Errorf("controller.yaml: the container is a %T", containers[0])
		}
		container["image"] = v.Image("kubepki")
		if args, ok := container["args"].([]any); ok && v.SigningDuration > 0 {
			container["args"] = append(args, "--cluster-signing-duration="+v.SigningDuration.String())
		}
		container["env"] = []any{
			map[string]any{"name": "KUBERNETES_SERVICE_HOST", "valueFrom": map[string]any{"fieldRef": map[string]any{"fieldPath": "status.hostIP"}}},
			map[string]any{"name": "KUBERNETES_SERVICE_PORT", "value": server.Port()},
		}
		if err := unstructured.SetNestedSlice(o.Object, containers, "spec", "template", "spec", "containers"); err != nil {
			return nil, err
		}
		if err := unstructured.SetNestedField(o.Object, int64(v.Controllers), "spec", "replicas"); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// decode reads the documents of a YAML text.
func decode(text io.Reader) ([]*unstructured.Unstructured, error) {
	var all []*unstructured.Unstructured
	for decoder := yaml.NewYAMLToJSONDecoder(text); ; {
		o := &unstructured.Unstructured{}
		err := decoder.Decode(o)
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		if len(o.Object) > 0 { // a document of comments alone
			all = append(all, o)
		}
	}
}
