package layout

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/trust"
)

// Names of layouts that other packages ask for; all of them are in catalog.
const (
	LayoutKubeadm = catalog.LayoutKubeadm
	LayoutService = catalog.LayoutService
)

// kind is one layout: how it is recognised and read. docs/layouts.md says how
// to add one.
type kind struct {
	name    string
	looked  string // what it is recognised by, for people
	found   func(*nodeReader) bool
	read    func(*nodeReader)
	depends func(*nodeReader) bool // nil, or whether it counts beside the others that are found
}

// kinds are the layouts that are known, in the order in which they are looked
// for. Several may be found below one root.
var kinds = []kind{
	{name: catalog.LayoutKubeadm, looked: "etc/kubernetes/{manifests,pki,*.conf}", found: (*nodeReader).isKubeadm, read: (*nodeReader).readKubeadm,
		depends: func(r *nodeReader) bool { return !r.onlyHardway() }},
	{name: catalog.LayoutHardway, looked: "etc/systemd/system/*.service that run components", found: (*nodeReader).isHardway, read: (*nodeReader).readHardway,
		depends: (*nodeReader).onlyHardway},
	{name: catalog.LayoutK3s, looked: "var/lib/rancher/k3s/{server/tls,agent}", found: (*nodeReader).isK3s, read: (*nodeReader).readK3s},
	{name: catalog.LayoutRKE2, looked: "var/lib/rancher/rke2/{server/tls,agent}", found: (*nodeReader).isRKE2, read: (*nodeReader).readRKE2},
	{name: catalog.LayoutK0s, looked: "var/lib/k0s/{pki,kubelet.conf}", found: (*nodeReader).isK0s, read: (*nodeReader).readK0s},
	{name: catalog.LayoutMicroK8s, looked: "var/snap/microk8s/current/args", found: (*nodeReader).isMicroK8s, read: (*nodeReader).readMicroK8s},
	{name: catalog.LayoutService, looked: "ca.crt with client/ and server/", found: (*nodeReader).isService, read: (*nodeReader).readService},
}

// Layouts are the names of the layouts that [Read] knows, in the order in which
// they are looked for.
func Layouts() []string {
	var names []string
	for _, k := range kinds {
		names = append(names, k.name)
	}
	return names
}

// Options are the options of [Read] and [ReadAll].
type Options struct {
	Name string // name of the node in places and components; may be empty
	// Layout is one of [Layouts]: it alone is read. Empty: all that are found.
	Layout string
	// Distribution, where it is set, leaves the layouts of others out.
	Distribution string
	// Processes is the folder that shows the processes of a node whose root is
	// the live "/", as /proc does; empty: they are not looked at.
	Processes string
}

// Reading is what was read of one node in one layout.
type Reading struct {
	Node trust.Node
	Keys Keyring
}

// UnknownError tells that a folder has none of the layouts that are known, or
// not the one that was asked for.
type UnknownError struct {
	Root   string   // as given
	Layout string   // that was asked for; empty: any
	Found  []string // the layouts that are there instead
}

// Error says what was looked for.
func (e *UnknownError) Error() string {
	var looked []string
	for _, k := range kinds {
		if k.name == e.Layout {
			return fmt.Sprintf("%s: no %s node: looked for %s", e.Root, k.name, k.looked)
		}
		looked = append(looked, fmt.Sprintf("%s (%s)", k.looked, k.name))
	}
	return e.Root + ": no credentials of a known layout: looked for " + strings.Join(looked, ", ")
}

// Hint says what to do.
func (e *UnknownError) Hint() string {
	if len(e.Found) > 0 {
		return "it is of layout " + strings.Join(e.Found, " and ") + ": leave --layout away"
	}
	return "name the folder that stands for a node's / with --root DIR"
}

// Read reads a node as [ReadAll] does, and returns the first of its layouts.
func Read(root string, o Options) (trust.Node, Keyring, error) {
	all, err := ReadAll(root, o)
	if err != nil {
		return trust.Node{}, nil, err
	}
	return all[0].Node, all[0].Keys, nil
}

