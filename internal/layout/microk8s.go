package layout

import (
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/kubepki/kubepki/internal/catalog"
)

const snapMicroK8s = "/var/snap/microk8s"

func (r *nodeReader) isMicroK8s() bool { return r.microK8sData() != "" }

// microK8sData is $SNAP_DATA: the link "current", or in a copy that lacks it the
// newest revision; "" when there is none.
func (r *nodeReader) microK8sData() string {
	if r.isFolder(snapMicroK8s + "/current/args") {
		return snapMicroK8s + "/current"
	}
	names, _ := r.list(snapMicroK8s)
	newest := 0
	for _, name := range names {
		if n, err := strconv.Atoi(name); err == nil && n > newest && r.isFolder(path.Join(snapMicroK8s, name, "args")) {
			newest = n
		}
	}
	if newest == 0 {
		return ""
	}
	return path.Join(snapMicroK8s, strconv.Itoa(newest))
}

func (r *nodeReader) readMicroK8s() {
	d := catalog.DistributionNamed(catalog.LayoutMicroK8s)
	data := r.microK8sData()
	for _, name := range []string{catalog.Kubelet, catalog.KubeProxy} {
		r.readArguments(data, name)
	}
	// A node that joined as a worker keeps the other files, and does not go by them.
	worker := r.exists(data + "/var/lock/clustered.lock")
	a := catalog.Arrangement{Data: data, Exists: r.exists, Partial: []string{catalog.Kubelet}}
	if worker {
		a.Without = []string{catalog.APIServer, catalog.ControllerManager, catalog.Scheduler, catalog.Etcd, catalog.Admin}
	} else {
		for _, name := range []string{catalog.APIServer, catalog.ControllerManager, catalog.Scheduler} {
			r.readArguments(data, name)
		}
		if servers, _ := r.component(catalog.APIServer).Flag("etcd-servers"); strings.HasPrefix(servers, "https://") {
			r.readArguments(data, catalog.Etcd) // before dqlite
		}
	}
	if kubelet, ok := r.component(catalog.Kubelet).Flag("hostname-override"); ok {
		r.node.NodeName = kubelet
	}
	d.Arrange(&r.node, a)
	r.finish(d, data)
}

// readArguments reads the file of a component's arguments: flags in lines, with
// variables of the snap.
func (r *nodeReader) readArguments(data, name string) {
	at := path.Join(data, "args", name)
	c := r.component(name)
	content, err := r.read(at, false)
	if err != nil {
		if r.isFolder(path.Dir(at)) {
			r.notSeen(at, "the arguments of "+name+": the file "+err.Reason)
		}
		return
	}
	c.Source = r.place(at)
	variables := map[string]string{"SNAP_DATA": data, "SNAP_COMMON": snapMicroK8s + "/common", "SNAP": "/snap/microk8s/current"}
	text := os.Expand(string(content.Data), func(name string) string {
		if v, ok := variables[name]; ok {
			return v
		}
		return "$" + name
	})
	var words []string
	for _, line := range splitShell(text) {
		words = append(words, line...)
	}
	c.Flags = parseFlags(words)
	r.sameRevision(c.Flags, data)
}

// sameRevision names files of the current revision as all others do.
func (r *nodeReader) sameRevision(flags map[string][]string, data string) {
	at, err := resolve(r.links, data)
	if err != nil || at.links == 0 {
		return
	}
	for _, values := range flags {
		for i, v := range values {
			if rest, ok := strings.CutPrefix(v, at.path()+"/"); ok {
				values[i] = path.Join(data, rest)
			}
		}
	}
}
