package layout

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/trust"
)

// rank orders roles for a file that is used in several: the one that asks most
// of the file comes first.
var rank = []trust.Role{
	catalog.RoleKubeconfig, catalog.RoleRemoteKubeconfig, trust.RoleCombined, trust.RoleKey, trust.RoleCertificate,
	trust.RoleAuthority, trust.RoleBundle, trust.RoleVerifyKeys,
}

// use adds a file to those that are read, each once.
func (r *nodeReader) use(u catalog.FileUse) {
	u.Path = path.Clean(u.Path)
	have, ok := r.uses[u.Path]
	if ok {
		u.Role = commonRole(have.Role, u.Role)
		u.Optional = have.Optional && u.Optional
	}
	r.uses[u.Path] = u
}

func commonRole(a, b trust.Role) trust.Role {
	both := []trust.Role{a, b}
	if slices.Contains(both, trust.RoleKey) && slices.Contains(both, trust.RoleCertificate) {
		return trust.RoleCombined
	}
	if slices.Index(rank, a) <= slices.Index(rank, b) {
		return a
	}
	return b
}

// readFiles reads what [nodeReader.use] collected: kubeconfigs first, for they
// name other files.
func (r *nodeReader) readFiles() {
	for _, p := range slices.Sorted(maps.Keys(r.uses)) {
		if u := r.uses[p]; isKubeconfig(u.Role) {
			r.readKubeconfig(u)
		}
	}
	for _, p := range slices.Sorted(maps.Keys(r.uses)) {
		if u := r.uses[p]; !isKubeconfig(u.Role) {
			r.readMaterial(u)
		}
	}
	r.decideAbsent()
	r.addFolders()
	r.addDenied()
}

func isKubeconfig(role trust.Role) bool {
	return role == catalog.RoleKubeconfig || role == catalog.RoleRemoteKubeconfig
}

// read reads a file and notes its mode.
func (r *nodeReader) read(nodePath string, private bool) (Content, *ReadError) {
	content, err := readFile(r.dir, r.links, nodePath)
	var failed *ReadError
	if errors.As(err, &failed) && failed.State != trust.Denied {
		return content, failed
	}
	if failed != nil {
		r.denied = append(r.denied, nodePath)
		if content.UID < 0 {
			return content, failed // not even seen
		}
	}
	r.node.Files = append(r.node.Files, trust.File{
		Place: r.place(nodePath), Mode: uint32(content.Mode), UID: content.UID, Private: private,
	})
	if private {
		r.holdsPrivate(nodePath, content.Target)
	}
	return content, failed
}

func (r *nodeReader) holdsPrivate(nodePath, target string) {
	r.folders[path.Dir(nodePath)] = true
	if target != "" {
		r.folders[path.Dir(target)] = true
	}
}

func (r *nodeReader) readKubeconfig(u catalog.FileUse) {
	remote := u.Role == catalog.RoleRemoteKubeconfig
	content, err := r.read(u.Path, !remote)
	if err != nil {
		if err.State == trust.Missing {
			r.addAbsent(u, err)
			return
		}
		r.telling[path.Dir(u.Path)] = true
		r.node.Kubeconfigs = append(r.node.Kubeconfigs, trust.Kubeconfig{Place: r.place(u.Path), State: err.State, Reason: err.Reason, Remote: remote})
		return
	}
	r.telling[path.Dir(u.Path)] = true
	k, materials, keys := ParseKubeconfig(r.place(u.Path), content.Data)
	k.Remote = remote
	r.node.Kubeconfigs = append(r.node.Kubeconfigs, k)
	if remote && k.Secret {
		r.makePrivate(u.Path, "") // one that leads to a webhook may hold nothing private
	}
	r.node.Materials = append(r.node.Materials, materials...)
	maps.Copy(r.keys, keys)
	for _, f := range []struct {
		at   trust.Place
		role trust.Role
	}{{k.CA, trust.RoleBundle}, {k.Certificate, trust.RoleCertificate}, {k.Key, trust.RoleKey}} {
		if !f.at.IsZero() && f.at.Field == "" {
			r.use(catalog.FileUse{Path: f.at.Path, Role: f.role})
		}
	}
}

func (r *nodeReader) readMaterial(u catalog.FileUse) {
	secret := u.Role == trust.RoleKey || u.Role == trust.RoleCombined
	content, err := r.read(u.Path, secret)
	if err != nil && err.State == trust.Missing {
		r.addAbsent(u, err)
		return
	}
	if secret || u.Role == trust.RoleCertificate {
		r.telling[path.Dir(u.Path)] = true
	}
	at := r.place(u.Path)
	if err != nil {
		r.node.Materials = append(r.node.Materials, &trust.Material{Place: at, Role: u.Role, State: err.State, Reason: err.Reason, Target: content.Target})
		return
	}
	m, key := ParseMaterial(at, u.Role, content.Data)
	m.Target = content.Target
	r.node.Materials = append(r.node.Materials, m)
	if key != nil {
		r.keys[at] = key
	}
	if key != nil && !secret {
		r.node.Files[len(r.node.Files)-1].Private = true
		r.holdsPrivate(u.Path, content.Target)
	}
}

