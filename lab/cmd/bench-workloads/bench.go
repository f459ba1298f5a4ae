//go:build linux

package main

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"fmt"
	"os"
	"strings"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kubepki/kubepki/internal/certmanager"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/trust"
	"github.com/kubepki/kubepki/internal/workload"
)

const patience = 10 * time.Minute

// namespace is a new one in each run: where no kube-controller-manager is none is ever
// gone.
var namespace = "bench-workloads-" + strings.ToLower(rand.Text()[:6])

type bench struct {
	options
	client *certmanager.Client
}

// prepare makes a namespace with an issuer, of an authority with an ECDSA key.
func (b *bench) prepare(ctx context.Context) error {
	_, err := b.client.Kube.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	key, err := issue.GenerateKey(issue.ECDSAP256)
	if err != nil {
		return err
	}
	now := time.Now()
	template := issue.Template{Authority: true, NotBefore: now.Add(-time.Minute), NotAfter: now.Add(5 * 365 * 24 * time.Hour)}
	template.Subject.CommonName = "bench"
	authority, err := issue.SelfSign(template, key)
	if err != nil {
		return err
	}
	encoded, err := issue.EncodePrivateKey(key)
	if err != nil {
		return err
	}
	_, err = b.client.Kube.CoreV1().Secrets(namespace).Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "authority"}, Type: corev1.SecretTypeTLS,
		Data: map[string][]byte{corev1.TLSCertKey: trust.EncodeCertificates(authority), corev1.TLSPrivateKeyKey: encoded},
	}, metav1.CreateOptions{})
	if err == nil {
		issuer := &cmapi.Issuer{ObjectMeta: metav1.ObjectMeta{Name: "ca"}}
		issuer.Spec.CA = &cmapi.CAIssuer{SecretName: "authority"}
		err = b.client.CM.Post().Namespace(namespace).Resource("issuers").Body(issuer).Do(ctx).Error()
	}
	return err
}

// tidy removes what was made; without kube-controller-manager no namespace empties
// itself.
func (b *bench) tidy() {
	ctx := context.Background()
	for _, resource := range []string{"certificates", "certificaterequests", "issuers"} {
		report(b.client.CM.Delete().Namespace(namespace).Resource(resource).Do(ctx).Error())
	}
	report(b.client.Kube.CoreV1().Secrets(namespace).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}))
	report(b.client.Kube.CoreV1().Namespaces().Delete(ctx, namespace, metav1.DeleteOptions{}))
}

func report(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench-workloads: tidying up:", err)
	}
}

func certificate(i int) *cmapi.Certificate {
	name := fmt.Sprintf("c%05d", i)
	return &cmapi.Certificate{
		TypeMeta:   metav1.TypeMeta{APIVersion: cmapi.SchemeGroupVersion.String(), Kind: cmapi.CertificateKind},
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: cmapi.CertificateSpec{
			SecretName: name, DNSNames: []string{name + ".example.org", name + ".bench.svc", name}, IssuerRef: cmmeta.IssuerReference{Name: "ca", Kind: "Issuer", Group: "cert-manager.io"},
			PrivateKey: &cmapi.CertificatePrivateKey{Algorithm: cmapi.ECDSAKeyAlgorithm},
		},
	}
}

// each does something for each Certificate, some at a time.
func (b *bench) each(ctx context.Context, do func(context.Context, int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(b.writers)
	for i := range b.count {
		group.Go(func() error { return do(ctx, i) })
	}
	return group.Wait()
}

// create makes the Certificates.
func (b *bench) create(ctx context.Context) error {
	return b.each(ctx, func(ctx context.Context, i int) error {
		return b.client.CM.Post().Namespace(namespace).Resource("certificates").Body(certificate(i)).Do(ctx).Error()
	})
}

// bare does the four writes of each issuance, on Certificates that are there, with what
// is written prepared beforehand. It returns how many issuances that makes in a second,
// and how many with the creation of the Certificate as a fifth write, which is measured
// along with what a controller does. Everything is removed again.
func (b *bench) bare(ctx context.Context) (four, five float64, err error) {
	begin := time.Now()
	if err := b.create(ctx); err != nil {
		return 0, 0, err
	}
	created := time.Since(begin)
	sets := make([]*writes, b.count)
	if err := b.each(ctx, func(_ context.Context, i int) (err error) {
		sets[i], err = newWrites(certificate(i))
		return err
	}); err != nil {
		return 0, 0, err
	}
	begin = time.Now()
	if err := b.each(ctx, func(ctx context.Context, i int) error { return sets[i].do(ctx, b.client) }); err != nil {
		return 0, 0, err
	}
	took := time.Since(begin)
	return perSecond(b.count, took), perSecond(b.count, took+created), b.clear(ctx)
}

// clear removes Certificates with all that was made for them, and keeps the issuer.
func (b *bench) clear(ctx context.Context) error {
	for _, resource := range []string{"certificates", "certificaterequests"} {
		if err := b.client.CM.Delete().Namespace(namespace).Resource(resource).Do(ctx).Error(); err != nil {
			return err
		}
	}
	options := metav1.ListOptions{LabelSelector: cmapi.PartOfCertManagerControllerLabelKey + "=true"}
	return b.client.Kube.CoreV1().Secrets(namespace).DeleteCollection(ctx, metav1.DeleteOptions{}, options)
}

// issuance measures from the first Certificate that is created to the last that is ready,
// also as a share of the bare writes, if these are known.
func (b *bench) issuance(ctx context.Context, who subject, four, five float64) error {
	c, err := who.start(ctx)
	if err != nil {
		return err
	}
	defer c.end()
	var end time.Time
	last := make(chan error, 1)
	go func() {
		var err error
		end, err = b.awaitReady(ctx)
		last <- err
	}()
	begin := time.Now()
	if err := b.create(ctx); err != nil {
		return err
	}
	created := time.Since(begin)
	if err := <-last; err != nil {
		return fmt.Errorf("%w; the controller says: %s", err, c.words())
	}
	took := end.Sub(begin)
	rate, share := perSecond(b.count, took), ""
	if four > 0 {
		share = fmt.Sprintf(", %.0f %% of the four writes bare, %.0f %% of all five", 100*rate/four, 100*rate/five)
	}
	fmt.Printf("%s: issued %d in %s, %.1f/s%s (created in %s); the controller took %s of a processor, RSS %s\n",
		who.name, b.count, took.Round(time.Millisecond), rate, share, created.Round(time.Millisecond), c.processor(), c.memory())
	return b.good(ctx)
}

// good looks whether a Secret holds what it should.
func (b *bench) good(ctx context.Context) error {
	s, err := b.client.Kube.CoreV1().Secrets(namespace).Get(ctx, certificate(b.count-1).Spec.SecretName, metav1.GetOptions{})
	if err != nil {
		return err
	}
	list, err := trust.ParseCertificates(s.Data[corev1.TLSCertKey])
	if err != nil {
		return err
	}
	anchors, err := trust.ParseCertificates(s.Data[cmmeta.TLSCAKey])
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	for _, a := range anchors {
		pool.AddCert(a)
	}
	_, err = list[0].Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}, DNSName: certificate(b.count - 1).Spec.DNSNames[0]})
	return err
}

