package controller

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/kubepki/kubepki/internal/podcert"
)

// podCertificateFacts reads the pod, the service account and the node of a
// request. They are read, not watched: what is read after the request was made
// is newer than it, and the memory of a watch of all pods is saved.
func podCertificateFacts(ctx context.Context, client kubernetes.Interface, r podcert.Request) (podcert.Facts, error) {
	var f podcert.Facts
	core := client.CoreV1()
	pod, err := core.Pods(r.Namespace).Get(ctx, r.Pod.Name, metav1.GetOptions{})
	if err == nil {
		f.Pod = podFacts(pod)
	} else if !apierrors.IsNotFound(err) {
		return f, fmt.Errorf("reading pod %q: %w", r.Namespace+"/"+r.Pod.Name, err)
	}
	account, err := core.ServiceAccounts(r.Namespace).Get(ctx, r.ServiceAccount.Name, metav1.GetOptions{})
	if err == nil {
		f.ServiceAccountUID = string(account.UID)
	} else if !apierrors.IsNotFound(err) {
		return f, fmt.Errorf("reading service account %q: %w", r.Namespace+"/"+r.ServiceAccount.Name, err)
	}
	node, err := core.Nodes().Get(ctx, r.Node.Name, metav1.GetOptions{})
	if err == nil {
		f.NodeUID = string(node.UID)
	} else if !apierrors.IsNotFound(err) {
		return f, fmt.Errorf("reading node %q: %w", r.Node.Name, err)
	}
	return f, nil
}