func (r *nodeReader) addAbsent(u catalog.FileUse, why *ReadError) {
	if u.Optional && !why.dangling {
		return
	}
	r.absent = append(r.absent, u)
	r.why[u.Path] = why
}

// decideAbsent tells Missing from NotGiven when all else has been read.
func (r *nodeReader) decideAbsent() {
	notGiven := map[string][]string{} // names by folder
	guessing := r.guesses()
	for _, u := range r.absent {
		folder, why := path.Dir(u.Path), r.why[u.Path]
		state, reason := trust.Missing, why.Reason
		switch {
		case why.dangling:
		case guessing:
			state, reason = trust.NotGiven, "is named by a guess"
		case !r.node.Live && !r.telling[folder] && !r.workerLacks(u) && !r.kubeletLacks(folder):
			state, reason = trust.NotGiven, "is not in what was given"
			notGiven[folder] = append(notGiven[folder], path.Base(u.Path))
		}
		if isKubeconfig(u.Role) {
			r.node.Kubeconfigs = append(r.node.Kubeconfigs, trust.Kubeconfig{Place: r.place(u.Path), State: state, Reason: reason, Remote: u.Role == catalog.RoleRemoteKubeconfig})
			continue
		}
		r.node.Materials = append(r.node.Materials, &trust.Material{Place: r.place(u.Path), Role: u.Role, State: state, Reason: reason})
	}
	for _, folder := range slices.Sorted(maps.Keys(notGiven)) {
		r.notSeen(folder, listed(notGiven[folder])+": named by the node's configuration, and not in what was given")
	}
	slices.SortStableFunc(r.node.Kubeconfigs, func(a, b trust.Kubeconfig) int { return a.Place.Compare(b.Place) })
	slices.SortStableFunc(r.node.Materials, func(a, b *trust.Material) int { return a.Place.Compare(b.Place) })
}

// workerLacks tells of one of the two files that kubeadm leaves on a worker, where
// the other is there: kubelet.conf, and the cluster's authority in a folder that was
// given and holds nothing.
func (r *nodeReader) workerLacks(u catalog.FileUse) bool {
	conf, pki := catalog.Conf("kubelet.conf"), catalog.KubernetesDir+"/pki"
	if len(r.node.Components) != 1 || r.node.Components[0].Name != catalog.Kubelet || r.node.Layout != catalog.LayoutKubeadm {
		return false
	}
	switch u.Path {
	case conf:
		return r.exists(pki + "/ca.crt")
	case pki + "/ca.crt":
		names, err := r.list(pki)
		return r.exists(conf) && r.isFolder(pki) && err == nil && len(names) == 0
	}
	return false
}

// kubeletLacks tells whether a folder is the one in which a kubelet keeps its pairs, and
// was given: when the link to the newest of them is gone, nothing else in it is read.
func (r *nodeReader) kubeletLacks(folder string) bool {
	return folder == "/var/lib/kubelet/pki" && r.isFolder(folder)
}

func files(n int) string {
	if n == 1 {
		return "1 file"
	}
	return fmt.Sprintf("%d files", n)
}

// listed names some of many files, and counts the others.
func listed(names []string) string {
	const shown = 4
	slices.Sort(names)
	if names = slices.Compact(names); len(names) > shown+1 {
		return fmt.Sprintf("%s and %d more files", strings.Join(names[:shown], ", "), len(names)-shown)
	}
	return strings.Join(names, ", ")
}

// addFolders notes the modes of the folders that hold private files.
func (r *nodeReader) addFolders() {
	for _, folder := range slices.Sorted(maps.Keys(r.folders)) {
		info, err := r.stat(folder)
		if err != nil || info == nil {
			continue
		}
		r.node.Files = append(r.node.Files, trust.File{
			Place: r.place(folder), Mode: uint32(info.Mode().Perm()), UID: owner(info), IsDir: true, Private: true,
		})
	}
	slices.SortStableFunc(r.node.Files, func(a, b trust.File) int { return a.Place.Compare(b.Place) })
}

// guesses tells whether what configures the components may not be read, so that
// the layout's defaults stand for it: what these name may be nowhere.
func (r *nodeReader) guesses() bool {
	return slices.ContainsFunc(r.denied, func(p string) bool { _, named := r.uses[p]; return !named })
}

// addDenied says once for the node that rights are missing.
func (r *nodeReader) addDenied() {
	if len(r.denied) == 0 {
		return
	}
	at := path.Dir(r.denied[0])
	for _, p := range r.denied[1:] {
		at = commonFolder(at, path.Dir(p))
	}
	r.node.NotSeen = append(r.node.NotSeen, trust.NotSeen{
		Place: r.place(at), Denied: true,
		Reason: fmt.Sprintf("needs to read %s of this node, for which the permission is missing: run with sudo", files(len(slices.Compact(slices.Sorted(slices.Values(r.denied)))))),
	})
}

func commonFolder(a, b string) string {
	for a != b {
		if len(a) > len(b) {
			a = path.Dir(a)
		} else {
			b = path.Dir(b)
		}
	}
	return a
}
