package main

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	"github.com/rogpeppe/go-internal/testscript"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/workload"
)

// certsAPI keeps objects of the kinds that a Certificate hangs on, as kube-apiserver
// does: lab/cert_test.go asks that the same. It may also stand for a controller.
type certsAPI struct {
	mu      sync.Mutex
	version int
	objects []*unstructured.Unstructured
	// denied are VERB:RESOURCE that are forbidden, unknown the resources that it does not
	// have.
	denied, unknown []string
	// controller is what becomes of an issuance at the second look: "", ready or fail.
	controller string
	looks      map[string]int
	// conflicts is how many writes of a status somebody else is faster.
	conflicts int
	authority *workload.Authority
}

// serveCerts starts it until the script ends: certs NAME FILE [deny=VERB:RESOURCE]
// [without=RESOURCE] [controller=ready|fail] [conflicts=N]. In the file ago(5m) stands
// for a time. It writes NAME.conf, whose context has the namespace shop.
func serveCerts(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: certs NAME FILE [deny=VERB:RESOURCE] [without=RESOURCE] [controller=ready|fail] [conflicts=N]")
	}
	api := &certsAPI{looks: map[string]int{}}
	for _, text := range strings.Split(agoes(ts, filled(ts, ts.ReadFile(args[1]))), "\n---\n") {
		o := &unstructured.Unstructured{}
		ts.Check(yaml.Unmarshal([]byte(text), &o.Object))
		if len(o.Object) == 0 {
			continue
		}
		o.SetResourceVersion("1")
		if o.GetUID() == "" {
			o.SetUID(types.UID("uid-of-" + o.GetKind() + "-" + o.GetName()))
		}
		api.objects = append(api.objects, o)
	}
	for _, arg := range args[2:] {
		key, value, _ := strings.Cut(arg, "=")
		switch key {
		case "deny":
			api.denied = append(api.denied, value)
		case "without":
			api.unknown = append(api.unknown, value)
		case "controller":
			api.controller = value
		case "conflicts":
			n, err := strconv.Atoi(value)
			ts.Check(err)
			api.conflicts = n
		}
	}
	api.start(ts, args[0])
}

func (a *certsAPI) start(ts *testscript.TestScript, name string) {
	key, err := issue.GenerateKey(issue.ECDSAP256)
	ts.Check(err)
	ca, err := issue.SelfSign(issue.Template{Subject: pkix.Name{CommonName: "ca"}, Authority: true, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(10000 * time.Hour)}, key)
	ts.Check(err)
	a.authority = &workload.Authority{Key: key, Chain: []*x509.Certificate{ca}}
	server := httptest.NewUnstartedServer(a)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	ts.Defer(server.Close)
	conf, err := layout.EncodeKubeconfig(layout.KubeconfigSpec{
		Cluster: "test", Server: server.URL, User: "user", Token: "admins-own", Namespace: "shop",
		CA: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}),
	})
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(name+".conf"), conf, 0o600))
}

var agoText = regexp.MustCompile(`ago\((-?[0-9a-z]+)\)`)

// agoes puts times in the place of ago(5m).
func agoes(ts *testscript.TestScript, text string) string {
	return agoText.ReplaceAllStringFunc(text, func(s string) string {
		d, err := time.ParseDuration(agoText.FindStringSubmatch(s)[1])
		ts.Check(err)
		return time.Now().Add(-d).UTC().Format(time.RFC3339)
	})
}

var certKinds = map[string]string{
	"certificates": "Certificate", "certificaterequests": "CertificateRequest", "issuers": "Issuer", "clusterissuers": "ClusterIssuer", "orders": "Order",
	"challenges": "Challenge", "secrets": "Secret", "leases": "Lease", "events": "Event", "ingresses": "Ingress",
	"pods": "Pod", "gateways": "Gateway", "listenersets": "ListenerSet", "brokers": "Broker",
}

