package supervisor

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"

	"github.com/kubepki/kubepki/lab/internal/cluster"
	"github.com/kubepki/kubepki/lab/internal/kubelet"
	"github.com/kubepki/kubepki/lab/internal/objects"
	"github.com/kubepki/kubepki/lab/internal/proxyclient"
)

// prepareServers makes the credentials of the servers that run in pods, and what
// kube-apiserver needs to call them.
func (s *Supervisor) prepareServers(ctx context.Context) error {
	s.values = objects.Values{Server: s.spec.EndpointURL(&s.spec.ControlPlanes[0]), WithoutPods: s.wanted.WithoutKubelets || s.wanted.WithoutPods}
	if s.wanted.Signer == cluster.KubepkiSigner {
		s.values.Controllers, s.values.SigningDuration = len(s.spec.ControlPlanes), s.wanted.SigningDuration
	}
	if s.wanted.Loopback {
		return nil
	}
	servers, err := objects.Provision(ctx, s.Folder.Servers(), time.Now())
	if err != nil {
		return err
	}
	for _, m := range s.machines {
		if m.Role != cluster.ControlPlane {
			continue
		}
		if err := objects.WriteAdmission(s.Folder.Root(m.Name), servers.Webhook); err != nil {
			return err
		}
	}
	s.values.Servers = *servers
	if err := proxyclient.CanProgram(ctx); err != nil {
		s.Log.Warn("kube-proxy runs as its client alone", "reason", err)
		s.values.ProxyClient = true
	}
	return nil
}

// labelNodes marks the control planes, where what lets others join may have to
// run, and then says to each node that has joined how its kube-proxy proves itself:
// workers first, so that three nodes of any kind have all three ways.
func (s *Supervisor) labelNodes(ctx context.Context) error {
	config, err := s.admin()
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	for _, m := range s.machines {
		if !m.Kubelet || m.Role != cluster.ControlPlane {
			continue
		}
		if err := kubelet.MarkControlPlane(ctx, client, m.Name); err != nil {
			return err
		}
	}
	modes := objects.ProxyModes()
	for i, name := range s.kubelets() {
		patch := fmt.Appendf(nil, `{"metadata":{"labels":{%q:%q}}}`, objects.ProxyLabel, modes[i%len(modes)])
		if _, err := client.CoreV1().Nodes().Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
			return err
		}
	}
	return nil
}

// kubelets are the nodes with a kubelet, workers first.
func (s *Supervisor) kubelets() []string {
	var workers, planes []string
	for _, m := range s.machines {
		switch {
		case m.Kubelet && m.Role == cluster.Worker:
			workers = append(workers, m.Name)
		case m.Kubelet:
			planes = append(planes, m.Name)
		}
	}
	return slices.Concat(workers, planes)
}

// Workload is something that the lab runs in pods.
type Workload struct {
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
	Ready     bool   `json:"ready"`
	Message   string `json:"message,omitempty"`
}

// judged are the kinds of objects that become ready, with the way to ask for them.
var judged = map[string]struct {
	resource schema.GroupVersionResource
	judge    func(*unstructured.Unstructured) (bool, string, error)
}{
	"Deployment": {appsv1.SchemeGroupVersion.WithResource("deployments"), judgeDeployment},
	"DaemonSet":  {appsv1.SchemeGroupVersion.WithResource("daemonsets"), judgeDaemonSet},
	"APIService": {schema.GroupVersionResource{Group: "apiregistration.k8s.io", Version: "v1", Resource: "apiservices"}, judgeAPIService},
}

// lookAtWorkloads asks the API what has become of the lab's objects.
func (s *Supervisor) lookAtWorkloads(ctx context.Context) []Workload {
	wanted, err := objects.Objects(s.values)
	if err != nil {
		return []Workload{{Message: err.Error()}}
	}
	config, err := s.admin()
	if err != nil {
		return []Workload{{Message: err.Error()}}
	}
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return []Workload{{Message: err.Error()}}
	}
	var all []Workload
	for _, o := range wanted {
		kind, ok := judged[o.GetKind()]
		if !ok {
			continue
		}
		w := Workload{Kind: o.GetKind(), Namespace: o.GetNamespace(), Name: o.GetName()}
		seen, err := client.Resource(kind.resource).Namespace(w.Namespace).Get(ctx, w.Name, metav1.GetOptions{})
		if err == nil {
			w.Ready, w.Message, err = kind.judge(seen)
		}
		if err != nil {
			w.Message = err.Error()
		}
		all = append(all, w)
	}
	return all
}

func judgeDeployment(o *unstructured.Unstructured) (bool, string, error) {
	var d appsv1.Deployment
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &d); err != nil {
		return false, "", err
	}
	ready := d.Status.ObservedGeneration >= d.Generation && d.Status.ReadyReplicas >= *d.Spec.Replicas
	return ready, fmt.Sprintf("%d of %d pods are ready", d.Status.ReadyReplicas, *d.Spec.Replicas), nil
}

func judgeDaemonSet(o *unstructured.Unstructured) (bool, string, error) {
	var d appsv1.DaemonSet
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &d); err != nil {
		return false, "", err
	}
	ready := d.Status.ObservedGeneration >= d.Generation && d.Status.NumberReady >= d.Status.DesiredNumberScheduled
	return ready, fmt.Sprintf("%d of %d pods are ready", d.Status.NumberReady, d.Status.DesiredNumberScheduled), nil
}

func judgeAPIService(o *unstructured.Unstructured) (bool, string, error) {
	conditions, _, err := unstructured.NestedSlice(o.Object, "status", "conditions")
	for _, c := range conditions {
		if c, ok := c.(map[string]any); ok && c["type"] == "Available" {
			return c["status"] == "True", fmt.Sprint(c["message"]), err
		}
	}
	return false, "no condition Available yet", err
}

// lookAtPods lists the containers of the lab's pods that run as processes, with
// the certificate that they serve.
func (s *Supervisor) lookAtPods(ctx context.Context) []Component {
	ports := s.servingPorts()
	var all []Component
	for _, m := range s.machines {
		runtime, ok := s.runtimes[m.Name]
		if !ok {
			continue
		}
		for _, r := range runtime.Running() {
			c := Component{Node: m.Name, Component: r.Namespace + "/" + r.Pod + "/" + r.Container, PID: r.PID, State: "running", Ready: true}
			if port, ok := ports[r.Namespace+"/"+r.Container]; ok {
				c.Serving = presented(ctx, s.nodes[m.Name], net.JoinHostPort(m.Address.String(), strconv.Itoa(int(port))))
			}
			all = append(all, c)
		}
	}
	return all
}

// servingPorts are the ports named https of the containers of the lab's objects,
// by NAMESPACE/CONTAINER.
func (s *Supervisor) servingPorts() map[string]int32 {
	ports := map[string]int32{}
	wanted, err := objects.Objects(s.values)
	if err != nil {
		return ports // lookAtWorkloads says it
	}
	for _, o := range wanted {
		var d appsv1.Deployment // a DaemonSet's template stands in the same place
		if runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, &d) != nil {
			continue
		}
		for _, c := range d.Spec.Template.Spec.Containers {
			if i := slices.IndexFunc(c.Ports, func(p corev1.ContainerPort) bool { return p.Name == "https" }); i >= 0 {
				ports[o.GetNamespace()+"/"+c.Name] = c.Ports[i].ContainerPort
			}
		}
	}
	return ports
}
