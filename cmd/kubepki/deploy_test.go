package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/yaml"
)

// readManifests reads a file of objects as strictly as the API server does.
func readManifests(t *testing.T, name string) []runtime.Object {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("..", "..", "deploy", name))
	if err != nil {
		t.Fatal(err)
	}
	strict := json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme.Scheme, scheme.Scheme, json.SerializerOptions{Strict: true})
	var all []runtime.Object
	for text := range bytes.SplitSeq(data, []byte("\n---\n")) {
		asJSON, err := yaml.YAMLToJSONStrict(text)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		o, _, err := strict.Decode(asJSON, nil, nil)
		if err != nil {
			t.Fatalf("%s: %v\n%s", name, err, text)
		}
		all = append(all, o)
	}
	return all
}

// rights are the rules of all roles, a line each.
func rights(objects []runtime.Object) []string {
	var all []string
	add := func(namespace string, rules []rbacv1.PolicyRule) {
		for _, r := range rules {
			for _, resource := range r.Resources {
				names := strings.Join(r.ResourceNames, " ")
				all = append(all, strings.TrimSpace(fmt.Sprintf("%s %s %s %s", namespace, strings.Join(r.Verbs, ","), resource, names)))
			}
		}
	}
	for _, o := range objects {
		switch o := o.(type) {
		case *rbacv1.ClusterRole:
			add("*", o.Rules)
		case *rbacv1.Role:
			add(o.Namespace, o.Rules)
		}
	}
	slices.Sort(all)
	return all
}

// The rights that the controller needs; the lab runs it with them, and compares
// them with what it asked for.
func wantedRights() []string {
	return []string{
		"* create subjectaccessreviews",
		"* delete certificatesigningrequests",
		"* approve signers kubernetes.io/kube-apiserver-client-kubelet kubernetes.io/kubelet-serving",
		"* get,list,watch certificatesigningrequests",
		"* get,list,watch certificatesigningrequests",
		"* get,list,watch nodes",
		"* list servicecidrs",
		"* sign signers kubernetes.io/kube-apiserver-client kubernetes.io/kube-apiserver-client-kubelet kubernetes.io/kubelet-serving kubernetes.io/legacy-unknown",
		"* update certificatesigningrequests/approval",
		"* update certificatesigningrequests/status",
		"default create,patch events",
		"default get services kubernetes",
		"default list endpointslices",
		"kube-public get configmaps cluster-info",
		"kube-system get configmaps kubeadm-config",
		"kubepki create leases",
		"kubepki get,update leases kubepki-controller",
	}
}

func TestManifestsGiveTheLeastRights(t *testing.T) {
	want := wantedRights()
	slices.Sort(want)
	if d := cmp.Diff(want, rights(readManifests(t, "controller.yaml"))); d != "" {
		t.Errorf("controller.yaml (-want +got):\n%s", d)
	}
	var less []string
	reads := 0
	for _, r := range want {
		switch {
		case strings.Contains(r, "sign signers"), strings.Contains(r, "/status"), strings.Contains(r, "delete"), strings.Contains(r, "subjectaccessreviews"):
			continue
		case r == "* get,list,watch certificatesigningrequests":
			if reads++; reads > 1 {
				continue
			}
		}
		less = append(less, strings.Replace(r, " kubernetes.io/kube-apiserver-client-kubelet", "", 1))
	}
	if d := cmp.Diff(less, rights(readManifests(t, "serving-approver.yaml"))); d != "" {
		t.Errorf("serving-approver.yaml (-want +got):\n%s", d)
	}
	readManifests(t, "flowschema.yaml")
}

func TestManifestsStartTheControllerWithFlagsThatItHas(t *testing.T) {
	for _, name := range []string{"controller.yaml", "serving-approver.yaml"} {
		deployments := 0
		for _, o := range readManifests(t, name) {
			d, ok := o.(*appsv1.Deployment)
			if !ok {
				continue
			}
			deployments++
			c := d.Spec.Template.Spec.Containers[0]
			if err := newControllerCommand(streams{out: io.Discard, err: io.Discard}).ParseFlags(c.Args[1:]); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if c.SecurityContext.AllowPrivilegeEscalation == nil || *c.SecurityContext.AllowPrivilegeEscalation || len(c.SecurityContext.Capabilities.Add) > 0 {
				t.Errorf("%s: the container may do more than it needs", name)
			}
			if holdsKey := strings.Contains(fmt.Sprint(d.Spec.Template.Spec.Volumes), "ca.key"); holdsKey != (name == "controller.yaml") {
				t.Errorf("%s: a key is mounted: %v", name, holdsKey)
			}
		}
		if deployments != 1 {
			t.Errorf("%s: %d deployments", name, deployments)
		}
	}
}

// TestVerifyReadsAlone: the roles of verify --kubeconfig give the right to read, and the
// one to read Secrets is by itself; lab/verify_cluster_test.go uses them.
func TestVerifyReadsAlone(t *testing.T) {
	objects := readManifests(t, "verify-rbac.yaml")
	want := []string{
		"* list apiservices", "* list certificatesigningrequests", "* list clustertrustbundles", "* list configmaps kube-root-ca.crt", "* list customresourcedefinitions",
		"* list mutatingwebhookconfigurations", "* list namespaces", "* list nodes", "* list secrets", "* list serviceaccounts", "* list validatingwebhookconfigurations",
		"default get services kubernetes", "kube-public get configmaps cluster-info", "kube-system get configmaps extension-apiserver-authentication kubeadm-config",
	}
	if d := cmp.Diff(want, rights(objects)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	for _, o := range objects {
		if b, ok := o.(*rbacv1.ClusterRoleBinding); ok && b.RoleRef.Name != "kubepki-verify" {
			t.Errorf("%s is bound", b.RoleRef.Name)
		}
	}
}

// TestTheAgentFollowsWithTheLeastRights: all but Events is read, and the right to read
// Secrets is by itself; lab/agent_show_test.go uses them.
func TestTheAgentFollowsWithTheLeastRights(t *testing.T) {
	objects := readManifests(t, "agent-cluster-rbac.yaml")
	want := []string{
		"* create events", "* list,watch apiservices", "* list,watch configmaps kube-root-ca.crt", "* list,watch customresourcedefinitions", "* list,watch mutatingwebhookconfigurations",
		"* list,watch secrets", "* list,watch validatingwebhookconfigurations", "kube-system list,watch configmaps extension-apiserver-authentication",
	}
	if d := cmp.Diff(want, rights(objects)); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	for _, o := range objects {
		if b, ok := o.(*rbacv1.ClusterRoleBinding); ok && strings.HasSuffix(b.RoleRef.Name, ":secrets") {
			t.Errorf("%s is bound", b.RoleRef.Name)
		}
	}
}
