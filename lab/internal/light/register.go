package light

import (
	"context"
	"encoding/json"
	"net/netip"
	"runtime"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// Taint keeps pods away from light nodes, which could not run them. A DaemonSet
// that tolerates everything must leave out nodes with this label.
const Taint = "lab.kubepki.dev/light"

func addresses(n Node) []netip.Addr { return []netip.Addr{n.Address} }

// register makes the node's object, or finds it, and returns its UID.
func (n *node) register(ctx context.Context, client kubernetes.Interface) (types.UID, error) {
	object := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: n.Name, Labels: map[string]string{
			corev1.LabelHostname: n.Name, corev1.LabelOSStable: runtime.GOOS, corev1.LabelArchStable: runtime.GOARCH, Taint: "",
		}},
		Spec:   corev1.NodeSpec{Taints: []corev1.Taint{{Key: Taint, Effect: corev1.TaintEffectNoSchedule}}},
		Status: n.status(),
	}
	made, err := client.CoreV1().Nodes().Create(ctx, object, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		made, err = client.CoreV1().Nodes().Get(ctx, n.Name, metav1.GetOptions{})
	}
	if err != nil {
		return "", err
	}
	return made.UID, nil
}

// report writes the node's status, and nothing else of it, as the kubelet does.
func (n *node) report(ctx context.Context, client kubernetes.Interface) error {
	object, err := client.CoreV1().Nodes().Get(ctx, n.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		_, err = n.register(ctx, client) // somebody has deleted it
		return err
	}
	if err != nil {
		return err
	}
	status := n.status()
	for i := range status.Conditions {
		is := &status.Conditions[i]
		for _, was := range object.Status.Conditions {
			if was.Type == is.Type && was.Status == is.Status {
				is.LastTransitionTime = was.LastTransitionTime
			}
		}
	}
	patch, err := json.Marshal(corev1.Node{Status: status})
	if err != nil {
		return err
	}
	_, err = client.CoreV1().Nodes().PatchStatus(ctx, n.Name, patch)
	return err
}

// status is what a kubelet would say.
func (n *node) status() corev1.NodeStatus {
	now := metav1.Now()
	condition := func(kind corev1.NodeConditionType, status corev1.ConditionStatus, message string) corev1.NodeCondition {
		return corev1.NodeCondition{Type: kind, Status: status, Reason: "LightNode", Message: message, LastHeartbeatTime: now, LastTransitionTime: now}
	}
	room := corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("1"), corev1.ResourceMemory: resource.MustParse("1Gi"), corev1.ResourcePods: resource.MustParse("110"),
	}
	return corev1.NodeStatus{
		Capacity: room, Allocatable: room,
		Addresses:       []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: n.Address.String()}, {Type: corev1.NodeHostName, Address: n.Name}},
		DaemonEndpoints: corev1.NodeDaemonEndpoints{KubeletEndpoint: corev1.DaemonEndpoint{Port: Port}},
		NodeInfo:        corev1.NodeSystemInfo{OperatingSystem: runtime.GOOS, Architecture: runtime.GOARCH, KubeletVersion: "v0.0.0-light", ContainerRuntimeVersion: "none://0"},
		Conditions: []corev1.NodeCondition{
			condition(corev1.NodeMemoryPressure, corev1.ConditionFalse, "it uses none"),
			condition(corev1.NodeDiskPressure, corev1.ConditionFalse, "it uses none"),
			condition(corev1.NodePIDPressure, corev1.ConditionFalse, "it uses none"),
			condition(corev1.NodeReady, corev1.ConditionTrue, "it has a client certificate and a lease"),
		},
	}
}
