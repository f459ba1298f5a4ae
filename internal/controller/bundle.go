package controller

import (
	"bytes"
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/retry"

	"github.com/kubepki/kubepki/internal/podcert"
	"github.com/kubepki/kubepki/internal/signer"
	"github.com/kubepki/kubepki/internal/trust"
)

// TrustBundle is a bundle that is published as a ClusterTrustBundle.
type TrustBundle struct {
	// SignerName is the signer that the bundle belongs to; "": none.
	SignerName string
	// Name is what comes after the signer's in the name of the object. Pods mount
	// all bundles of a signer, or one by its whole name.
	Name string
	// Anchors returns what shall be trusted now, each an authority.
	Anchors func() ([]*x509.Certificate, error)
}

// ObjectName is the name of the ClusterTrustBundle: the API wants a signer's
// bundles to begin with its name, with colons for slashes
// (k8s.io/api/certificates/v1, ClusterTrustBundleSpec).
func (b TrustBundle) ObjectName() string {
	if b.SignerName == "" {
		return b.Name
	}
	return strings.ReplaceAll(b.SignerName, "/", ":") + ":" + b.Name
}

// Validate tells what of the names cannot be.
func (b TrustBundle) Validate() error {
	if b.SignerName != "" {
		if err := podcert.CheckSignerName(b.SignerName); err != nil {
			return err
		}
	}
	if wrong := validation.IsDNS1123Subdomain(b.Name); len(wrong) > 0 {
		return fmt.Errorf("name %q: %s", b.Name, wrong[0])
	}
	return nil
}

// TrustBundles keeps ClusterTrustBundles equal to what shall be trusted. An
// object of the name that another has made is left as it is, and none is ever
// deleted: pods that mount it would not start.
type TrustBundles struct {
	Client  kubernetes.Interface
	Bundles []TrustBundle
	// Version is v1 or v1beta1 of certificates.k8s.io; "": the newest that the API
	// server serves.
	Version string
	// Interval is how often sources and objects are looked at; 0: 30 s.
	Interval time.Duration
	Log      *slog.Logger
}

const (
	trustBundles = "clustertrustbundles"
	// bundleRetry is half of the first wait after something could not be published: a
	// source may not have been read yet.
	bundleRetry = 500 * time.Millisecond
	// managedBy marks what is ours.
	managedBy      = "app.kubernetes.io/managed-by"
	managedByValue = "kubepki"
)