// discovery is what it says of a group with an external issuer.
var discovery = map[string]any{
	"/apis": metav1.APIGroupList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"}, Groups: []metav1.APIGroup{{
		Name: "broker.example.com", PreferredVersion: metav1.GroupVersionForDiscovery{GroupVersion: "broker.example.com/v1", Version: "v1"},
		Versions: []metav1.GroupVersionForDiscovery{{GroupVersion: "broker.example.com/v1", Version: "v1"}},
	}}},
	"/apis/broker.example.com/v1": metav1.APIResourceList{TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: "broker.example.com/v1", APIResources: []metav1.APIResource{
		{Name: "brokers/status", SingularName: "", Namespaced: true, Kind: "Broker"}, {Name: "brokers", SingularName: "broker", Namespaced: true, Kind: "Broker"},
	}},
}

// asked is where a request goes to.
type asked struct{ resource, namespace, name, sub string }

func parseAsked(path string) asked {
	parts := strings.Split(strings.Trim(path, "/"), "/")
	parts = parts[min(len(parts), map[bool]int{true: 2, false: 3}[parts[0] == "api"]):]
	var t asked
	if len(parts) > 1 && parts[0] == "namespaces" {
		t.namespace, parts = parts[1], parts[2:]
	}
	parts = append(parts, "", "", "")
	t.resource, t.name, t.sub = parts[0], parts[1], parts[2]
	return t
}

func (a *certsAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if answer := discovery[r.URL.Path]; answer != nil {
		give(w, http.StatusOK, answer)
		return
	}
	t := parseAsked(r.URL.Path)
	kind := certKinds[t.resource]
	verb := map[string]string{http.MethodGet: "get", http.MethodPost: "create", http.MethodPut: "update"}[r.Method]
	if verb == "get" && t.name == "" {
		verb = "list"
	}
	resource := schema.GroupResource{Resource: t.resource}
	switch {
	case kind == "" || slices.Contains(a.unknown, t.resource):
		http.Error(w, "404 page not found", http.StatusNotFound)
	case slices.Contains(a.denied, verb+":"+t.resource):
		fail(w, apierrors.NewForbidden(resource, t.name, fmt.Errorf("User %q cannot %s resource %q", "user", verb, t.resource)))
	case verb == "list":
		a.list(w, r, kind, t)
	case verb == "create":
		a.create(w, r, t)
	default:
		i := slices.IndexFunc(a.objects, func(o *unstructured.Unstructured) bool {
			return o.GetKind() == kind && o.GetNamespace() == t.namespace && o.GetName() == t.name
		})
		switch {
		case i < 0:
			fail(w, apierrors.NewNotFound(resource, t.name))
		case verb == "get":
			a.control(a.objects[i])
			give(w, http.StatusOK, a.objects[i].Object)
		default:
			a.updateStatus(w, r, a.objects[i], t)
		}
	}
}

func (a *certsAPI) list(w http.ResponseWriter, r *http.Request, kind string, t asked) {
	which, _ := labels.Parse(r.URL.Query().Get("labelSelector"))
	field, _ := fields.ParseSelector(r.URL.Query().Get("fieldSelector"))
	items := []any{}
	for _, o := range a.objects {
		name, _, _ := unstructured.NestedString(o.Object, "involvedObject", "name")
		of, _, _ := unstructured.NestedString(o.Object, "involvedObject", "kind")
		if o.GetKind() == kind && (t.namespace == "" || o.GetNamespace() == t.namespace) && which.Matches(labels.Set(o.GetLabels())) &&
			field.Matches(fields.Set{"involvedObject.name": name, "involvedObject.kind": of}) {
			items = append(items, o.Object)
		}
	}
	give(w, http.StatusOK, map[string]any{"kind": kind + "List", "apiVersion": "v1", "metadata": map[string]any{}, "items": items})
}

func (a *certsAPI) create(w http.ResponseWriter, r *http.Request, t asked) {
	o := &unstructured.Unstructured{}
	body, _ := io.ReadAll(r.Body)
	if err := json.Unmarshal(body, &o.Object); err != nil || r.URL.Query().Get("fieldManager") != "kubepki-cert" || r.URL.Query().Get("fieldValidation") != "Strict" {
		fail(w, apierrors.NewBadRequest("no object, or nobody who manages it"))
		return
	}
	for _, have := range a.objects {
		if have.GetKind() == o.GetKind() && have.GetNamespace() == t.namespace && have.GetName() == o.GetName() {
			fail(w, apierrors.NewAlreadyExists(schema.GroupResource{Resource: t.resource}, o.GetName()))
			return
		}
	}
	a.version++
	o.SetResourceVersion(strconv.Itoa(a.version))
	o.SetUID("made")
	o.SetGeneration(1)
	if r.URL.Query().Get("dryRun") == "" {
		a.objects = append(a.objects, o)
	}
	give(w, http.StatusCreated, o.Object)
}

