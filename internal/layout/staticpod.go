package layout

import (
	"encoding/json"
	"errors"
	"net"
	"strconv"
	"time"

	"github.com/kubepki/kubepki/internal/trust"
)

// StaticPod is what the manifest of a static pod says of the pod itself and of the
// container that runs a component.
type StaticPod struct {
	Name, Namespace string
	Container       string
	// Grace is how long the container is given to end by itself.
	Grace time.Duration
	// Health is the URL at which the kubelet asks whether it is ready, or else alive;
	// empty where it asks none.
	Health string
}

// defaultGrace is that of the API (k8s.io/api/core/v1 PodSpec).
const defaultGrace = 30 * time.Second

// probedPod has the fields of a Pod that pod has not.
type probedPod struct {
	Metadata struct {
		Namespace string `json:"namespace"`
	} `json:"metadata"`
	Spec struct {
		Grace      *int64            `json:"terminationGracePeriodSeconds"`
		Containers []probedContainer `json:"containers"`
	} `json:"spec"`
}

type probedContainer struct {
	Name      string           `json:"name"`
	Readiness *probeOfManifest `json:"readinessProbe"`
	Liveness  *probeOfManifest `json:"livenessProbe"`
	Startup   *probeOfManifest `json:"startupProbe"`
	Ports     []struct {
		Name string `json:"name"`
		Port int    `json:"containerPort"`
	} `json:"ports"`
}

type probeOfManifest struct {
	HTTPGet *struct {
		Host   string          `json:"host"`
		Path   string          `json:"path"`
		Port   json.RawMessage `json:"port"` // a number or the name of one
		Scheme string          `json:"scheme"`
	} `json:"httpGet"`
}

// ParseStaticPod reads of a manifest (YAML or JSON) what [ParseManifest] does not
// tell. A Pod that runs no component is [ErrNoComponent].
func ParseStaticPod(data []byte) (StaticPod, error) {
	var p pod
	var more probedPod
	if len(data) > MaxFile {
		return StaticPod{}, errors.New("larger than 1 MiB: not a manifest")
	}
	if err := decodeYAML(data, &p); err != nil {
		return StaticPod{}, err
	}
	if err := decodeYAML(data, &more); err != nil {
		return StaticPod{}, err
	}
	name, err := containerOfComponent(&p)
	if err != nil {
		return StaticPod{}, err
	}
	s := StaticPod{Name: p.Metadata.Name, Namespace: more.Metadata.Namespace, Container: name, Grace: defaultGrace}
	if s.Namespace == "" {
		s.Namespace = "default"
	}
	if g := more.Spec.Grace; g != nil && *g >= 0 && *g < int64(24*time.Hour/time.Second) {
		s.Grace = time.Duration(*g) * time.Second
	}
	for _, c := range more.Spec.Containers {
		if c.Name == name {
			s.Health = c.health()
		}
	}
	return s, nil
}

// containerOfComponent is the name of the container that ParseManifest reads.
func containerOfComponent(p *pod) (string, error) {
	for _, c := range p.Spec.Containers {
		name, _ := c.program()
		if name == "" && len(c.Command) == 0 {
			name, _ = c.named(p.Metadata.Name)
		}
		if name != "" {
			return c.Name, nil
		}
	}
	return "", ErrNoComponent
}

// health is the URL of a container's first probe by HTTP, as the kubelet asks it of
// a pod in its node's network (k/k pkg/kubelet/prober/prober.go).
func (c *probedContainer) health() string {
	for _, p := range []*probeOfManifest{c.Readiness, c.Startup, c.Liveness} {
		if p == nil || p.HTTPGet == nil {
			continue
		}
		port := c.port(p.HTTPGet.Port)
		if port == "" {
			continue
		}
		scheme, host := "http", p.HTTPGet.Host
		if p.HTTPGet.Scheme == "HTTPS" {
			scheme = "https"
		}
		if host == "" {
			host = "127.0.0.1"
		}
		return scheme + "://" + net.JoinHostPort(host, port) + p.HTTPGet.Path
	}
	return ""
}

func (c *probedContainer) port(raw json.RawMessage) string {
	var number int
	if json.Unmarshal(raw, &number) == nil && number > 0 && number < 1<<16 {
		return strconv.Itoa(number)
	}
	var name string
	if json.Unmarshal(raw, &name) != nil {
		return ""
	}
	for _, p := range c.Ports {
		if p.Name == name && p.Port > 0 && p.Port < 1<<16 {
			return strconv.Itoa(p.Port)
		}
	}
	return ""
}

// Running are the components that run, in the order of their numbers, as a folder
// shows them that is /proc. What may not be seen is passed over.
func Running(folder string) []trust.Process {
	r := &nodeReader{units: &unitCache{running: processCache{folder: folder}}}
	var all []trust.Process
	for _, p := range r.processes() {
		all = append(all, trust.Process{PID: p.pid, Component: p.name, Flags: parseFlags(p.words), Apart: p.apart})
	}
	return all
}