// awaitReady waits until all Certificates are ready. It follows their metadata, which is
// all that the API server has to send: each is created and changed once. Then it looks at
// them. It returns when they were ready.
func (b *bench) awaitReady(ctx context.Context) (time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	resource := cmapi.SchemeGroupVersion.WithResource("certificates")
	versions, changed := map[string]string{}, map[string]bool{}
	for len(changed) < b.count {
		w, err := b.client.Metadata.Resource(resource).Namespace(namespace).Watch(ctx, metav1.ListOptions{})
		if err != nil {
			return time.Time{}, err
		}
		for event := range w.ResultChan() {
			o, ok := event.Object.(*metav1.PartialObjectMetadata)
			if !ok {
				break
			}
			if was := versions[o.Name]; was != "" && was != o.ResourceVersion {
				changed[o.Name] = true
			}
			versions[o.Name] = o.ResourceVersion
			if len(changed) == b.count {
				break
			}
		}
		w.Stop()
		if err := ctx.Err(); err != nil {
			return time.Time{}, fmt.Errorf("%d of %d have changed: %w", len(changed), b.count, err)
		}
	}
	return b.allReady(ctx)
}

// allReady looks until all Certificates are ready, and returns when the look began that
// found them so.
func (b *bench) allReady(ctx context.Context) (time.Time, error) {
	for {
		looked := time.Now()
		var list cmapi.CertificateList
		if err := b.client.CM.Get().Namespace(namespace).Resource("certificates").Do(ctx).Into(&list); err != nil {
			return time.Time{}, err
		}
		ready := 0
		for i := range list.Items {
			if d := workload.Condition(&list.Items[i].Status, cmapi.CertificateConditionReady); d != nil && d.Status == cmmeta.ConditionTrue {
				ready++
			}
		}
		if ready == b.count {
			return looked, nil
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// restart measures a controller that finds everything in order.
func (b *bench) restart(ctx context.Context) error {
	before, err := b.versions(ctx)
	if err != nil {
		return err
	}
	begin := time.Now()
	c, err := b.ours().start(ctx)
	if err != nil {
		return err
	}
	defer c.end()
	took := time.Since(begin)
	time.Sleep(5 * time.Second) // what it would write it writes now
	after, err := b.versions(ctx)
	if err != nil {
		return err
	}
	changed := max(0, len(before)-len(after)) // removed
	for name, v := range after {
		if before[name] != v {
			changed++
		}
	}
	fmt.Printf("restart: ready after %s with %d objects; %d objects written; the controller took %s of a processor, RSS %s\n",
		took.Round(time.Millisecond), len(before), changed, c.processor(), c.memory())
	return nil
}

// versions are those of all objects that the controller writes. Their metadata is all
// that is asked for: the API server is to be as it was when the measuring begins.
func (b *bench) versions(ctx context.Context) (map[string]string, error) {
	all := map[string]string{}
	for _, resource := range []schema.GroupVersionResource{
		cmapi.SchemeGroupVersion.WithResource("certificates"), cmapi.SchemeGroupVersion.WithResource("certificaterequests"),
		cmapi.SchemeGroupVersion.WithResource("issuers"), corev1.SchemeGroupVersion.WithResource("secrets"),
	} {
		list, err := b.client.Metadata.Resource(resource).Namespace(namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, err
		}
		for i := range list.Items {
			all[resource.Resource+"/"+list.Items[i].Name] = list.Items[i].ResourceVersion
		}
	}
	return all, nil
}
