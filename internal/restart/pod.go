package restart

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/trust"
)

// defaultFileCheck is how often a kubelet looks at its folder of manifests, besides
// being notified (k/k pkg/kubelet/apis/config/v1beta1/defaults.go).
const defaultFileCheck = 20 * time.Second

// podWay is how a static pod is restarted: by the container runtime, for then its
// manifest stays where it is, or else by moving that.
func (m *Machine) podWay(ctx context.Context, g *trust.Graph, t *Target) (way, string, error) {
	content, err := layout.ReadFile(m.Root, t.Source.Path)
	if err != nil {
		return nil, "", err
	}
	pod, err := layout.ParseStaticPod(content.Data)
	if err != nil {
		return nil, "", fmt.Errorf("%s: %w", t.Source.Path, err)
	}
	if err := m.needsKubelet(t); err != nil {
		return nil, "", err
	}
	kubelet := kubeletOf(g, t.Node)
	if m.By != ByManifest {
		w, err := m.containerWay(ctx, kubelet, pod)
		if err == nil {
			return w, "by the container runtime, the kubelet started it again", nil
		}
		if m.By == ByRuntime {
			return nil, "", err
		}
		m.say("%s: %v; its manifest is moved away and back instead", t.ID(), err)
	}
	written, err := layout.ParseManifest(t.Source, content.Data)
	if err != nil {
		return nil, "", fmt.Errorf("%s: %w", t.Source.Path, err)
	}
	return &manifestWay{
		machine: m, manifest: m.real(t.Source.Path), component: t.Component, flags: written.Flags, check: fileCheck(kubelet), pod: pod,
		before: livesOf(m.Procfs, t.Component, written.Flags), sees: len(livesOf(m.Procfs, catalog.Kubelet, nil)) > 0,
	}, "by its manifest, the kubelet started it again", nil
}

// real is the path of a manifest whose folder may be reached by links: those of
// [os.Root] must not be absolute, which on the machine's own "/" they may well be.
func (m *Machine) real(manifest string) string {
	if m.Root != "/" {
		return manifest
	}
	folder, err := filepath.EvalSymlinks(path.Dir(manifest))
	if err != nil {
		return manifest
	}
	return path.Join(folder, path.Base(manifest))
}

// needsKubelet refuses to end what nobody would start again. Where no process of the
// node is to be seen, as in a container, it is not known.
func (m *Machine) needsKubelet(t *Target) error {
	if len(livesOf(m.Procfs, t.Component, nil)) > 0 && len(livesOf(m.Procfs, catalog.Kubelet, nil)) == 0 {
		return &NoKubeletError{}
	}
	return nil
}

// NoKubeletError tells that no kubelet runs that would start a static pod.
type NoKubeletError struct{}

func (*NoKubeletError) Error() string {
	return "no kubelet runs on this node, which alone starts static pods"
}

// Hint tells how it is started.
func (*NoKubeletError) Hint() string {
	return "start the kubelet first (systemctl start kubelet; journalctl -u kubelet tells why it ended)"
}

// kubeletOf is the kubelet of a node, with no flags where none was read.
func kubeletOf(g *trust.Graph, node string) *trust.Component {
	for i := range g.Nodes {
		for j := range g.Nodes[i].Components {
			if c := &g.Nodes[i].Components[j]; g.Nodes[i].Name == node && c.Name == catalog.Kubelet {
				return c
			}
		}
	}
	return &trust.Component{Name: catalog.Kubelet}
}

func fileCheck(kubelet *trust.Component) time.Duration {
	v, _ := kubelet.Flag("file-check-frequency")
	if d, err := time.ParseDuration(v); err == nil && d > 0 && d < time.Hour {
		return d
	}
	return defaultFileCheck
}

// containerWay is a container that the runtime stops.
type containerWay struct {
	runtime *runtime
	pod     layout.StaticPod
	before  string // its id; empty: it did not run
	end     string // how it was last seen to have ended
}

func (m *Machine) containerWay(ctx context.Context, kubelet *trust.Component, pod layout.StaticPod) (way, error) {
	endpoint, _ := kubelet.Flag("container-runtime-endpoint")
	r, err := openRuntime(ctx, m.Root, endpoint)
	if err != nil {
		return nil, err
	}
	running, err := r.containers(ctx, pod, runtimeapi.ContainerState_CONTAINER_RUNNING)
	if err == nil && len(running) == 0 {
		var ended []*runtimeapi.Container
		if ended, err = r.containers(ctx, pod, runtimeapi.ContainerState_CONTAINER_EXITED); err == nil && len(ended) == 0 {
			err = fmt.Errorf("container runtime at %s has no container %s of a pod %s/%s-NODE", r.socket, pod.Container, pod.Namespace, pod.Name)
		}
	}
	if err == nil && len(running) > 1 {
		err = fmt.Errorf("container runtime at %s has %d containers %s of pods %s/%s-NODE", r.socket, len(running), pod.Container, pod.Namespace, pod.Name)
	}
	if err != nil {
		r.close()
		return nil, err
	}
	w := &containerWay{runtime: r, pod: pod}
	if len(running) == 1 {
		w.before = running[0].Id
	}
	return w, nil
}

