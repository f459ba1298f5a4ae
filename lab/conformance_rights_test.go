//go:build linux

package lab_test

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	authorizationv1 "k8s.io/api/authorization/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/kubepki/kubepki/internal/workload"
)

// testRights has test/e2e/suite/conformance/rbac, and the guards of CertificateRequests
// that upstream's webhook has, with deploy/controller-workloads-admission.yaml.
func (c *conformance) testRights(t *testing.T) {
	c.guard(t)
	var deeds []deedOf
	reads, writes := []string{"get", "list", "watch"}, []string{"create", "delete", "deletecollection", "patch", "update"}
	for _, resource := range []string{"certificates", "certificaterequests", "issuers"} {
		for _, role := range []string{"view", "edit", "admin"} {
			may, not := slices.Concat(reads, writes), []string(nil)
			if role == "view" {
				may, not = reads, writes
			}
			name := fmt.Sprintf("with namespace %s access should be able to %s %s", role, strings.Join(may, ", "), resource)
			if len(not) > 0 {
				name += ", and not to " + strings.Join(not, ", ")
			}
			deeds = append(deeds, deedOf{"conformance/rbac", name, "", func(t *testing.T) { c.roleMay(t, role, resource, may, not) }, ""})
		}
	}
	external := cmmeta.IssuerReference{Group: "example.io", Kind: "Issuer", Name: "test-issuer"}
	decide := func(right string, ref cmmeta.IssuerReference, what cmapi.CertificateRequestConditionType, allowed bool) func(*testing.T) {
		return func(t *testing.T) { c.decides(t, right, ref, what, allowed) }
	}
	cluster := cmmeta.IssuerReference{Group: "example.io", Kind: "ClusterIssuer", Name: "nobody"}
	deeds = append(deeds, []deedOf{
		{"certificaterequests/approval", "attempting to approve a certificate request without the approve permission should error", "", decide("", external, "Approved", false), ""},
		{"certificaterequests/approval", "attempting to deny a certificate request without the approve permission should error", "", decide("", external, "Denied", false), ""},
		{"certificaterequests/approval", "with the approve permissions for a resource that doesn't exist attempting to approve, or to deny, should error", "not: which kinds there are is not looked up", nil, "–"},
		{"certificaterequests/approval", "with the approve permissions for issuers.example.io/* should be able to approve requests", "", decide("issuers.example.io/*", external, "Approved", true), ""},
		{"certificaterequests/approval", "with the approve permissions for issuers.example.io/* should be able to deny requests", "", decide("issuers.example.io/*", external, "Denied", true), ""},
		{"certificaterequests/approval", "with the approve permissions for issuers.example.io/<namespace>.test-issuer should be able to approve requests", "", decide("issuers.example.io/default.test-issuer", external, "Approved", true), ""},
		{"certificaterequests/approval", "with the approve permissions for cluster scoped issuers.example.io/test-issuer should be able to approve requests", "", decide("issuers.example.io/test-issuer", external, "Approved", true), ""},
		{"certificaterequests/approval", "with the approve permissions for another namespace's issuer should not be able to approve requests", "", decide("issuers.example.io/other.test-issuer", external, "Approved", false), ""},
		{"certificaterequests/approval", "with the approve permissions for clusterissuers.example.io/NAME should be able to approve, and for issuers.example.io/* not", "", func(t *testing.T) {
			decide("clusterissuers.example.io/nobody", cluster, "Approved", true)(t)
			decide("issuers.example.io/*", cluster, "Approved", false)(t)
		}, ""},
		{"identity/certificaterequests", "should appropriately create and update the identity of CertificateRequests", "not set, but never another's", c.identity, ""},
	}...)
	runDeeds(t, "Rights", deeds)
}

