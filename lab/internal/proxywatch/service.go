package proxywatch

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

const (
	dialEvery = 50 * time.Millisecond
	// dialWait is short: what is sent to an address without a service is dropped.
	dialWait = 250 * time.Millisecond
	// removeWait is for the service to be removed, even when the time of the
	// check is over.
	removeWait = 5 * time.Second
)

// Dial dials from one node.
type Dial func(ctx context.Context, network, address string) (net.Conn, error)

// Check makes a new service of a namespace, with the API servers behind it, and
// dials it from each node until it answers. It returns how long that took on
// each, from the making of the service. The service is removed afterwards. The
// error names each node whose kube-proxy did not program it before ctx ended, and
// what was seen last.
func Check(ctx context.Context, api kubernetes.Interface, namespace string, nodes map[string]Dial) (map[string]time.Duration, error) {
	begin := time.Now()
	service, err := create(ctx, api, namespace)
	if service != nil {
		defer remove(ctx, api, service)
	}
	if err != nil {
		return nil, fmt.Errorf("make a service to check kube-proxy by: %w", err)
	}
	type answer struct {
		node string
		took time.Duration
		err  error
	}
	answers := make(chan answer, len(nodes))
	for node, dial := range nodes {
		go func() {
			err := reach(ctx, dial, net.JoinHostPort(service.Spec.ClusterIP, "443"))
			answers <- answer{node, time.Since(begin), err}
		}()
	}
	took := map[string]time.Duration{}
	var errs []error
	for range nodes {
		a := <-answers
		if a.err != nil {
			errs = append(errs, fmt.Errorf("kube-proxy of node %s has not programmed a new service: %w", a.node, a.err))
			continue
		}
		took[a.node] = a.took
	}
	return took, errors.Join(errs...)
}

// create makes a service without a selector and gives it the endpoints of the
// kubernetes service.
func create(ctx context.Context, api kubernetes.Interface, namespace string) (*corev1.Service, error) {
	model, err := api.DiscoveryV1().EndpointSlices(metav1.NamespaceDefault).Get(ctx, "kubernetes", metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	if len(model.Ports) == 0 {
		return nil, errors.New("the kubernetes service has no endpoints")
	}
	name := "https"
	service, err := api.CoreV1().Services(namespace).Create(ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "proxywatch-"},
		Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: name, Port: 443}}},
	}, metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	_, err = api.DiscoveryV1().EndpointSlices(namespace).Create(ctx, &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Name:   service.Name,
			Labels: map[string]string{discoveryv1.LabelServiceName: service.Name, discoveryv1.LabelManagedBy: "kubepki-lab"},
			// It goes when the service goes.
			OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Service", Name: service.Name, UID: service.UID}},
		},
		AddressType: model.AddressType,
		Endpoints:   model.Endpoints,
		Ports:       []discoveryv1.EndpointPort{{Name: &name, Port: model.Ports[0].Port, Protocol: model.Ports[0].Protocol}},
	}, metav1.CreateOptions{})
	return service, err
}

// remove removes the service. One that stays is of no harm: the next check makes
// its own.
func remove(ctx context.Context, api kubernetes.Interface, service *corev1.Service) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removeWait)
	defer cancel()
	_ = api.CoreV1().Services(service.Namespace).Delete(ctx, service.Name, metav1.DeleteOptions{})
}

// reach dials until there is a connection.
func reach(ctx context.Context, dial Dial, address string) error {
	tick := time.NewTicker(dialEvery)
	defer tick.Stop()
	for {
		limited, cancel := context.WithTimeout(ctx, dialWait)
		conn, err := dial(limited, "tcp", address)
		cancel()
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}
