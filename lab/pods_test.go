//go:build linux

package lab_test

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/kubepki/kubepki/lab"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// podNode does for one node what a kubelet does for the pods of the lab: it
// registers the node, starts the processes of the pods that are bound to it,
// each with the files, the environment and the command line that its pod says,
// and tells the API server when their probes succeed. It takes no changes up.
type podNode struct {
	t       *testing.T
	api     kubernetes.Interface
	node    *lab.Node
	address string
	started map[string]bool
}

// register makes the node known, ready and with room for pods.
func (n *podNode) register(labels map[string]string) {
	n.t.Helper()
	nodes := n.api.CoreV1().Nodes()
	node, err := nodes.Create(n.t.Context(), &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: n.node.Name, Labels: labels}}, metav1.CreateOptions{})
	if err != nil {
		n.t.Fatal(err)
	}
	room := corev1.ResourceList{
		corev1.ResourcePods: resource.MustParse("20"), corev1.ResourceCPU: resource.MustParse("2"), corev1.ResourceMemory: resource.MustParse("4Gi"),
	}
	node.Status = corev1.NodeStatus{
		Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: n.address}},
		Capacity:  room, Allocatable: room,
		Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "Lab"}},
	}
	if _, err := nodes.UpdateStatus(n.t.Context(), node, metav1.UpdateOptions{}); err != nil {
		n.t.Fatal(err)
	}
}

// sync starts the pods that are bound to the node and have not been started.
func (n *podNode) sync(ctx context.Context) error {
	pods, err := n.api.CoreV1().Pods("").List(ctx, metav1.ListOptions{FieldSelector: "spec.nodeName=" + n.node.Name})
	if err != nil {
		return err
	}
	for _, pod := range pods.Items {
		if n.started[pod.Name] {
			continue
		}
		if err := n.start(ctx, &pod); err != nil {
			return fmt.Errorf("pod %s: %w", pod.Name, err)
		}
		n.started[pod.Name] = true
	}
	return nil
}

// start runs the containers and, once they are ready, says so.
func (n *podNode) start(ctx context.Context, pod *corev1.Pod) error {
	var processes []*lab.Process
	for i := range pod.Spec.Containers {
		p, err := n.container(ctx, pod, &pod.Spec.Containers[i])
		if err != nil {
			return err
		}
		processes = append(processes, p)
	}
	for _, p := range processes {
		if err := p.Ready(ctx); err != nil {
			return err
		}
	}
	pod.Status.Phase = corev1.PodRunning
	pod.Status.HostIP, pod.Status.PodIP = n.address, n.address
	pod.Status.HostIPs, pod.Status.PodIPs = []corev1.HostIP{{IP: n.address}}, []corev1.PodIP{{IP: n.address}}
	for _, kind := range []corev1.PodConditionType{corev1.PodInitialized, corev1.ContainersReady, corev1.PodReady} {
		pod.Status.Conditions = append(pod.Status.Conditions, corev1.PodCondition{Type: kind, Status: corev1.ConditionTrue})
	}
	_, err := n.api.CoreV1().Pods(pod.Namespace).UpdateStatus(ctx, pod, metav1.UpdateOptions{})
	return err
}