// guard installs the policy, and waits until it works.
func (c *conformance) guard(t *testing.T) {
	t.Helper()
	if out, err := kubectl(t, c.controlPlane, "apply", "-f", filepath.Join("..", "deploy", "controller-workloads-admission.yaml")); err != nil {
		t.Fatalf("%v\n%s", err, out.stderr)
	}
	n := 0
	eventually(t, "the policy works", func(ctx context.Context) error {
		n++
		r := c.plainRequest(t, fmt.Sprint("probe-", n), cmmeta.IssuerReference{Name: "nobody", Group: "example.io", Kind: "Issuer"})
		r.Spec.Username = "somebody else"
		if err := c.createErr(ctx, "certificaterequests", r); !apierrors.IsForbidden(err) {
			return fmt.Errorf("a request in another's name: %w", err)
		}
		return nil
	})
}

var plainText []byte

func (c *conformance) plainRequest(t *testing.T, name string, ref cmmeta.IssuerReference) *cmapi.CertificateRequest {
	t.Helper()
	if plainText == nil {
		plainText = labRequest(t, exampleRequest())
	}
	return &cmapi.CertificateRequest{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}, Spec: cmapi.CertificateRequestSpec{Request: plainText, IssuerRef: ref}}
}

func (c *conformance) roleMay(t *testing.T, role, resource string, may, not []string) {
	t.Helper()
	user := "user-of-" + role
	_, err := c.client.RbacV1().RoleBindings("default").Create(t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: user}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: role}, Subjects: []rbacv1.Subject{{Kind: "User", Name: user}},
	}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	for _, list := range []struct {
		verbs []string
		want  bool
	}{{may, true}, {not, false}} {
		for _, verb := range list.verbs {
			eventually(t, fmt.Sprintf("%s may %s %s: %t", role, verb, resource, list.want), func(ctx context.Context) error {
				review := &authorizationv1.SubjectAccessReview{Spec: authorizationv1.SubjectAccessReviewSpec{User: user, ResourceAttributes: &authorizationv1.ResourceAttributes{
					Group: "cert-manager.io", Version: "v1", Resource: resource, Verb: verb, Namespace: "default",
				}}}
				got, err := c.client.AuthorizationV1().SubjectAccessReviews().Create(ctx, review, metav1.CreateOptions{})
				if err == nil && got.Status.Allowed != list.want {
					err = fmt.Errorf("it is %t", got.Status.Allowed)
				}
				return err
			})
		}
	}
}

var approvers int

// approver is a user who may make requests and write their status, and approve for a
// signer.
func (c *conformance) approver(t *testing.T, right string) rest.Interface {
	t.Helper()
	approvers++
	user := fmt.Sprint("approver-", approvers)
	rules := []rbacv1.PolicyRule{
		{APIGroups: []string{"cert-manager.io"}, Resources: []string{"certificaterequests"}, Verbs: []string{"create", "get", "update"}},
		{APIGroups: []string{"cert-manager.io"}, Resources: []string{"certificaterequests/status"}, Verbs: []string{"update"}},
	}
	if right != "" {
		rules = append(rules, rbacv1.PolicyRule{APIGroups: []string{"cert-manager.io"}, Resources: []string{"signers"}, ResourceNames: []string{right}, Verbs: []string{"approve"}})
	}
	if _, err := c.client.RbacV1().ClusterRoles().Create(t.Context(), &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: user}, Rules: rules}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	_, err := c.client.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: user}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: user}, Subjects: []rbacv1.Subject{{Kind: "User", Name: user}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	config := rest.CopyConfig(c.admin)
	config.Impersonate = rest.ImpersonationConfig{UserName: user, Groups: []string{"system:authenticated"}}
	return certManagerClient(t, config)
}

