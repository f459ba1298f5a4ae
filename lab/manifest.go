package lab

import (
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"
)

// ManifestsDir is the folder, on a node, that kubeadm writes static-pod
// manifests to.
const ManifestsDir = "/etc/kubernetes/manifests"

// Manifest is what the lab needs to know to run a component: what a static-pod
// manifest says, or a systemd unit.
type Manifest struct {
	// Name is the component, as in etcd or kube-apiserver. It is unique on its
	// node.
	Name string
	// Command is the program's name and its arguments, as in the manifest.
	Command []string
	// Env is the environment, each NAME=VALUE; no more than that is handed on.
	Env []string
	// Probe is the URL that the kubelet would ask whether the component may be
	// used, from the node itself: its readiness probe, or, where it has none,
	// its startup probe. Nil: the component is ready as long as it runs.
	Probe *url.URL
}

// ReadManifest reads the static-pod manifest of a component below a node's
// root folder. The manifest must have exactly one container and a probe.
func ReadManifest(root, component string) (*Manifest, error) {
	path := filepath.Join(root, ManifestsDir, component+".yaml")
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the manifest of %s: %w", component, err)
	}
	var pod corev1.Pod
	if err := yaml.UnmarshalStrict(data, &pod); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if n := len(pod.Spec.Containers); n != 1 {
		return nil, fmt.Errorf("%s: spec.containers: %d containers; exactly one is wanted", path, n)
	}
	container := pod.Spec.Containers[0]
	if len(container.Command) == 0 || container.Command[0] != component {
		return nil, fmt.Errorf("%s: spec.containers[0].command: does not start %s", path, component)
	}
	probe, err := probeURL(container)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &Manifest{Name: component, Command: container.Command, Probe: probe}, nil
}

// probeURL tells what the kubelet would ask for.
func probeURL(c corev1.Container) (*url.URL, error) {
	probe := c.ReadinessProbe
	if probe == nil {
		probe = c.StartupProbe
	}
	if probe == nil || probe.HTTPGet == nil {
		return nil, fmt.Errorf("container %s: neither a readiness nor a startup probe by HTTP", c.Name)
	}
	port, err := portNumber(c, probe.HTTPGet.Port)
	if err != nil {
		return nil, err
	}
	scheme := map[corev1.URIScheme]string{corev1.URISchemeHTTP: "http", corev1.URISchemeHTTPS: "https"}[probe.HTTPGet.Scheme]
	if scheme == "" {
		return nil, fmt.Errorf("container %s: probe scheme %q", c.Name, probe.HTTPGet.Scheme)
	}
	host := net.JoinHostPort(probe.HTTPGet.Host, strconv.Itoa(port))
	return &url.URL{Scheme: scheme, Host: host, Path: probe.HTTPGet.Path}, nil
}

// portNumber looks a probe's port up among the container's ports.
func portNumber(c corev1.Container, port intstr.IntOrString) (int, error) {
	if port.Type == intstr.Int {
		return port.IntValue(), nil
	}
	for _, p := range c.Ports {
		if p.Name == port.StrVal {
			return int(p.ContainerPort), nil
		}
	}
	return 0, fmt.Errorf("container %s: the probe's port %q is none of its ports", c.Name, port.StrVal)
}
