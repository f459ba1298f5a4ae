package kube_test

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/kubepki/kubepki/internal/csr"
	"github.com/kubepki/kubepki/internal/kube"
)

func clusterObjects() []runtime.Object {
	in := func(namespace, name string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: namespace, Name: name}
	}
	slice := in("default", "kubernetes")
	slice.Labels = map[string]string{"kubernetes.io/service-name": "kubernetes"}
	return []runtime.Object{
		&networkingv1.ServiceCIDR{ObjectMeta: in("", "kubernetes"), Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.96.0.0/16", "fd00:1::/112"}}},
		&networkingv1.ServiceCIDR{ObjectMeta: in("", "more"), Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.112.0.0/16", "10.96.0.0/16"}}},
		&corev1.Service{ObjectMeta: in("default", "kubernetes"), Spec: corev1.ServiceSpec{ClusterIPs: []string{"10.96.0.1"}}},
		&discoveryv1.EndpointSlice{ObjectMeta: slice, Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"10.0.0.11"}}, {Addresses: []string{"10.0.0.12"}}}},
		&corev1.ConfigMap{ObjectMeta: in("kube-system", "kubeadm-config"), Data: map[string]string{
			"ClusterConfiguration": "controlPlaneEndpoint: api.example.test:6443\nnetworking: {dnsDomain: k8s.example.test}\napiServer: {certSANs: [api.internal, 10.0.0.10]}\n",
		}},
		&corev1.ConfigMap{ObjectMeta: in("kube-public", "cluster-info"), Data: map[string]string{
			"kubeconfig": "apiVersion: v1\nkind: Config\nclusters: [{name: '', cluster: {server: 'https://public.example.test:6443'}}]\n",
		}},
	}
}

func TestClusterIsReadFromItsObjects(t *testing.T) {
	got, missing, err := kube.Cluster(t.Context(), fake.NewClientset(clusterObjects()...))
	if err != nil || len(missing) > 0 {
		t.Fatal(missing, err)
	}
	want := csr.Cluster{
		Domain:        "k8s.example.test",
		ServiceRanges: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("fd00:1::/112"), netip.MustParsePrefix("10.112.0.0/16")},
		Endpoints:     []string{"10.96.0.1", "10.0.0.11", "10.0.0.12", "api.internal", "10.0.0.10", "api.example.test", "public.example.test"},
	}
	if d := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); d != "" {
		t.Error(d)
	}
}

func TestClusterWithoutKubeadmNamesWhatIsMissing(t *testing.T) {
	got, missing, err := kube.Cluster(t.Context(), fake.NewClientset(clusterObjects()[:4]...))
	if err != nil {
		t.Fatal(err)
	}
	if len(missing) != 2 || !strings.Contains(missing[0].Error(), "kubeadm-config") || !strings.Contains(missing[1].Error(), "cluster-info") {
		t.Errorf("missing is %v", missing)
	}
	if got.Domain != "" || len(got.Endpoints) != 3 {
		t.Errorf("got %+v", got)
	}
}

func TestClusterThatCannotBeAskedIsAnError(t *testing.T) {
	for name, test := range map[string]struct {
		err    error
		failed bool
	}{
		"who may not read goes on":             {apierrors.NewForbidden(schema.GroupResource{Resource: "servicecidrs"}, "", nil), false},
		"a server that is busy is asked again": {apierrors.NewTooManyRequests("busy", 1), true},
	} {
		t.Run(name, func(t *testing.T) {
			client := fake.NewClientset(clusterObjects()...)
			client.PrependReactor("list", "servicecidrs", func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, test.err })
			_, missing, err := kube.Cluster(t.Context(), client)
			if (err != nil) != test.failed || !test.failed && len(missing) != 1 {
				t.Errorf("missing %v, error %v", missing, err)
			}
		})
	}
}

func TestObjectsThatDoNotParseAreNamed(t *testing.T) {
	objects := clusterObjects()
	objects[4].(*corev1.ConfigMap).Data["ClusterConfiguration"] = "{"
	objects[5].(*corev1.ConfigMap).Data["kubeconfig"] = "{"
	_, missing, err := kube.Cluster(t.Context(), fake.NewClientset(objects...))
	if err != nil || len(missing) != 2 {
		t.Errorf("missing %v, error %v", missing, err)
	}
}