// ReadAll reads everything below root, the folder that is a node's "/", that
// says something about its credentials: static-pod manifests, units, the
// kubelet's configuration, and each file that these and the layout name, once.
// The keys found are returned apart. Static pods and units of the same Kubernetes
// are one node; a distribution that brings all of its own (k3s, MicroK8s, …)
// beside it is another of the same name.
//
// A file that is absent is Missing when another private key or leaf certificate
// that belongs into the same folder is there, or when root is the live "/";
// else it is NotGiven, and one NotSeen names the folder. Files that may not be
// read make one NotSeen with Denied for the whole node. An error means that
// the root is no folder, or ([*UnknownError]) that nothing in it is known.
func ReadAll(root string, o Options) ([]Reading, error) {
	info, err := os.Stat(root)
	if err == nil && !info.IsDir() {
		return nil, fmt.Errorf("%s: is not a folder", root)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", root, Cause(err))
	}
	dir, err := os.OpenRoot(root)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", root, Cause(err))
	}
	defer dir.Close()
	slash, _ := os.Stat("/")
	live := slash != nil && os.SameFile(slash, info)
	first := newNodeReader(dir, o.Name)
	if live {
		first.units.running.folder = o.Processes
	}
	found := first.kinds()
	if o.Layout != "" {
		i := slices.IndexFunc(kinds, func(k kind) bool { return k.name == o.Layout })
		if i < 0 || !kinds[i].found(first) {
			return nil, &UnknownError{Root: root, Layout: o.Layout, Found: namesOf(found)}
		}
		found = kinds[i : i+1]
	}
	if there := namesOf(found); o.Distribution != "" && len(there) > 0 {
		found = slices.DeleteFunc(found, func(k kind) bool { return catalog.DistributionOf(k.name) != o.Distribution })
		if len(found) == 0 {
			return nil, &UnknownError{Root: root, Found: there}
		}
	}
	if len(found) == 0 {
		return nil, &UnknownError{Root: root}
	}
	var all []Reading
	for _, k := range found {
		r := newNodeReader(dir, o.Name)
		r.links, r.units = first.links, first.units
		r.node.Live, r.node.Layout = live, k.name
		k.read(r)
		all = append(all, Reading{Node: r.node, Keys: r.keys})
	}
	return all, nil
}

// Distributions are those whose layouts are found below root, none when it cannot
// be looked at.
func Distributions(root string) []string {
	dir, err := os.OpenRoot(root)
	if err != nil {
		return nil
	}
	defer dir.Close()
	r := newNodeReader(dir, "")
	var all []string
	for _, k := range kinds {
		if d := catalog.DistributionOf(k.name); !slices.Contains(all, d) && k.found(r) {
			all = append(all, d)
		}
	}
	if len(all) > 1 && !r.searchable("/etc", "/var/lib") {
		return all[:1] // each would be said to be there
	}
	return all
}

func namesOf(kinds []kind) []string {
	var names []string
	for _, k := range kinds {
		names = append(names, k.name)
	}
	return names
}

// kinds are the layouts that are there, in order.
func (r *nodeReader) kinds() []kind {
	var found []kind
	for _, k := range kinds {
		if k.found(r) && (k.depends == nil || k.depends(r)) {
			found = append(found, k)
		}
	}
	// Where the folders above all of them may not be searched, each would be
	// said to be there.
	if len(found) > 1 && !r.searchable("/etc", "/var/lib") {
		return found[:1]
	}
	return found
}

// searchable tells whether names in some folders may be looked up.
func (r *nodeReader) searchable(folders ...string) bool {
	return !slices.ContainsFunc(folders, func(folder string) bool {
		_, err := r.stat(folder + "/.")
		if err == nil {
			_, err = r.stat(folder + "/kubernetes")
		}
		return errors.Is(err, fs.ErrPermission)
	})
}
