package config

import (
	"errors"
	"strings"

	"github.com/kubepki/kubepki/internal/catalog"
)

// APIVersion is that of kubepki's own configuration and of its JSON output.
const APIVersion = "kubepki.dev/v1alpha1"

// Parse reads a configuration file. The name of the file is for messages
// alone. What the file leaves open is filled in from the host and from
// kubeadm's defaults. Every error is an [*Error] with the name of the file.
func Parse(name string, data []byte, host Host) (*catalog.Cluster, error) {
	c, err := parse(data, host)
	if err == nil {
		return c, nil
	}
	var e *Error
	if !errors.As(err, &e) {
		e = &Error{Cause: err.Error()}
	}
	named := *e
	named.File = name
	return nil, &named
}

func parse(data []byte, host Host) (*catalog.Cluster, error) {
	documents, err := split(data)
	if err != nil {
		return nil, err
	}
	var k kubeadm
	var own *document
	for i, d := range documents {
		group, _, _ := strings.Cut(d.APIVersion, "/")
		switch {
		case d.APIVersion == APIVersion && d.Kind == "Cluster":
			if own != nil {
				return nil, wrong("kind", "there are two documents of kind Cluster")
			}
			own = &documents[i]
		case group == "kubeadm.k8s.io":
			if err := k.add(d); err != nil {
				return nil, err
			}
		case group == "kubelet.config.k8s.io" || group == "kubeproxy.config.k8s.io":
			// kubeadm's files hold them too; they say nothing about what init makes.
		default:
			return nil, &Error{Field: "apiVersion", Cause: "a " + d.Kind + " of " + d.APIVersion + " is not read here",
				Help: "a configuration is kubeadm's InitConfiguration and ClusterConfiguration, or a Cluster of " + APIVersion}
		}
	}
	switch {
	case own != nil && k.given():
		return nil, wrong("apiVersion", "both kubeadm's configuration and a Cluster of %s are given, which contradict each other", APIVersion)
	case own != nil:
		return parseCluster(*own)
	case k.given():
		return k.cluster(host)
	}
	return nil, &Error{Cause: "holds neither kubeadm's InitConfiguration or ClusterConfiguration nor a Cluster of " + APIVersion}
}
