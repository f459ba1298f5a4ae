package plan

import (
	"time"

	"github.com/kubepki/kubepki/internal/catalog"
)

// Versions are those that run, each as catalog.Reload takes it. Where several
// run side by side the oldest counts: later ones reload no less.
type Versions struct {
	// Kubernetes is of the components of the nodes, kubelets included: these
	// may be three minor versions older than the API server.
	Kubernetes string
	Etcd       string
	// Programs is of the libraries client-go and k8s.io/apiserver that pods and
	// extension apiservers were built with, named by the Kubernetes that they
	// belong to: v1.36.2 for client-go v0.36.2. It is not the cluster's. Empty:
	// not known, and all of them must be made anew.
	Programs string
}

// Measured returns the table of package catalog, measured on the real
// components, as [Reloads]. What is not in it has to be restarted, and so do
// all components of versions that it does not know. What is said to happen by
// itself takes place when files are renamed over or rewritten
// (catalog.Takeup.Notified); the gate must be seen to hold all the same.
//
// To restart a pod or a bearer of a token is to make it anew (kubectl rollout
// restart): a container that is restarted keeps its volume.
func Measured(v Versions) Reloads {
	type asked struct{ component, setting string }
	table := map[asked]Reload{}
	for _, row := range catalog.Reloads() {
		version := v.Kubernetes
		if row.Component == catalog.Etcd {
			version = v.Etcd
		}
		if row.Component == catalog.Pod || row.Component == catalog.Kubelet && ownTransport(row.Setting) {
			continue
		}
		table[asked{row.Component, row.Setting}] = takeup(catalog.Reload(row.Component, row.Setting, version))
	}
	for _, p := range []asked{{pods, SettingRootCA}, {extensionAPIServer, SettingAuthentication}, {tokenBearers, SettingTokens}} {
		table[p] = programs(p.setting, v.Programs)
	}
	return func(component, setting string) Reload {
		if how, ok := table[asked{component, setting}]; ok {
			return how
		}
		return Reload{Uptake: Restart}
	}
}

// ownTransport are the settings with which a kubelet dials. One that rotates
// its certificate, as kubeadm's do, makes a transport of its own and reads both
// files at its start alone (k/k pkg/kubelet/certificate/transport.go). The
// matrix has them of a kubelet that does not rotate, and a setting alone does
// not tell which it is.
func ownTransport(setting string) bool {
	return setting == SettingCAPath || setting == SettingCertificatePath
}

// takeup maps what was measured. What a component writes by itself it holds in
// memory, so that another's file is read at its start alone.
func takeup(t catalog.Takeup, known bool) Reload {
	switch {
	case known && t.Manner == catalog.AtHandshake:
		return Reload{Uptake: AtOnce}
	case known && t.Manner == catalog.ByItself:
		return Reload{Uptake: Within, Within: t.Within + margin}
	}
	return Reload{Uptake: Restart}
}

const (
	// margin is for what comes on top of an interval of the source: 301 s were
	// seen where it says 300 (docs/reload.md).
	margin = 30 * time.Second
	// volumeDelay is how long a kubelet may take to write what an object holds
	// into a pod's volume: it looks after each pod once a minute, or half a
	// minute later (k/k pkg/kubelet/pod_workers.go).
	volumeDelay = 2 * time.Minute
	// tokenDelay is the age at which a kubelet has replaced any mounted token,
	// however long it is valid (k/k pkg/kubelet/token/token_manager.go, maxTTL).
	tokenDelay = 24 * time.Hour
	// watchDelay bounds how long a watch takes to deliver an object.
	watchDelay = time.Minute
)

// programs is how what runs in pods takes up what the API carries.
func programs(setting, version string) Reload {
	file, delay := "", time.Duration(0)
	switch setting {
	case SettingRootCA:
		file, delay = "ca.crt", volumeDelay
	case SettingTokens:
		file, delay = "token", tokenDelay+volumeDelay
	case SettingAuthentication:
		// Extension apiservers watch the object (k8s.io/apiserver
		// pkg/server/dynamiccertificates/configmap_cafile_content.go). That is not
		// in the matrix, so only the versions are asked for that it knows.
		if _, known := catalog.Reload(catalog.Pod, "ca.crt", version); known {
			return Reload{Uptake: Within, Within: watchDelay}
		}
	}
	how := takeup(catalog.Reload(catalog.Pod, file, version))
	if how.Uptake == Within {
		how.Within += delay
	}
	return how
}