// restart stops the container. One that does not run is started by the kubelet, after
// a pause of up to five minutes where it has ended often.
func (w *containerWay) restart(ctx context.Context) error {
	if w.before == "" {
		return nil
	}
	return w.runtime.stop(ctx, w.before, w.pod.Grace)
}

func (w *containerWay) now(ctx context.Context) (life, string, error) {
	running, err := w.runtime.containers(ctx, w.pod, runtimeapi.ContainerState_CONTAINER_RUNNING)
	if err != nil {
		return "", "", err
	}
	for _, c := range running {
		if c.Id != w.before {
			return life("container " + c.Id), "", nil
		}
	}
	said := "no new container of it runs (the kubelet waits, up to 5 minutes, before it starts one again that has ended often)"
	if end := w.runtime.lastEnd(ctx, w.pod); end != "" {
		w.end = end // kept, for the last look may find no time to ask again
	}
	if w.end != "" && len(running) == 0 {
		said += "; " + w.end
	}
	return "", said, nil
}

// over: the kubelet starts a static pod for ever.
func (w *containerWay) over(context.Context) bool { return false }

func (w *containerWay) look() string { return lookAtContainer(w.pod) }

func (w *containerWay) close() { w.runtime.close() }

func lookAtContainer(pod layout.StaticPod) string {
	return fmt.Sprintf("crictl ps -a --name %s; crictl logs CONTAINER, or what is below /var/log/pods/%s_%s-*; journalctl -u kubelet", pod.Container, pod.Namespace, pod.Name)
}

// manifestWay is a static pod whose manifest is moved away and back.
type manifestWay struct {
	machine   *Machine
	manifest  string
	component string
	flags     map[string][]string
	check     time.Duration // how often the kubelet looks
	pod       layout.StaticPod
	before    map[life]int // its processes; none: they cannot be seen, or it does not run
	sees      bool         // the kubelet's process is seen, so that its would be
}

// restart moves the manifest away, waits until the pod is gone, and moves it back,
// whatever happens in between. What does not run is started by the kubelet as it is.
func (w *manifestWay) restart(ctx context.Context) (err error) {
	if w.sees && len(w.before) == 0 {
		w.machine.say("%s does not run: the kubelet is to start it by its manifest", w.component)
		return nil
	}
	root, err := os.OpenRoot(w.machine.Root)
	if err != nil {
		return err
	}
	defer root.Close()
	if err := aside(root, w.manifest); err != nil {
		return errors.Join(err, w.returned(root))
	}
	defer func() { err = errors.Join(err, back(root, w.manifest)) }()
	w.machine.say("%s stands in %s until its pod has ended", w.manifest, AsideFolder)
	if len(w.before) == 0 {
		return w.waitUnseen(ctx)
	}
	for !w.gone() {
		if err := w.machine.wait(ctx); err != nil {
			return fmt.Errorf("the kubelet did not end it when its manifest was gone: %w", err)
		}
	}
	return nil
}

// returned brings a manifest back that may have been moved before the error.
func (w *manifestWay) returned(root *os.Root) error {
	if _, err := root.Lstat(rel(w.manifest)); err == nil {
		return nil
	}
	return back(root, w.manifest)
}

// gone tells that a process of before has ended.
func (w *manifestWay) gone() bool {
	now := livesOf(w.machine.Procfs, w.component, nil)
	for l := range w.before {
		if _, lives := now[l]; !lives {
			return true
		}
	}
	return false
}

// waitUnseen waits where no process shows that the pod has ended: twice as long as
// the kubelet takes to look, and the time that the container is given to end.
func (w *manifestWay) waitUnseen(ctx context.Context) error {
	for end := time.Now().Add(2*w.check + w.pod.Grace); time.Now().Before(end); {
		if err := w.machine.wait(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (w *manifestWay) now(context.Context) (life, string, error) {
	lives := livesOf(w.machine.Procfs, w.component, w.flags)
	var newest life
	for l := range lives {
		if _, old := w.before[l]; !old && l > newest {
			newest = l
		}
	}
	if newest == "" && len(w.before) == 0 && !w.sees {
		return unseen, "", nil
	}
	return newest, "no new process of " + w.component + " runs", nil
}

// unseen is the life of what no process shows: its health alone tells.
const unseen life = "unseen"

func (w *manifestWay) over(context.Context) bool { return false }

func (w *manifestWay) look() string { return lookAtContainer(w.pod) }

func (w *manifestWay) close() {}

// Ways are the values of --restart-by.
func Ways() []string { return []string{string(Auto), string(ByRuntime), string(ByManifest)} }

// ParseBy reads one of [Ways].
func ParseBy(value string) (By, error) {
	for _, w := range Ways() {
		if w == value {
			return By(w), nil
		}
	}
	return "", fmt.Errorf("%q is none of %s", value, strings.Join(Ways(), ", "))
}
