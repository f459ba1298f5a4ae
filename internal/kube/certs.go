package kube

import (
	"context"
	"fmt"

	cmacme "github.com/cert-manager/cert-manager/pkg/apis/acme/v1"
	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// Certs speaks cert-manager.io for the commands: whole objects, read when they are
// asked for. It is safe for concurrent use.
type Certs struct {
	objects dynamic.Interface
	kube    kubernetes.Interface
}

// certsManager owns the fields that the commands write.
const certsManager = "kubepki-cert"

var (
	certificatesResource  = cmapi.SchemeGroupVersion.WithResource("certificates")
	requestsResource      = cmapi.SchemeGroupVersion.WithResource("certificaterequests")
	issuersResource       = cmapi.SchemeGroupVersion.WithResource("issuers")
	clusterIssuerResource = cmapi.SchemeGroupVersion.WithResource("clusterissuers")
	ordersResource        = cmacme.SchemeGroupVersion.WithResource("orders")
	challengesResource    = cmacme.SchemeGroupVersion.WithResource("challenges")
)

// NewCerts makes one that is bounded by the API server alone.
func NewCerts(config *rest.Config) (*Certs, error) {
	config = rest.CopyConfig(config)
	config.Timeout = requestTimeout // discovery takes no context
	objects, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig: %w", err)
	}
	return &Certs{objects: objects, kube: kube}, nil
}

// IsNoKind tells of an answer that the API server does not know a resource at all, in
// difference to an object that is not there.
func IsNoKind(err error) bool {
	return apierrors.IsNotFound(err) && apierrors.HasStatusCause(err, metav1.CauseTypeUnexpectedServerResponse)
}

// get reads one object; namespace is empty for one of the cluster.
func get[T any](ctx context.Context, c *Certs, r schema.GroupVersionResource, namespace, name string) (*T, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	o, err := c.objects.Resource(r).Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	return typed[T](o)
}

func typed[T any](o *unstructured.Unstructured) (*T, error) {
	out := new(T)
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(o.Object, out); err != nil {
		return nil, fmt.Errorf("%s %s: %w", o.GetKind(), o.GetName(), err)
	}
	return out, nil
}

// listAll reads all objects of a namespace, "" for all namespaces, page by page; keep
// tells of each whether it is wanted.
func listAll[T any](ctx context.Context, c *Certs, r schema.GroupVersionResource, namespace string, o metav1.ListOptions, keep func(*T) bool) ([]T, error) {
	var all []T
	o.Limit = pageSize
	for {
		limited, cancel := context.WithTimeout(ctx, requestTimeout)
		page, err := c.objects.Resource(r).Namespace(namespace).List(limited, o)
		cancel()
		if err != nil {
			return nil, err
		}
		for i := range page.Items {
			one, err := typed[T](&page.Items[i])
			if err != nil {
				return nil, err
			}
			if keep == nil || keep(one) {
				all = append(all, *one)
			}
		}
		if o.Continue = page.GetContinue(); o.Continue == "" {
			return all, nil
		}
	}
}

// Certificate reads one.
func (c *Certs) Certificate(ctx context.Context, namespace, name string) (*cmapi.Certificate, error) {
	return get[cmapi.Certificate](ctx, c, certificatesResource, namespace, name)
}

// Certificates reads those of a namespace, "" for all of them, that a selector of
// labels takes ("": all).
func (c *Certs) Certificates(ctx context.Context, namespace, selector string) ([]cmapi.Certificate, error) {
	return listAll[cmapi.Certificate](ctx, c, certificatesResource, namespace, metav1.ListOptions{LabelSelector: selector}, nil)
}

// Request reads a CertificateRequest.
func (c *Certs) Request(ctx context.Context, namespace, name string) (*cmapi.CertificateRequest, error) {
	return get[cmapi.CertificateRequest](ctx, c, requestsResource, namespace, name)
}

// CreateCertificate makes one, and returns what the API server made of it. With dryRun
// it keeps nothing.
func (c *Certs) CreateCertificate(ctx context.Context, o *cmapi.Certificate, dryRun bool) (*cmapi.Certificate, error) {
	return create[cmapi.Certificate](ctx, c, certificatesResource, o.Namespace, o, dryRun)
}

// CreateCertificateRequest makes one, as [Certs.CreateCertificate].
func (c *Certs) CreateCertificateRequest(ctx context.Context, o *cmapi.CertificateRequest, dryRun bool) (*cmapi.CertificateRequest, error) {
	return create[cmapi.CertificateRequest](ctx, c, requestsResource, o.Namespace, o, dryRun)
}

func create[T any](ctx context.Context, c *Certs, r schema.GroupVersionResource, namespace string, object any, dryRun bool) (*T, error) {
	body, err := untyped(object)
	if err != nil {
		return nil, err
	}
	o := metav1.CreateOptions{FieldManager: certsManager, FieldValidation: metav1.FieldValidationStrict}
	if dryRun {
		o.DryRun = []string{metav1.DryRunAll}
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	made, err := c.objects.Resource(r).Namespace(namespace).Create(ctx, body, o)
	if err != nil {
		return nil, err
	}
	return typed[T](made)
}

// untyped is an object as it is sent: without a status, and without fields of metadata
// that the API server fills in.
func untyped(object any) (*unstructured.Unstructured, error) {
	body, err := runtime.DefaultUnstructuredConverter.ToUnstructured(object)
	if err != nil {
		return nil, err
	}
	delete(body, "status")
	u := &unstructured.Unstructured{Object: body}
	unstructured.RemoveNestedField(body, "metadata", "creationTimestamp")
	return u, nil
}

// Manifest is an object as a file for kubectl apply has it: without what only the API
// server knows.
func Manifest(object any) (map[string]any, error) {
	u, err := untyped(object)
	if err != nil {
		return nil, err
	}
	for _, field := range []string{"uid", "resourceVersion", "generation", "managedFields"} {
		unstructured.RemoveNestedField(u.Object, "metadata", field)
	}
	return u.Object, nil
}
