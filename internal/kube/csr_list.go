package kube

import (
	"context"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"

	"github.com/kubepki/kubepki/internal/csr"
)

// pageSize is the number of objects that one answer of the API server holds,
// as in kubectl's lists.
const pageSize = 500

// EachPage calls each with the CertificateSigningRequests of a cluster, some
// hundreds at a time, so that any number of them needs little memory. signer
// leaves only those of one signer, "" none out. Of a list that takes longer than
// the API server keeps old revisions the rest is as new as can be had.
func EachPage(ctx context.Context, client kubernetes.Interface, signer string, each func([]csr.Request) error) error {
	options := metav1.ListOptions{Limit: pageSize}
	if signer != "" {
		options.FieldSelector = fields.OneTermEqualSelector("spec.signerName", signer).String()
	}
	return pages(options, func(o metav1.ListOptions) (metav1.ListMeta, error) {
		list, err := client.CertificatesV1().CertificateSigningRequests().List(ctx, o)
		if err != nil {
			return metav1.ListMeta{}, fmt.Errorf("listing certificate signing requests: %w", err)
		}
		page := make([]csr.Request, len(list.Items))
		for i := range list.Items {
			page[i] = Request(&list.Items[i])
		}
		return list.ListMeta, each(page)
	})
}

// ListNodes returns all nodes of a cluster.
func ListNodes(ctx context.Context, client kubernetes.Interface) ([]csr.Node, error) {
	var nodes []csr.Node
	err := pages(metav1.ListOptions{Limit: pageSize}, func(o metav1.ListOptions) (metav1.ListMeta, error) {
		list, err := client.CoreV1().Nodes().List(ctx, o)
		if err != nil {
			return metav1.ListMeta{}, fmt.Errorf("listing nodes: %w", err)
		}
		for i := range list.Items {
			nodes = append(nodes, Node(&list.Items[i]))
		}
		return list.ListMeta, nil
	})
	return nodes, err
}

// pages asks for page after page. When the revision of the first is gone (410),
// the API server offers to go on with a newer one.
func pages(o metav1.ListOptions, page func(metav1.ListOptions) (metav1.ListMeta, error)) error {
	for {
		meta, err := page(o)
		var status apierrors.APIStatus
		if apierrors.IsResourceExpired(err) && o.Continue != "" && errors.As(err, &status) && status.Status().Continue != "" {
			o.Continue = status.Status().Continue
			continue
		}
		if err != nil {
			return err
		}
		if o.Continue = meta.Continue; o.Continue == "" {
			return nil
		}
	}
}

// GetRequest returns the CertificateSigningRequest of a name.
func GetRequest(ctx context.Context, client kubernetes.Interface, name string) (csr.Request, error) {
	o, err := client.CertificatesV1().CertificateSigningRequests().Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return csr.Request{}, err // it names the object
	}
	return Request(o), nil
}
