package layout

import (
	"errors"
	"path"
	"slices"
	"strings"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/trust"
)

// configure completes the components with what the configuration files set that
// their flags name. One whose settings cannot be known then is taken out.
func (r *nodeReader) configure() {
	kept := r.node.Components[:0]
	for _, c := range r.node.Components {
		known := true
		switch c.Name {
		case catalog.Etcd:
			known = r.configureEtcd(&c)
		case catalog.Scheduler:
			r.configureClient(&c, "KubeSchedulerConfiguration")
		case catalog.KubeProxy:
			r.configureClient(&c, "KubeProxyConfiguration")
		case catalog.APIServer:
			r.configureAPIServer(&c)
		}
		if known {
			kept = append(kept, c)
		}
	}
	r.node.Components = kept
}

// readConfiguration reads the configuration file that a flag names. What cannot
// be read is noted; nothing is returned then.
func (r *nodeReader) readConfiguration(c *trust.Component, flag string) (at string, data []byte, ok bool) {
	value, set := c.Flag(flag)
	if !set || value == "" {
		return "", nil, false
	}
	at = absolute(value)
	content, err := r.read(at, false)
	if err != nil {
		r.addConfiguration(at, err)
		return at, nil, false
	}
	r.telling[path.Dir(at)] = true // so that what it names beside itself is missed
	return at, content.Data, true
}

// refuse notes that a component refuses a configuration file.
func (r *nodeReader) refuse(c *trust.Component, at string, err error) {
	c.Conflicts = append(c.Conflicts, refusedFile(r.place(at), c.Name, err))
}

// decodeKind decodes a configuration file of a kind. A version of its group that
// is none of those known is told by unknown: what it means is not known here.
func decodeKind(data []byte, kind, group string, versions []string, into any) (unknown string, err error) {
	var head struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
	}
	if err := decodeYAML(data, &head); err != nil {
		return "", err
	}
	if head.Kind != kind {
		return "", &fieldError{"kind", "is not " + kind}
	}
	version, ok := strings.CutPrefix(head.APIVersion, group+"/")
	if !ok {
		return "", &fieldError{"apiVersion", "is not of " + group}
	}
	if !slices.Contains(versions, version) {
		return head.APIVersion, nil
	}
	return "", decodeYAML(data, into)
}

// configureClient reads the configuration of kube-scheduler or kube-proxy, which
// takes the place of --kubeconfig (k/k cmd/kube-scheduler/app/options/options.go,
// cmd/kube-proxy/app/options.go).
func (r *nodeReader) configureClient(c *trust.Component, kind string) {
	at, data, ok := r.readConfiguration(c, "config")
	if !ok {
		return
	}
	var f struct {
		Kind             string `json:"kind"`
		ClientConnection struct {
			Kubeconfig string `json:"kubeconfig"`
		} `json:"clientConnection"`
	}
	err := decodeYAML(data, &f)
	if err == nil && f.Kind != kind {
		err = &fieldError{"kind", "is not " + kind}
	}
	if err != nil {
		r.refuse(c, at, err)
		return
	}
	delete(c.Flags, "kubeconfig")
	if f.ClientConnection.Kubeconfig != "" {
		r.set(c, "kubeconfig", r.seenBy(c, f.ClientConnection.Kubeconfig), at, "clientConnection.kubeconfig")
	}
}

// seenBy is the path on the node of a path as a component sees it.
func (r *nodeReader) seenBy(c *trust.Component, file string) string {
	return r.mounts[c.Source.Path].onNode(absolute(file))
}

// set sets a flag as a field of a configuration file does.
func (r *nodeReader) set(c *trust.Component, flag, value, at, field string) {
	if c.Settings == nil {
		c.Settings = map[string]trust.Place{}
	}
	c.Flags[flag], c.Settings[flag] = []string{value}, r.place(at).In(field)
}

// addConfiguration notes a configuration file that a component names and that
// cannot be read.
func (r *nodeReader) addConfiguration(at string, err *ReadError) {
	switch err.State {
	case trust.Denied: // said once for the node
	case trust.Missing:
		r.addAbsent(catalog.FileUse{Path: at, Role: trust.RoleConfiguration}, err)
	default:
		r.node.Materials = append(r.node.Materials, &trust.Material{Place: r.place(at), Role: trust.RoleConfiguration, State: err.State, Reason: err.Reason})
	}
}

// refusedFile is the conflict of a configuration file that a component refuses,
// which keeps it from starting.
func refusedFile(at trust.Place, who string, err error) trust.Conflict {
	c := trust.Conflict{Place: at, Reason: who + " refuses this file: " + err.Error(), Fix: "mend " + at.Path}
	var field *fieldError
	if errors.As(err, &field) {
		c.Place = at.In(field.field)
	}
	return c
}
