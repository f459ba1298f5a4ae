package kube

import (
	"context"
	"errors"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/cluster-bootstrap/token/api"

	"github.com/kubepki/kubepki/internal/handover"
)

func tokensOf(t *testing.T, client *fake.Clientset) (tokens []corev1.Secret) {
	t.Helper()
	list, err := client.CoreV1().Secrets("kube-system").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range list.Items {
		if s.Type == api.SecretTypeBootstrapToken {
			tokens = append(tokens, s)
		}
	}
	return tokens
}

func TestPutHandsOverAndReplaces(t *testing.T) {
	client := fake.NewClientset(&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: handover.SecretName}, Data: map[string][]byte{"old": []byte("x")}},
		&rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: handover.RoleName}, Rules: []rbacv1.PolicyRule{{Verbs: []string{"*"}}}})
	h := &HandedOver{client}
	now := time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)
	end, err := h.Put(t.Context(), map[string][]byte{"ca.crt": []byte("sealed")}, now, false)
	if err != nil || !end.Equal(now.Add(2*time.Hour)) {
		t.Fatalf("until %s, %v", end, err)
	}
	tokens := tokensOf(t, client)
	s, err := client.CoreV1().Secrets("kube-system").Get(t.Context(), handover.SecretName, metav1.GetOptions{})
	switch {
	case err != nil || len(tokens) != 1:
		t.Fatalf("%d tokens, %v", len(tokens), err)
	case len(s.OwnerReferences) != 1 || s.OwnerReferences[0].Name != tokens[0].Name || s.OwnerReferences[0].Kind != "Secret" || s.OwnerReferences[0].APIVersion != "v1":
		t.Errorf("it belongs to %v", s.OwnerReferences)
	case len(s.Data) != 1 || string(s.Data["ca.crt"]) != "sealed":
		t.Errorf("it holds %v", s.Data)
	}
	for key := range tokens[0].Data {
		if key == api.BootstrapTokenUsageAuthentication || key == api.BootstrapTokenUsageSigningKey || key == api.BootstrapTokenExtraGroupsKey {
			t.Errorf("the token that ends it has %s", key)
		}
	}
	role, err := client.RbacV1().Roles("kube-system").Get(t.Context(), handover.RoleName, metav1.GetOptions{})
	if err != nil || len(role.Rules) != 1 || role.Rules[0].Verbs[0] != "get" {
		t.Errorf("a role that let everybody do everything stays: %v, %v", role, err)
	}
	if data, err := h.Get(t.Context()); err != nil || string(data["ca.crt"]) != "sealed" {
		t.Errorf("%v, %v", data, err)
	}
}

// TestPutLeavesNoToken: whatever fails, also when nobody waits any more.
func TestPutLeavesNoToken(t *testing.T) {
	refused := errors.New("refused")
	for _, resource := range []string{"roles", "rolebindings"} {
		client := fake.NewClientset()
		ctx, cancel := context.WithCancel(t.Context())
		client.PrependReactor("create", resource, func(clienttesting.Action) (bool, runtime.Object, error) { cancel(); return true, nil, refused })
		if _, err := (&HandedOver{client}).Put(ctx, map[string][]byte{}, time.Now(), false); !errors.Is(err, refused) {
			t.Errorf("%s: %v", resource, err)
		}
		if tokens := tokensOf(t, client); len(tokens) != 0 {
			t.Errorf("%s: %d tokens stay", resource, len(tokens))
		}
	}
	if _, err := (&HandedOver{fake.NewClientset()}).Get(t.Context()); !errors.Is(err, ErrNothingHandedOver) {
		t.Errorf("nothing is there: %v", err)
	}
}

func TestReadHandedOver(t *testing.T) {
	const secret = "kind: Secret\napiVersion: v1\nmetadata: {name: kubeadm-certs}\n"
	for name, c := range map[string]struct {
		text string
		ok   bool
	}{
		"alone":                      {secret + "data: {ca.crt: YQ==}", true},
		"after others":               {"kind: Role\n---\nnot: [an object\n---\n" + secret + "data: {ca.crt: YQ==}", true},
		"in a List":                  {`{"kind":"List","items":[{"kind":"Role"},{"kind":"Secret","metadata":{"name":"kubeadm-certs"},"data":{"ca.crt":"YQ=="}}]}`, true},
		"without data":               {secret, true},
		"another Secret":             {"kind: Secret\nmetadata: {name: other}\ndata: {ca.crt: YQ==}", false},
		"a ConfigMap of its name":    {"kind: ConfigMap\nmetadata: {name: kubeadm-certs}", false},
		"a name that is there twice": {secret + "data: {ca.crt: YQ==, ca.crt: Yg==}", false},
		"data that is not base64":    {secret + "data: {ca.crt: '?'}", false},
		"nothing":                    {"", false},
		"junk":                       {"\x00\xff", false},
	} {
		data, err := ReadHandedOver([]byte(c.text))
		if (err == nil) != c.ok || c.ok && data == nil {
			t.Errorf("%s: %v, %v", name, data, err)
		}
	}
}