// Run publishes until ctx ends. While the API server is away or serves no
// ClusterTrustBundles, and while a source cannot be read, it waits: what is
// published stays. An error tells that a name cannot be.
func (p *TrustBundles) Run(ctx context.Context) error {
	for _, b := range p.Bundles {
		if err := b.Validate(); err != nil {
			return fmt.Errorf("trust bundles: %w", err)
		}
	}
	interval, retryAfter := cmp.Or(p.Interval, 30*time.Second), bundleRetry
	for {
		failed := false
		for _, b := range p.Bundles {
			if err := p.publish(ctx, b); err != nil && ctx.Err() == nil {
				p.Log.Warn("trust bundle could not be published; it will be tried again", "bundle", b.ObjectName(), "error", err)
				failed = true
			}
		}
		wait := interval
		if failed {
			retryAfter = min(2*retryAfter, interval)
			wait = retryAfter
		} else {
			retryAfter = bundleRetry
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// Publish makes one object what it shall be, once. An error tells also of a name that
// cannot be, and of an object that another has made.
func (p *TrustBundles) Publish(ctx context.Context, b TrustBundle) error {
	if err := b.Validate(); err != nil {
		return err
	}
	return p.publish(ctx, b)
}

// publish makes one object what it shall be.
func (p *TrustBundles) publish(ctx context.Context, b TrustBundle) error {
	anchors, err := b.Anchors()
	if err != nil {
		return err
	}
	text, err := bundleText(anchors)
	if err != nil {
		return err
	}
	version := p.Version
	if version == "" {
		if version, err = servedVersion(ctx, p.Client.Discovery(), trustBundles); err != nil {
			return err
		}
	}
	api := newTrustBundleAPI(p.Client, version)
	changed := func(err error) bool { return apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) }
	return retry.OnError(retry.DefaultRetry, changed, func() error { return p.settle(ctx, api, b, text) })
}

// errForeign tells of an object that another has made.
var errForeign = errors.New("an object of that name is there, and does not carry the label " + managedBy + "=" + managedByValue +
	": give it the label, or give the bundle another name")

func (p *TrustBundles) settle(ctx context.Context, api trustBundleAPI, b TrustBundle, text string) error {
	o, err := api.get(ctx, b.ObjectName())
	switch {
	case apierrors.IsNotFound(err):
		o = &certificatesv1.ClusterTrustBundle{
			ObjectMeta: metav1.ObjectMeta{Name: b.ObjectName(), Labels: map[string]string{managedBy: managedByValue}},
			Spec:       certificatesv1.ClusterTrustBundleSpec{SignerName: b.SignerName, TrustBundle: text},
		}
		err = api.create(ctx, o)
	case err != nil:
		return err
	case o.Labels[managedBy] != managedByValue:
		return errForeign
	case o.Spec.TrustBundle == text:
		return nil
	default:
		o.Spec.TrustBundle = text
		err = api.update(ctx, o)
	}
	if err == nil {
		p.Log.Info("trust bundle is published", "bundle", b.ObjectName(), "anchors", strings.Count(text, "-----BEGIN"))
	}
	return err
}

// bundleText returns anchors in the form that the API server accepts: each once,
// authorities alone, at least one (k/k
// pkg/apis/certificates/validation/validation.go, validateTrustBundle).
func bundleText(anchors []*x509.Certificate) (string, error) {
	var each []*x509.Certificate
	for _, c := range anchors {
		if !c.IsCA || !c.BasicConstraintsValid {
			return "", fmt.Errorf("certificate %q is not an authority: it cannot be published as one", c.Subject)
		}
		if !slices.ContainsFunc(each, c.Equal) {
			each = append(each, c)
		}
	}
	if len(each) == 0 {
		return "", errors.New("there is no anchor to publish")
	}
	return string(trust.EncodeCertificates(each...)), nil
}

// Anchors returns what [TrustBundle.Anchors] wants: the certificates of PEM
// files, in their order, and the anchor of a source that is not among them. Both
// may be left out. While authorities change, a file holds the old and the new.
//
// The anchor of a source is the authority that signs where it issued itself, and
// else the topmost of its chain. The root above that is nobody's guess: it
// belongs into a file.
func Anchors(source signer.Source, files ...string) func() ([]*x509.Certificate, error) {
	return func() ([]*x509.Certificate, error) {
		var all []*x509.Certificate
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err != nil {
				return nil, err
			}
			certificates, err := trust.ParseCertificates(data)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", file, err)
			}
			all = append(all, certificates...)
		}
		if source == nil {
			return all, nil
		}
		return withAnchorOf(all, source)
	}
}

// withAnchorOf adds the anchor of a source unless one of the others is above it. A source
// that changes from one authority to another says itself what is to be trusted.
func withAnchorOf(all []*x509.Certificate, source signer.Source) ([]*x509.Certificate, error) {
	if several, ok := source.(interface {
		Anchors() ([]*x509.Certificate, error)
	}); ok {
		anchors, err := several.Anchors()
		if err != nil {
			return nil, fmt.Errorf("the authority: %w", err)
		}
		for _, a := range anchors {
			all = withAnchor(all, a)
		}
		return all, nil
	}
	a, err := source.Authority()
	if err != nil {
		return nil, fmt.Errorf("the authority: %w", err)
	}
	top := a.Certificate
	if len(a.Chain) > 0 {
		top = a.Chain[len(a.Chain)-1]
	}
	return withAnchor(all, top), nil
}

func withAnchor(all []*x509.Certificate, top *x509.Certificate) []*x509.Certificate {
	for _, c := range all {
		if c.Equal(top) || bytes.Equal(c.RawSubject, top.RawIssuer) && trust.SignedBy(top, c) {
			return all
		}
	}
	return append(all, top)
}
