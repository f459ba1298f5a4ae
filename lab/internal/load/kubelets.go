package load

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/utils/ptr"
)

const (
	// shell is an image in which a command of the machine is run (package cri).
	shell = "lab.kubepki.dev/kubectl:lab"
	// nodeRenewal is twice the time after which a kubelet renews its lease: by
	// then it has failed to at least once.
	nodeRenewal = 20 * time.Second
	kubeletPort = "10250"
)

// probePod is a pod of the run on one node. It has written its word.
type probePod struct{ name, word string }

// makePods makes a pod on each node, and waits until they run.
func (s *site) makePods(ctx context.Context, c *clients) error {
	for _, n := range s.nodes {
		p := s.pods[n.name]
		_, err := c.core.Pods(namespace).Create(ctx, &corev1.Pod{ObjectMeta: s.meta("on-" + n.name), Spec: corev1.PodSpec{
			NodeName: n.name, HostNetwork: true, ServiceAccountName: s.account(), TerminationGracePeriodSeconds: ptr.To[int64](1),
			Tolerations: []corev1.Toleration{{Operator: corev1.TolerationOpExists}},
			Containers:  []corev1.Container{{Name: "probe", Image: shell, Command: []string{"sh", "-c", "echo " + p.word + "; exec sleep infinity"}}},
		}}, metav1.CreateOptions{})
		if err != nil {
			return err
		}
	}
	for node, p := range s.pods {
		err := eventually(ctx, func(ctx context.Context) error {
			got, err := c.core.Pods(namespace).Get(ctx, p.name, metav1.GetOptions{})
			if err == nil && got.Status.Phase != corev1.PodRunning {
				return notYet(fmt.Sprintf("pod %s on node %s is %s", p.name, node, got.Status.Phase))
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// awaitLeases waits for the leases of nodes that have only just joined.
func (s *site) awaitLeases(ctx context.Context, c *clients) error {
	for _, n := range s.nodes {
		err := eventually(ctx, func(ctx context.Context) error {
			_, err := c.coordination.Leases(corev1.NamespaceNodeLease).Get(ctx, n.name, metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				return notYet("the kubelet of " + n.name + " has made no lease")
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// kubeletStreams call each node's kubelet, through the API server and directly,
// and look whether it reaches the API server itself. What goes through the API
// server is on a connection of its own each time: behind a load balancer, every
// API server has its turn.
func (s *site) kubeletStreams(context.Context, *clients) ([]*Stream, error) {
	var all []*Stream
	for _, n := range s.nodes {
		k := &kubeletCalls{site: s, node: n, pod: s.pods[n.name], user: s.visitor()}
		all = append(all,
			&Stream{Name: "nodes-proxy/" + n.name, Link: 11, Every: time.Second, Do: k.proxy},
			&Stream{Name: "logs/" + n.name, Link: 11, Every: time.Second, Do: k.logs},
			&Stream{Name: "exec/" + n.name, Link: 11, Every: 2 * time.Second, Do: k.exec(webSocket)},
			&Stream{Name: "exec-spdy/" + n.name, Link: 11, Every: 2 * time.Second, Do: k.exec(spdy)},
			&Stream{Name: "kubelet/" + n.name, Link: 10, Every: time.Second, Do: k.direct},
			s.leaseStream("kubelet-lease/"+n.name, 8, corev1.NamespaceNodeLease, n.name, nodeRenewal))
	}
	if len(s.nodes) == 0 {
		for _, kind := range []string{"nodes-proxy", "logs", "exec", "exec-spdy"} {
			s.absent(kind, 11, "no node has joined")
		}
		s.absent("kubelet", 10, "no node has joined")
		s.absent("kubelet-lease", 8, "no node has joined")
	}
	return all, nil
}

// kubeletCalls are calls of one kubelet.
type kubeletCalls struct {
	site *site
	node kubelet
	pod  probePod
	user *user
}

// proxy reads the kubelet's list of pods through the API server.
func (k *kubeletCalls) proxy(ctx context.Context) error {
	return k.user.call(func(c *clients) error {
		body, err := c.core.RESTClient().Get().AbsPath("/api/v1/nodes", k.node.name, "proxy/pods").DoRaw(ctx)
		if err != nil {
			return err
		}
		return k.hasPod(body)
	})
}

// hasPod looks for the node's own pod in a kubelet's answer.
func (k *kubeletCalls) hasPod(body []byte) error {
	var list corev1.PodList
	if err := json.Unmarshal(body, &list); err != nil {
		return fmt.Errorf("the kubelet's list of pods: %w", err)
	}
	for _, p := range list.Items {
		if p.Name == k.pod.name {
			return nil
		}
	}
	return fmt.Errorf("the kubelet's list of %d pods lacks %s", len(list.Items), k.pod.name)
}

// logs reads what the pod has written.
func (k *kubeletCalls) logs(ctx context.Context) error {
	return k.user.call(func(c *clients) error {
		body, err := c.core.Pods(namespace).GetLogs(k.pod.name, &corev1.PodLogOptions{}).MaxRetries(0).DoRaw(ctx)
		if err == nil && strings.TrimSpace(string(body)) != k.pod.word {
			return fmt.Errorf("the log of pod %s is not what it has written, but %d other bytes", k.pod.name, len(body))
		}
		return err
	})
}

// executor makes the connection of one exec.
type executor func(config *rest.Config, c *clients, pod string, command []string) (remotecommand.Executor, error)

func webSocket(config *rest.Config, c *clients, pod string, command []string) (remotecommand.Executor, error) {
	return remotecommand.NewWebSocketExecutor(config, http.MethodGet, execURL(c, pod, command))
}

func spdy(config *rest.Config, c *clients, pod string, command []string) (remotecommand.Executor, error) {
	url := c.core.RESTClient().Post().AbsPath(execPath(pod)).VersionedParams(execOptions(command), scheme.ParameterCodec).URL()
	return remotecommand.NewSPDYExecutor(config, http.MethodPost, url)
}

func execURL(c *clients, pod string, command []string) string {
	return c.core.RESTClient().Get().AbsPath(execPath(pod)).VersionedParams(execOptions(command), scheme.ParameterCodec).URL().String()
}

func execPath(pod string) string { return "/api/v1/namespaces/" + namespace + "/pods/" + pod + "/exec" }

func execOptions(command []string) *corev1.PodExecOptions {
	return &corev1.PodExecOptions{Container: "probe", Command: command, Stdout: true, Stderr: true}
}

// exec lets a command in the pod say a word. kubectl tries the one protocol when
// the other is refused; here each is on its own.
func (k *kubeletCalls) exec(connect executor) func(context.Context) error {
	return func(ctx context.Context) error {
		return k.user.call(func(c *clients) error {
			word := rand.Text()
			e, err := connect(c.config, c, k.pod.name, []string{"echo", word})
			if err != nil {
				return err
			}
			var stdout, stderr bytes.Buffer
			if err := e.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: &stdout, Stderr: &stderr}); err != nil {
				return err
			}
			if strings.TrimSpace(stdout.String()) != word || stderr.Len() > 0 {
				return fmt.Errorf("echo in pod %s has said something else: %d and %d bytes", k.pod.name, stdout.Len(), stderr.Len())
			}
			return nil
		})
	}
}

// direct calls the kubelet with the credential of the API server, on a
// connection of its own.
func (k *kubeletCalls) direct(ctx context.Context) error {
	plane := k.site.spec.ControlPlanes[0].Name
	c, err := newClients(&rest.Config{
		Host: "https://" + net.JoinHostPort(k.node.address.String(), kubeletPort),
		TLSClientConfig: rest.TLSClientConfig{
			CAFile:   k.site.pki(plane, "ca.crt"),
			CertFile: k.site.pki(plane, "apiserver-kubelet-client.crt"), KeyFile: k.site.pki(plane, "apiserver-kubelet-client.key"),
		},
	})
	if err != nil {
		return err
	}
	defer c.close()
	body, err := c.core.RESTClient().Get().AbsPath("/pods").DoRaw(ctx)
	if err != nil {
		return err
	}
	return k.hasPod(body)
}
