package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/kubepki/kubepki/lab/internal/cluster"
)

// inotify instances that components of Kubernetes 1.37 were seen to use.
const (
	watchesOfControlPlane = 7 + 8 + 3 // kube-apiserver, kube-controller-manager, kube-scheduler
	watchesOfNode         = 6 + 1     // kubelet, kube-proxy
	watchesOfPods         = 4
)

// sayWatches warns when the lab may need more inotify instances than a user may
// have: kubelets then do not start, and servers do not see that a file changed.
func sayWatches(talk io.Writer, wanted cluster.Wanted) {
	const file = "/proc/sys/fs/inotify/max_user_instances"
	data, err := os.ReadFile(file)
	if err != nil {
		return // a machine that does not say
	}
	limit, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil {
		return
	}
	spec, err := wanted.Cluster()
	if err != nil {
		return // create says it
	}
	need := len(spec.ControlPlanes) * watchesOfControlPlane
	if !wanted.WithoutKubelets {
		need += (len(spec.ControlPlanes)+len(spec.Workers))*watchesOfNode + watchesOfPods
	}
	if need > limit*9/10 {
		fmt.Fprintf(talk, "kubepki-lab: warning: this lab needs some %d inotify instances, and a user may have %d of them in all: sysctl fs.inotify.max_user_instances=%d\n", need, limit, 4*max(need, limit))
	}
}
