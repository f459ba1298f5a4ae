package layout

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/trust"
)

// nodeReader collects what is read of one node.
type nodeReader struct {
	dir     *os.Root
	links   linkReader
	node    trust.Node
	keys    Keyring
	uses    map[string]catalog.FileUse // by path
	folders map[string]bool            // that hold private files
	telling map[string]bool            // that hold a private key or leaf certificate
	absent  []catalog.FileUse
	why     map[string]*ReadError // of absent files
	denied  []string              // paths
	mounts  map[string]mounts     // by the manifest
	units   *unitCache            // of all layouts of the node
}

func newNodeReader(dir *os.Root, name string) *nodeReader {
	return &nodeReader{
		dir: dir, links: seenLinks{dir, map[string]fs.FileInfo{}}, node: trust.Node{Name: name}, keys: Keyring{}, uses: map[string]catalog.FileUse{},
		folders: map[string]bool{}, telling: map[string]bool{}, why: map[string]*ReadError{}, mounts: map[string]mounts{}, units: &unitCache{},
	}
}

func (r *nodeReader) place(nodePath string) trust.Place {
	return trust.Place{Node: r.node.Name, Path: nodePath}
}

// stat returns what stands at a path, nil when nothing does.
func (r *nodeReader) stat(nodePath string) (fs.FileInfo, error) {
	at, err := resolve(r.links, nodePath)
	if err != nil || len(at.absent) > 0 {
		return nil, err
	}
	return r.links.Lstat(at.name)
}

// exists tells whether something stands at a path, and says yes where the right
// to look is missing, so that it is looked at and reported.
func (r *nodeReader) exists(nodePath string) bool {
	info, err := r.stat(nodePath)
	return info != nil || errors.Is(err, fs.ErrPermission)
}

func (r *nodeReader) isFolder(nodePath string) bool {
	info, err := r.stat(nodePath)
	return errors.Is(err, fs.ErrPermission) || err == nil && info != nil && info.IsDir()
}

func (r *nodeReader) isKubeadm() bool {
	if r.isFolder(catalog.KubernetesDir+"/pki") || r.isFolder(catalog.KubernetesDir+"/manifests") {
		return true
	}
	names, err := r.list(catalog.KubernetesDir)
	return errors.Is(err, fs.ErrPermission) ||
		slices.ContainsFunc(names, func(n string) bool { return strings.HasSuffix(n, ".conf") })
}

func (r *nodeReader) isService() bool {
	return r.exists("/ca.crt") && r.isFolder("/client") && r.isFolder("/server")
}

// maxEntries bounds the entries of a folder that are looked at.
const maxEntries = 1000