func (a *certsAPI) updateStatus(w http.ResponseWriter, r *http.Request, have *unstructured.Unstructured, t asked) {
	o := &unstructured.Unstructured{}
	body, _ := io.ReadAll(r.Body)
	a.version++
	if a.conflicts > 0 {
		a.conflicts--
		have.SetResourceVersion("theirs-" + strconv.Itoa(a.version))
	}
	err := json.Unmarshal(body, &o.Object)
	switch {
	case err != nil || t.sub != "status" || r.URL.Query().Get("fieldManager") != "kubepki-cert":
		fail(w, apierrors.NewBadRequest("no status, or nobody who manages it"))
	case o.GetResourceVersion() != have.GetResourceVersion():
		fail(w, apierrors.NewConflict(schema.GroupResource{Resource: t.resource}, o.GetName(), nil))
	case r.URL.Query().Get("dryRun") != "":
		give(w, http.StatusOK, o.Object)
	default:
		have.Object["status"] = o.Object["status"]
		have.SetResourceVersion(strconv.Itoa(a.version))
		a.looks[t.name] = 0
		give(w, http.StatusOK, have.Object)
	}
}

// control does, at the second look, what a controller would have done by then.
func (a *certsAPI) control(o *unstructured.Unstructured) {
	if a.controller == "" || o.GetKind() != "Certificate" && o.GetKind() != "CertificateRequest" {
		return
	}
	if a.looks[o.GetName()]++; a.looks[o.GetName()] < 2 {
		return
	}
	now := time.Now().UTC().Format(time.RFC3339)
	if o.GetKind() == "CertificateRequest" {
		a.sign(o)
		return
	}
	conditions, _, _ := unstructured.NestedSlice(o.Object, "status", "conditions")
	text, _ := json.Marshal(conditions)
	if len(conditions) > 0 && !bytes.Contains(text, []byte("ManuallyTriggered")) {
		return
	}
	value, _, _ := unstructured.NestedFieldNoCopy(o.Object, "status", "revision")
	before, _ := value.(float64)
	revision := int64(before)
	status := map[string]any{"revision": revision + 1, "notBefore": now, "notAfter": time.Now().Add(2160 * time.Hour).UTC().Format(time.RFC3339),
		"conditions": []any{map[string]any{"type": "Ready", "status": "True", "reason": "Ready", "message": "Certificate is up to date and has not expired"}}}
	if a.controller == "fail" {
		status = map[string]any{"revision": revision, "lastFailureTime": time.Now().Add(time.Second).UTC().Format(time.RFC3339), "failedIssuanceAttempts": int64(1), "conditions": []any{
			map[string]any{"type": "Ready", "status": "False", "reason": "DoesNotExist", "message": "Issuing certificate as Secret does not exist"},
			map[string]any{"type": "Issuing", "status": "False", "reason": "Failed", "message": "The certificate request has failed to complete and will be retried: no"},
		}}
	}
	o.Object["status"] = status
}

// sign answers a CertificateRequest, or denies it.
func (a *certsAPI) sign(o *unstructured.Unstructured) {
	r := &cmapi.CertificateRequest{}
	if runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, r) != nil || len(r.Status.Certificate) > 0 {
		return
	}
	if a.controller == "fail" {
		_ = unstructured.SetNestedSlice(o.Object, []any{map[string]any{"type": "Denied", "status": "True", "reason": "policy.example.com", "message": "not for you"}}, "status", "conditions")
		return
	}
	asked, err := workload.Read(r)
	if err != nil {
		return
	}
	issued, err := workload.Sign(asked, a.authority, nil, time.Now())
	if err != nil {
		return
	}
	var status map[string]any
	data, _ := json.Marshal(cmapi.CertificateRequestStatus{Certificate: issued.Chain, CA: issued.CA})
	_ = json.Unmarshal(data, &status)
	o.Object["status"] = status
}
