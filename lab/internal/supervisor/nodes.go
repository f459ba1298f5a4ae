package supervisor

import (
	"context"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// askWait is for one answer of the Kubernetes API.
const askWait = 3 * time.Second

// admin is how the supervisor itself calls the API: as an administrator, from
// beside the nodes. It is read anew each time, for the file may be replaced.
func (s *Supervisor) admin() (*rest.Config, error) {
	config, err := clientcmd.BuildConfigFromFlags("", s.Folder.SuperAdminConf(s.spec))
	if err != nil {
		return nil, err
	}
	config.QPS = -1 // nobody else waits for it
	config.Timeout = askWait
	return config, nil
}

// lookAtNodes asks the API for the nodes that run a kubelet, and for light ones.
func (s *Supervisor) lookAtNodes(ctx context.Context) []Node {
	known, err := s.listNodes(ctx)
	byName := map[string]*corev1.Node{}
	for i := range known {
		byName[known[i].Name] = &known[i]
	}
	var nodes []Node
	look := func(name string, address netip.Addr) {
		n := Node{Name: name, Address: address.String(), Message: "not registered"}
		if seen, ok := byName[name]; ok {
			n.Ready, n.Message = nodeReady(seen)
		} else if err != nil {
			n.Message = err.Error()
		}
		nodes = append(nodes, n)
	}
	for _, m := range s.machines {
		if m.Kubelet {
			look(m.Name, m.Address)
		}
	}
	for _, l := range s.wanted.Light() {
		look(l.Name, l.Address)
	}
	return nodes
}

func (s *Supervisor) listNodes(ctx context.Context) ([]corev1.Node, error) {
	select {
	case <-s.serving:
	default:
		return nil, nil // nobody to ask yet
	}
	config, err := s.admin()
	if err != nil {
		return nil, err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	list, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{ResourceVersion: "0"})
	if err != nil {
		return nil, err
	}
	return list.Items, nil
}

// nodeReady is the node's condition Ready, and why it is not.
func nodeReady(n *corev1.Node) (bool, string) {
	for _, c := range n.Status.Conditions {
		if c.Type != corev1.NodeReady {
			continue
		}
		if c.Status == corev1.ConditionTrue {
			return true, ""
		}
		return false, c.Reason + ": " + c.Message
	}
	return false, "no condition Ready yet"
}