// container starts one container in the node's network. A privileged one has the
// node's own root, for it calls the machine's programs.
func (n *podNode) container(ctx context.Context, pod *corev1.Pod, c *corev1.Container) (*lab.Process, error) {
	place := *n.node
	if c.SecurityContext == nil || c.SecurityContext.Privileged == nil || !*c.SecurityContext.Privileged {
		place.Root = filepath.Join(n.node.Root, "var/lib/pods", pod.Name, c.Name)
	}
	if err := os.MkdirAll(filepath.Join(place.Root, "tmp"), 0o700); err != nil {
		return nil, err
	}
	for _, mount := range c.VolumeMounts {
		i := slices.IndexFunc(pod.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == mount.Name })
		if err := n.volume(ctx, pod, &pod.Spec.Volumes[i], filepath.Join(place.Root, mount.MountPath)); err != nil {
			return nil, fmt.Errorf("volume %s: %w", mount.Name, err)
		}
	}
	env := []string{"KUBERNETES_SERVICE_HOST=10.96.0.1", "KUBERNETES_SERVICE_PORT=443"}
	for _, e := range c.Env {
		if e.ValueFrom != nil {
			e.Value = pod.Spec.NodeName // the only field that a pod of the lab asks for
		}
		env = append(env, e.Name+"="+e.Value)
	}
	p, err := place.Run(&lab.Manifest{Name: pod.Name + "-" + c.Name, Command: expand(c.Command, env), Env: env, Probe: n.probe(c)})
	if err != nil {
		return nil, err
	}
	n.t.Cleanup(func() {
		if n.t.Failed() {
			n.t.Logf("%s on %s:\n%s", c.Name, n.node.Name, p.Log())
		}
		if err := p.Kill(); err != nil {
			n.t.Error(err)
		}
	})
	return p, nil
}

// expand replaces $(NAME) in a command.
func expand(command, env []string) []string {
	var pairs []string
	for _, e := range env {
		name, value, _ := strings.Cut(e, "=")
		pairs = append(pairs, "$("+name+")", value)
	}
	var expanded []string
	for _, argument := range command {
		expanded = append(expanded, strings.NewReplacer(pairs...).Replace(argument))
	}
	return expanded
}

func (n *podNode) probe(c *corev1.Container) *url.URL {
	if c.ReadinessProbe == nil {
		return nil
	}
	get := c.ReadinessProbe.HTTPGet
	host, port := get.Host, get.Port.IntValue()
	if host == "" {
		host = n.address
	}
	for _, p := range c.Ports {
		if p.Name == get.Port.StrVal {
			port = int(p.ContainerPort)
		}
	}
	return &url.URL{Scheme: strings.ToLower(string(get.Scheme)), Host: net.JoinHostPort(host, strconv.Itoa(port)), Path: get.Path}
}

// volume writes what a volume holds.
func (n *podNode) volume(ctx context.Context, pod *corev1.Pod, v *corev1.Volume, path string) error {
	if v.HostPath != nil {
		if path == filepath.Join(n.node.Root, v.HostPath.Path) {
			return nil // the container has the node's own root
		}
		return os.Link(filepath.Join(n.node.Root, v.HostPath.Path), path)
	}
	files, err := n.files(ctx, pod, v)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		return err
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(path, name), data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func (n *podNode) files(ctx context.Context, pod *corev1.Pod, v *corev1.Volume) (map[string][]byte, error) {
	switch {
	case v.Secret != nil:
		secret, err := n.api.CoreV1().Secrets(pod.Namespace).Get(ctx, v.Secret.SecretName, metav1.GetOptions{})
		return secret.Data, err
	case v.ConfigMap != nil:
		return n.configMap(ctx, pod, v.ConfigMap.Name)
	case v.Projected != nil:
		files, err := n.configMap(ctx, pod, "kube-root-ca.crt")
		if err != nil {
			return nil, err
		}
		files["namespace"] = []byte(pod.Namespace)
		files["token"], err = n.token(ctx, pod)
		return files, err
	}
	return nil, nil // emptyDir
}

func (n *podNode) configMap(ctx context.Context, pod *corev1.Pod, name string) (map[string][]byte, error) {
	m, err := n.api.CoreV1().ConfigMaps(pod.Namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	for name, text := range m.Data {
		files[name] = []byte(text)
	}
	return files, nil
}

// token requests a token that is bound to the pod, as the kubelet does.
func (n *podNode) token(ctx context.Context, pod *corev1.Pod) ([]byte, error) {
	request, err := n.api.CoreV1().ServiceAccounts(pod.Namespace).CreateToken(ctx, pod.Spec.ServiceAccountName, &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{BoundObjectRef: &authenticationv1.BoundObjectReference{
			Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID,
		}},
	}, metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	return []byte(request.Status.Token), nil
}
