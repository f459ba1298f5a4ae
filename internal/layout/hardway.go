package layout

import (
	"bytes"
	"path"
	"slices"
	"strings"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/trust"
)

// isHardway tells whether units run components, or some run at all, or units may
// not be read, or were not given with what they name.
func (r *nodeReader) isHardway() bool {
	if len(r.unitComponents()) > 0 || len(r.ownProcesses()) > 0 || len(r.units.denied) > 0 {
		return true
	}
	if slices.ContainsFunc(r.services(), func(s service) bool { return len(s.denied) > 0 }) {
		return true
	}
	return len(catalog.NamedHardway("", r.stands)) > 0
}

// stands tells whether something is seen to stand at a path.
func (r *nodeReader) stands(nodePath string) bool {
	info, err := r.stat(nodePath)
	return err == nil && info != nil
}

// onlyHardway tells whether the control plane is run by units and not by static
// pods, or nothing of kubeadm's is there. A kubelet or an etcd member run by
// systemd beside kubeadm's static pods is a part of kubeadm's node.
func (r *nodeReader) onlyHardway() bool {
	if !r.isHardway() {
		return false
	}
	if !r.isKubeadm() {
		return true
	}
	plane := slices.ContainsFunc(append(r.unitComponents(), r.ownProcesses()...), func(c trust.Component) bool {
		return slices.Contains([]string{catalog.APIServer, catalog.ControllerManager, catalog.Scheduler}, c.Name)
	})
	return plane && !r.hasStaticPods()
}

// hasStaticPods tells whether kubeadm's folder of static pods has one of the
// control plane.
func (r *nodeReader) hasStaticPods() bool {
	folder := path.Join(catalog.KubernetesDir, "manifests")
	names, _ := r.list(folder)
	return slices.ContainsFunc(names, func(name string) bool {
		content, err := readFile(r.dir, r.links, path.Join(folder, name))
		return err == nil && slices.ContainsFunc(programs, func(p string) bool { return bytes.Contains(content.Data, []byte(p)) })
	})
}

// readHardway reads a node whose components are run by units: what is where is
// said by their flags alone.
func (r *nodeReader) readHardway() {
	manifests := r.readKubelet()
	r.addUnits()
	r.readManifests(manifests)
	r.addProcesses()
	if len(r.node.Components) == 0 && len(r.denied) == 0 && !r.node.Live {
		r.node.Components = catalog.NamedHardway(r.node.Name, r.exists)
		r.notSeen(unitFolders[0], "no unit that runs a component is in what was given: the names of files, as kubernetes-the-hard-way has them, stand for the flags")
	}
	r.node.NodeName = "" // kubeadm alone calls its members after the nodes
	r.addKubeconfigsBeside()
	r.nameNode()
	catalog.CompleteHardway(&r.node, r.exists)
	for _, u := range catalog.FilesOf(&r.node) {
		r.use(u)
	}
	r.readFiles()
}

// nameNode takes the node's name from the kubelet's flag.
func (r *nodeReader) nameNode() {
	for i := range r.node.Components {
		if name, ok := r.node.Components[i].Flag("hostname-override"); ok && r.node.Components[i].Name == catalog.Kubelet {
			r.node.NodeName = strings.ToLower(strings.TrimSpace(name))
		}
	}
}

// addKubeconfigsBeside adds the kubeconfigs that no flag names and that stand
// beside what flags name, as kubectl's does: of admin, and of users.
func (r *nodeReader) addKubeconfigsBeside() {
	folders := []string{"/root", catalog.KubernetesDir}
	for _, u := range catalog.FilesOf(&r.node) {
		if folder := path.Dir(u.Path); !slices.Contains(folders, folder) {
			folders = append(folders, folder)
		}
	}
	named := map[string]bool{}
	for _, u := range catalog.FilesOf(&r.node) {
		named[u.Path] = true
	}
	for _, folder := range folders {
		names, _ := r.list(folder)
		for _, name := range names {
			at := path.Join(folder, name)
			switch stem, ext := path.Base(strings.TrimSuffix(name, path.Ext(name))), path.Ext(name); {
			case named[at] || ext != ".kubeconfig" && (ext != ".conf" || stem != catalog.Admin):
			case stem == catalog.Admin:
				r.addComponent(trust.Component{Node: r.node.Name, Name: catalog.Admin, Flags: map[string][]string{"kubeconfig": {at}}})
			case folder != "/root":
				r.use(catalog.FileUse{Path: at, Role: catalog.RoleKubeconfig, Optional: true})
			}
		}
	}
}