// decides has somebody with a right, or none, set a condition.
func (c *conformance) decides(t *testing.T, right string, ref cmmeta.IssuerReference, what cmapi.CertificateRequestConditionType, allowed bool) {
	t.Helper()
	client := c.approver(t, right)
	name := fmt.Sprint("decided-", approvers)
	c.create(t, "certificaterequests", c.plainRequest(t, name, ref))
	write := func(ctx context.Context, change func(*cmapi.CertificateRequest)) error {
		r := &cmapi.CertificateRequest{}
		if err := client.Get().Namespace("default").Resource("certificaterequests").Name(name).Do(ctx).Into(r); err != nil {
			return err
		}
		r.APIVersion, r.Kind = "cert-manager.io/v1", "CertificateRequest"
		change(r)
		return client.Put().Namespace("default").Resource("certificaterequests").Name(name).SubResource("status").Body(r).Do(ctx).Error()
	}
	set := func(r *cmapi.CertificateRequest) {
		workload.SetRequestCondition(&r.Status, what, cmmeta.ConditionTrue, "lab", "so", time.Now())
	}
	denied := "that needs the verb approve on signers of cert-manager.io"
	eventually(t, fmt.Sprintf("%s by one with %q is allowed: %t", what, right, allowed), func(ctx context.Context) error {
		err := write(ctx, set)
		switch {
		case allowed:
			return err
		case err == nil:
			t.Fatal("it was let through")
		case !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), denied):
			return err // rights take a moment
		}
		return nil
	})
	if !allowed {
		return
	}
	for change, f := range map[string]func(*cmapi.CertificateRequest){
		"a decision is taken back":   func(r *cmapi.CertificateRequest) { r.Status.Conditions = nil },
		"a decision is written anew": func(r *cmapi.CertificateRequest) { r.Status.Conditions[0].Message = "otherwise" },
		"a decision beside its other": func(r *cmapi.CertificateRequest) {
			workload.SetRequestCondition(&r.Status, map[cmapi.CertificateRequestConditionType]cmapi.CertificateRequestConditionType{"Approved": "Denied", "Denied": "Approved"}[what], cmmeta.ConditionTrue, "lab", "so", time.Now())
		},
	} {
		if err := write(t.Context(), f); err == nil || !strings.Contains(err.Error(), "status.conditions") {
			t.Errorf("%s: %v", change, err)
		}
	}
}

// identity has requests in the name of others, and such that are changed.
func (c *conformance) identity(t *testing.T) {
	client := c.approver(t, "")
	me := fmt.Sprint("approver-", approvers)
	ref := cmmeta.IssuerReference{Group: "example.io", Kind: "Issuer", Name: "test-issuer"}
	create := func(name string, change func(*cmapi.CertificateRequest)) error {
		r := c.plainRequest(t, name, ref)
		r.APIVersion, r.Kind = "cert-manager.io/v1", "CertificateRequest"
		r.Annotations = map[string]string{"cert-manager.io/x": "y"}
		change(r)
		return client.Post().Namespace("default").Resource("certificaterequests").Body(r).Do(t.Context()).Error()
	}
	eventually(t, "a request in one's own name", func(context.Context) error {
		return create("mine", func(r *cmapi.CertificateRequest) {
			r.Spec.Username, r.Spec.Groups = me, []string{"system:authenticated"}
		})
	})
	for name, change := range map[string]func(*cmapi.CertificateRequest){
		"another-user":  func(r *cmapi.CertificateRequest) { r.Spec.Username = "root" },
		"another-group": func(r *cmapi.CertificateRequest) { r.Spec.Username, r.Spec.Groups = me, []string{"system:masters"} },
		"another-uid":   func(r *cmapi.CertificateRequest) { r.Spec.UID = "0" },
	} {
		if err := create(name, change); !apierrors.IsForbidden(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for what, change := range map[string]func(*cmapi.CertificateRequest){
		"a spec that is changed":        func(r *cmapi.CertificateRequest) { r.Spec.IsCA = true },
		"an annotation that is changed": func(r *cmapi.CertificateRequest) { r.Annotations["cert-manager.io/x"] = "z" },
		"an annotation that is added":   func(r *cmapi.CertificateRequest) { r.Annotations["cert-manager.io/z"] = "z" },
		"an annotation that is removed": func(r *cmapi.CertificateRequest) { r.Annotations = nil },
	} {
		r := &cmapi.CertificateRequest{}
		if err := client.Get().Namespace("default").Resource("certificaterequests").Name("mine").Do(t.Context()).Into(r); err != nil {
			t.Fatal(err)
		}
		r.APIVersion, r.Kind = "cert-manager.io/v1", "CertificateRequest"
		change(r)
		if err := client.Put().Namespace("default").Resource("certificaterequests").Name("mine").Body(r).Do(t.Context()).Error(); !apierrors.IsForbidden(err) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
