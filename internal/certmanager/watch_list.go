package certmanager

import (
	"context"
	"fmt"
	"io"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	apimeta "k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
)

// listed lists a resource of cert-manager.io, of which there may be tens of thousands, and
// makes of each object what is kept of it as it comes: one whole object is in memory at a
// time. A list that is streamed through a watch needs no more memory, but there the API
// server copies each object and writes it as JSON in JSON, flushed by itself, and we read
// it three times: most of a start went into that.
type listed struct {
	client              rest.Interface
	resource, namespace string
	narrow              func(*metav1.ListOptions)
	kind                any
	reduce              cache.TransformFunc
}

// emptyOne and emptyList are an empty object and list of a kind; nil for kinds that are
// not listed in this way.
func emptyOne(kind any) runtime.Object {
	switch kind.(type) {
	case *cmapi.Certificate:
		return &cmapi.Certificate{}
	case *cmapi.CertificateRequest:
		return &cmapi.CertificateRequest{}
	}
	return nil
}

func emptyList(kind any) runtime.Object {
	switch kind.(type) {
	case *cmapi.Certificate:
		return &cmapi.CertificateList{}
	case *cmapi.CertificateRequest:
		return &cmapi.CertificateRequestList{}
	}
	return nil
}

// list lists all that there is now, whatever version is asked for: the newest is never
// too old. A list that breaks off, as one that takes the API server longer than it gives
// any request (a minute), comes in pages, which the API server may have to read from etcd.
func (l listed) list(ctx context.Context, _ metav1.ListOptions) (runtime.Object, error) {
	body, err := l.request(&metav1.ListOptions{}).Stream(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = body.Close() }() // what was wanted of it has been read
	all := &metav1.List{}
	all.ResourceVersion, err = readList(body, func() runtime.Object { return emptyOne(l.kind) }, l.into(all))
	if err == nil || ctx.Err() != nil {
		return all, err
	}
	return l.pages(ctx)
}

func (l listed) request(o *metav1.ListOptions) *rest.Request {
	l.narrow(o)
	return l.client.Get().NamespaceIfScoped(l.namespace, l.namespace != "").Resource(l.resource).VersionedParams(o, metav1.ParameterCodec)
}

// into adds what is kept of an object to a list.
func (l listed) into(all *metav1.List) func(runtime.Object) error {
	return func(o runtime.Object) error {
		v, err := l.reduce(o)
		if err != nil {
			return err
		}
		small, ok := v.(runtime.Object)
		if !ok {
			return fmt.Errorf("of a %T no object is kept, but a %T", o, v)
		}
		all.Items = append(all.Items, runtime.RawExtension{Object: small})
		return nil
	}
}

// readList reads a list in JSON, object by object, and returns its version.
func readList(from io.Reader, empty func() runtime.Object, each func(runtime.Object) error) (string, error) {
	d := jsontext.NewDecoder(from, jsontext.AllowDuplicateNames(true), jsontext.AllowInvalidUTF8(true))
	read := func(into any) error { return json.UnmarshalDecode(d, into, json.WithUnmarshalers(skipped())) }
	if t, err := d.ReadToken(); err != nil || t.Kind() != '{' {
		return "", fmt.Errorf("no list came, but %q: %w", t.Kind(), err)
	}
	var about metav1.ListMeta
	for d.PeekKind() == '"' {
		name, err := d.ReadToken()
		if err != nil {
			return "", err
		}
		switch field := name.String(); {
		case field == "metadata":
			err = read(&about)
		case field == "items" && d.PeekKind() == '[':
			err = readItems(d, func() error {
				o := empty()
				if err := read(o); err != nil {
					return err
				}
				return each(o)
			})
		default:
			err = d.SkipValue()
		}
		if err != nil {
			return "", err
		}
	}
	if _, err := d.ReadToken(); err != nil { // the list's end
		return "", err
	}
	return about.ResourceVersion, nil
}

// readItems reads an array; one reads the value that comes next.
func readItems(d *jsontext.Decoder, one func() error) error {
	if _, err := d.ReadToken(); err != nil {
		return err
	}
	for d.PeekKind() != ']' {
		if err := one(); err != nil {
			return err
		}
	}
	_, err := d.ReadToken()
	return err
}

// pageSize is how many whole objects are in memory at a time where a list comes in pages.
const pageSize = 250

// pages lists what there is in pages, all of one version.
func (l listed) pages(ctx context.Context) (runtime.Object, error) {
	all := &metav1.List{}
	for next := ""; ; {
		page := emptyList(l.kind)
		if err := l.request(&metav1.ListOptions{Limit: pageSize, Continue: next}).Do(ctx).Into(page); err != nil {
			return nil, err
		}
		// What is kept of one object does not hold on to its page.
		if err := apimeta.EachListItemWithAlloc(page, l.into(all)); err != nil {
			return nil, err
		}
		about, err := apimeta.ListAccessor(page)
		if err != nil {
			return nil, err
		}
		all.ResourceVersion = about.GetResourceVersion()
		if next = about.GetContinue(); next == "" {
			return all, nil
		}
	}
}

// notStreamed is a source whose lists are not to be streamed through a watch.
type notStreamed struct{ *cache.ListWatch }

// IsWatchListSemanticsUnSupported tells the reflector so.
func (notStreamed) IsWatchListSemanticsUnSupported() bool { return true }
