package layout

import (
	"path"
	"strings"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/trust"
)

// kubeletLines are the files in which kubeadm's unit finds more flags of the
// kubelet, in the order of its ExecStart: kubeadm's own, and the operator's
// (k/release cmd/krel/templates/latest/kubeadm/10-kubeadm.conf).
var kubeletLines = []struct{ file, variable string }{
	{path.Join(catalog.KubeletDir, "kubeadm-flags.env"), "KUBELET_KUBEADM_ARGS"},
	{"/etc/default/kubelet", "KUBELET_EXTRA_ARGS"},
	{"/etc/sysconfig/kubelet", "KUBELET_EXTRA_ARGS"},
}

// readKubelet reads the kubelet's additional flags and its configuration, and
// returns the folder of the static pods.
func (r *nodeReader) readKubelet() string {
	if c, ok := r.unitKubelet(); ok {
		return r.readUnitKubelet(c)
	}
	kubelet := trust.Component{Node: r.node.Name, Name: catalog.Kubelet, Flags: map[string][]string{}, Settings: map[string]trust.Place{}}
	for _, line := range kubeletLines {
		content, err := r.read(line.file, false)
		if err != nil {
			continue
		}
		for flag, values := range flagsOf(string(content.Data), line.variable) {
			kubelet.Flags[flag] = append(kubelet.Flags[flag], values...)
			kubelet.Settings[flag] = r.place(line.file).In("--" + flag)
		}
	}
	r.configureKubelet(&kubelet, path.Join(catalog.KubeletDir, "config.yaml"), false)
	if len(kubelet.Flags) > 0 || !kubelet.Source.IsZero() || len(kubelet.Conflicts) > 0 {
		r.node.Components = append(r.node.Components, kubelet)
	}
	if folder, ok := kubelet.Flag("pod-manifest-path"); ok && path.IsAbs(folder) {
		return path.Clean(folder)
	}
	return path.Join(catalog.KubernetesDir, "manifests")
}

// flagsOf reads the flags of a systemd environment file that sets a variable to
// them (k/k cmd/kubeadm/app/phases/kubelet/flags.go writes one).
func flagsOf(text, variable string) map[string][]string {
	for _, command := range splitShell(text) {
		for _, word := range command {
			value, ok := strings.CutPrefix(word, variable+"=")
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