// list returns the sorted names in a folder but for those that start with a dot.
func (r *nodeReader) list(nodePath string) ([]string, error) {
	at, err := resolve(r.links, nodePath)
	if err != nil || len(at.absent) > 0 {
		return nil, err
	}
	f, err := r.dir.Open(at.name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	entries, _ := f.ReadDir(maxEntries) // the error is the end of the folder
	var names []string
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

// readKubeadm reads a node of kubeadm's layout.
func (r *nodeReader) readKubeadm() {
	manifests := r.readKubelet()
	r.addUnits()
	r.readManifests(manifests)
	r.addProcesses()
	if r.node.NodeName == "" { // kubeadm's own name for it goes before what its kubelet was told later
		r.nameNode()
	}
	catalog.Complete(&r.node, r.exists)
	for _, u := range catalog.FilesOf(&r.node) {
		r.use(u)
	}
	r.useKubeconfigs(path.Join(catalog.KubernetesDir, catalog.UsersDir))
	r.readFiles()
}

// readService reads the folder of two services that speak mutual TLS.
func (r *nodeReader) readService() {
	r.node.Components = []trust.Component{
		{Node: r.node.Name, Name: catalog.ServiceServer, Flags: map[string][]string{
			"tls-cert-file": {"/server/server.crt"}, "tls-private-key-file": {"/server/server.key"}, "client-ca-file": {"/ca.crt"},
		}},
		{Node: r.node.Name, Name: catalog.ServiceClient, Flags: map[string][]string{
			"cert": {"/client/client.crt"}, "key": {"/client/client.key"}, "cacert": {"/ca.crt"},
		}},
	}
	r.node.Authorities = catalog.AuthoritiesOf(&r.node)
	for _, u := range []catalog.FileUse{
		{Path: "/ca.crt", Role: trust.RoleAuthority},
		{Path: "/ca.key", Role: trust.RoleKey, Optional: true},
		{Path: "/server/server.crt", Role: trust.RoleCertificate},
		{Path: "/server/server.key", Role: trust.RoleKey},
		{Path: "/client/client.crt", Role: trust.RoleCertificate},
		{Path: "/client/client.key", Role: trust.RoleKey},
	} {
		r.use(u)
	}
	r.readFiles()
}

// readPods reads the static pods of a folder: all files in it, as the
// kubelet does, whatever their names end with. Without a folder there are none.
func (r *nodeReader) readPods(folder string) {
	var names []string
	var err error
	if folder != "" {
		names, err = r.list(folder)
	}
	if errors.Is(err, fs.ErrPermission) {
		r.denied = append(r.denied, folder)
	}
	for _, name := range names {
		at := path.Join(folder, name)
		content, err := r.read(at, false)
		if err != nil {
			if err.State != trust.Denied && err.Reason != "is a folder" {
				r.refused(at, "the manifest "+err.Reason)
			}
			continue
		}
		c, seen, parseErr := parseManifest(r.place(at), content.Data)
		switch {
		case errors.Is(parseErr, ErrNoComponent):
		case parseErr != nil:
			r.refused(at, "the manifest was not understood: "+parseErr.Error())
		default:
			seen.apply(&c, r.isFolder)
			r.mounts[at] = seen
			r.addComponent(c)
		}
	}
	r.nameStopped()
}

// refused notes a manifest that the kubelet does not run. Under the usual name of a
// component it is the component's own, and not a copy that somebody left there.
func (r *nodeReader) refused(at, reason string) {
	r.notSeen(at, reason)
	name := strings.TrimSuffix(path.Base(at), path.Ext(at))
	if slices.Contains(catalog.Components(), name) {
		r.node.NotSeen[len(r.node.NotSeen)-1].Stops = name
	}
}

// nameStopped takes back what refused said of a component that runs from another
// file.
func (r *nodeReader) nameStopped() {
	for i := range r.node.NotSeen {
		n := &r.node.NotSeen[i]
		if _, ok := find(r.node.Components, func(c trust.Component) bool { return c.Name == n.Stops && !c.Source.IsZero() }); ok {
			n.Stops = ""
		}
	}
}

// readManifests reads the static pods of a folder, and what kubeadm's etcd tells.
func (r *nodeReader) readManifests(folder string) {
	r.readPods(folder)
	r.configure()
	etcd, ok := find(r.node.Components, func(c trust.Component) bool { return c.Name == catalog.Etcd })
	if !ok {
		return
	}
	if isUnit(etcd.Source.Path) {
		return // its member has any name
	}
	r.node.NodeName, _ = etcd.Flag("name") // kubeadm names its members after the nodes
}

// addComponent adds a component of a manifest or unit. Of two manifests for one
// program, which the kubelet would run by turns, the one with the usual file name
// counts; of two units the first; of a manifest and a unit the manifest on
// kubeadm's nodes, else the unit.
func (r *nodeReader) addComponent(c trust.Component) {
	i := slices.IndexFunc(r.node.Components, func(have trust.Component) bool { return have.Name == c.Name })
	if i < 0 {
		r.node.Components = append(r.node.Components, c)
		return
	}
	have := r.node.Components[i]
	kept, dropped := have, c
	if r.prefers(c, have) {
		kept, dropped = c, have
	}
	r.node.Components[i] = kept
	if isUnit(dropped.Source.Path) || isUnit(kept.Source.Path) {
		r.notSeen(dropped.Source.Path, "configures "+c.Name+" too, as "+kept.Source.Path+" does, which was read: only one of them can run, take the other away")
		return
	}
	r.notSeen(dropped.Source.Path, "a second manifest for "+c.Name+" beside "+kept.Source.Path+": the kubelet reads both, move this one away")
}

func (r *nodeReader) prefers(c, have trust.Component) bool {
	switch {
	case isUnit(c.Source.Path):
		return false
	case isUnit(have.Source.Path):
		return r.node.Layout == catalog.LayoutKubeadm
	}
	return path.Base(c.Source.Path) == c.Name+".yaml"
}

func isUnit(file string) bool { return strings.Contains(file, "/systemd/system/") }

func (r *nodeReader) notSeen(nodePath, reason string) {
	r.node.NotSeen = append(r.node.NotSeen, trust.NotSeen{Place: r.place(nodePath), Reason: reason})
}
