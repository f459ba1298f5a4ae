package layout

import (
	"path"
	"strconv"
	"strings"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/trust"
)

// kubeletConfiguration has the fields of k8s.io/kubelet/config/v1beta1
// KubeletConfiguration that matter to trust.
type kubeletConfiguration struct {
	Kind               string `json:"kind"`
	StaticPodPath      string `json:"staticPodPath"`
	TLSCertFile        string `json:"tlsCertFile"`
	TLSPrivateKeyFile  string `json:"tlsPrivateKeyFile"`
	RotateCertificates *bool  `json:"rotateCertificates"`
	ServerTLSBootstrap *bool  `json:"serverTLSBootstrap"`
	ReadOnlyPort       *int32 `json:"readOnlyPort"`
	Address            string `json:"address"`
	Port               int32  `json:"port"`
	Authentication     struct {
		X509 struct {
			ClientCAFile string `json:"clientCAFile"`
		} `json:"x509"`
		Anonymous struct {
			Enabled *bool `json:"enabled"`
		} `json:"anonymous"`
	} `json:"authentication"`
	Authorization struct {
		Mode string `json:"mode"`
	} `json:"authorization"`
}

// ParseKubeletConfiguration reads a KubeletConfiguration (YAML or JSON) and
// returns the kubelet with what it sets, under the names of the flags that
// mean the same: client-ca-file, anonymous-auth, tls-cert-file,
// tls-private-key-file, rotate-certificates, server-tls-bootstrap,
// authorization-mode, read-only-port, address, port and pod-manifest-path (k/k
// cmd/kubelet/app/options/options.go). What it does not set is not there.
func ParseKubeletConfiguration(place trust.Place, data []byte) (trust.Component, error) {
	c := trust.Component{Node: place.Node, Name: catalog.Kubelet, Source: place, Flags: map[string][]string{}}
	var k kubeletConfiguration
	if err := decodeYAML(data, &k); err != nil {
		return c, err
	}
	if k.Kind != "" && k.Kind != "KubeletConfiguration" {
		return c, &fieldError{"kind", "is not KubeletConfiguration"}
	}
	for flag, value := range map[string]string{
		"client-ca-file":       k.Authentication.X509.ClientCAFile,
		"tls-cert-file":        k.TLSCertFile,
		"tls-private-key-file": k.TLSPrivateKeyFile,
		"authorization-mode":   k.Authorization.Mode,
		"pod-manifest-path":    k.StaticPodPath,
		"address":              k.Address,
		"anonymous-auth":       formatBool(k.Authentication.Anonymous.Enabled),
		"rotate-certificates":  formatBool(k.RotateCertificates),
		"server-tls-bootstrap": formatBool(k.ServerTLSBootstrap),
	} {
		if value != "" {
			c.Flags[flag] = []string{value}
		}
	}
	if k.Port != 0 {
		c.Flags["port"] = []string{strconv.Itoa(int(k.Port))}
	}
	if k.ReadOnlyPort != nil {
		c.Flags["read-only-port"] = []string{strconv.Itoa(int(*k.ReadOnlyPort))}
	}
	return c, nil
}

func formatBool(b *bool) string {
	if b == nil {
		return ""
	}
	return strconv.FormatBool(*b)
}

// readKubelet reads the kubelet's configuration and kubeadm's additional flags
// for it, and returns the folder of the static pods.
func (r *nodeReader) readKubelet() string {
	if c, ok := r.unitKubelet(); ok {
		return r.readUnitKubelet(c)
	}
	config, extra := path.Join(catalog.KubeletDir, "config.yaml"), path.Join(catalog.KubeletDir, "kubeadm-flags.env")
	kubelet := trust.Component{Node: r.node.Name, Name: catalog.Kubelet, Flags: map[string][]string{}}
	found := false
	switch content, err := r.read(config, false); {
	case err == nil:
		c, parseErr := ParseKubeletConfiguration(r.place(config), content.Data)
		if parseErr != nil {
			r.notSeen(config, "the kubelet's configuration was not understood: "+parseErr.Error())
			break
		}
		kubelet, found = c, true
	case err.State == trust.Unreadable:
		r.notSeen(config, "the kubelet's configuration "+err.Reason)
	}
	if content, err := r.read(extra, false); err == nil {
		// On the command line, so they win over the configuration.
		for flag, values := range kubeadmFlags(string(content.Data)) {
			kubelet.Flags[flag] = append(kubelet.Flags[flag], values...)
			found = true
		}
	}
	if found {
		r.node.Components = append(r.node.Components, kubelet)
	}
	if folder, ok := kubelet.Flag("pod-manifest-path"); ok && path.IsAbs(folder) {
		return path.Clean(folder)
	}
	return path.Join(catalog.KubernetesDir, "manifests")
}

// kubeadmFlags reads the flags of a systemd environment file in which kubeadm
// sets KUBELET_KUBEADM_ARGS (k/k cmd/kubeadm/app/phases/kubelet/flags.go).
func kubeadmFlags(text string) map[string][]string {
	for _, command := range splitShell(text) {
		for _, word := range command {
			value, ok := strings.CutPrefix(word, "KUBELET_KUBEADM_ARGS=")
			if !ok {
				continue
			}
			if commands := splitShell(value); len(commands) > 0 {
				return parseFlags(commands[0])
			}
		}
	}
	return nil
}
