package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubepki/kubepki/internal/kube"
	"github.com/kubepki/kubepki/internal/report"
	"github.com/kubepki/kubepki/internal/trust"
	"github.com/kubepki/kubepki/internal/workload"
)

func requestResource(name string) string { return "certificaterequest.cert-manager.io/" + name }

// runRequest has a request of one's own signed.
func (o *certCreateOptions) runRequest(ctx context.Context, s streams, name string) error {
	r, asked, err := o.certificateRequest(s, name)
	if err != nil {
		return err
	}
	file := o.certificateFile
	if file == "" {
		file = name + ".crt"
	}
	dir, base := filepath.Split(file)
	if dir == "" {
		dir = "."
	}
	if err := refuseExisting(dir, base); err != nil {
		return err
	}
	if o.dryRun == dryRunClient {
		r.Namespace = o.printedNamespace()
		return o.print(s, requestResource(name), r)
	}
	api, err := o.access.connect()
	if err != nil {
		return err
	}
	r.Namespace = o.access.namespace
	o.sayIssuer(ctx, s, api, r.Spec.IssuerRef)
	made, err := o.askRequest(ctx, s, api, r)
	if err != nil || o.dryRun == dryRunServer {
		return err
	}
	issued, err := o.awaitRequest(ctx, s, api, made, asked)
	if err != nil {
		return err
	}
	if err := writeNew(ctx, dir, []newFile{{base, issued, 0o644}}, false); err != nil {
		return err
	}
	_, err = fmt.Fprintln(s.out, file)
	return err
}

// certificateRequest is what is to be made, judged as our own controller would.
func (o *certCreateOptions) certificateRequest(s streams, name string) (*cmapi.CertificateRequest, *workload.Asked, error) {
	data, err := readObjects(s, o.request)
	if err != nil {
		return nil, nil, fmt.Errorf("--request: %w", err)
	}
	usages, isCA, err := workload.UsagesAsked(data)
	if err != nil {
		return nil, nil, advise(fmt.Errorf("--request %s: %w", o.request, err), "make one, with its key: openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -keyout %s.key -out %s.csr -subj / -addext subjectAltName=DNS:NAME", name, name)
	}
	if isCA && !o.isCA {
		return nil, nil, usagef("--request %s: asks for an authority: say --ca if that is meant", o.request)
	}
	if len(o.usages) > 0 {
		usages = o.usageNames(nil)
	}
	r := &cmapi.CertificateRequest{
		TypeMeta:   metav1.TypeMeta{APIVersion: cmapi.SchemeGroupVersion.String(), Kind: cmapi.CertificateRequestKind},
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       cmapi.CertificateRequestSpec{Request: data, IssuerRef: o.issuerRef(), IsCA: o.isCA, Usages: usages},
	}
	if r.Spec.Duration, err = lifeFlag("--duration", o.duration); err != nil {
		return nil, nil, err
	}
	asked, err := workload.Read(r)
	if err != nil {
		return nil, nil, fmt.Errorf("--request %s: %w", o.request, err)
	}
	return r, asked, nil
}

// askRequest makes the CertificateRequest, or finds that of an earlier run.
func (o *certCreateOptions) askRequest(ctx context.Context, s streams, api *kube.Certs, r *cmapi.CertificateRequest) (*cmapi.CertificateRequest, error) {
	made, err := api.CreateCertificateRequest(ctx, r, o.dryRun == dryRunServer)
	if apierrors.IsAlreadyExists(err) {
		if made, err = api.Request(ctx, r.Namespace, r.Name); err == nil && !bytes.Equal(made.Spec.Request, r.Spec.Request) {
			return nil, advise(fmt.Errorf("CertificateRequest %s of namespace %s is another than %s", r.Name, r.Namespace, o.request), "choose another name, or remove it: kubectl -n %s delete certificaterequest %s", r.Namespace, r.Name)
		}
		if err == nil {
			fmt.Fprintf(s.err, "going on with %s\n", requestResource(r.Name))
			return made, nil
		}
	}
	if err != nil {
		return nil, adviseCert(err, "create and get certificaterequests.cert-manager.io in namespace "+r.Namespace)
	}
	if o.dryRun == dryRunServer {
		return made, o.print(s, requestResource(r.Name), made)
	}
	fmt.Fprintf(s.err, "asked %s: %s\n", kube.IssuerText(r.Spec.IssuerRef), requestResource(r.Name))
	return made, nil
}

// awaitRequest waits for the certificate, and looks whether it is that of the request.
func (o *certCreateOptions) awaitRequest(ctx context.Context, s streams, api *kube.Certs, made *cmapi.CertificateRequest, asked *workload.Asked) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	said := ""
	var pace kube.Pace
	for {
		r, err := api.Request(ctx, made.Namespace, made.Name)
		switch {
		case err != nil && ctx.Err() == nil:
			return nil, adviseCert(err, "get certificaterequests.cert-manager.io in namespace "+made.Namespace)
		case err == nil && r.UID != made.UID:
			return nil, fmt.Errorf("%s was made anew by somebody else", requestResource(made.Name))
		case err == nil && len(r.Status.Certificate) > 0:
			return answerOf(r, asked)
		case err == nil:
			var ended bool
			if said, ended = o.sayProgress(s, r, said); ended {
				return nil, advise(fmt.Errorf("%s: %s", requestResource(r.Name), report.Plain(said)), "ask anew once you know why, under another name or after kubectl -n %s delete certificaterequest %s", r.Namespace, r.Name)
			}
		}
		switch err := pace.Wait(ctx); {
		case errors.Is(err, context.DeadlineExceeded):
			return nil, advise(fmt.Errorf("%s: no certificate within %s: %s", requestResource(made.Name), o.timeout, report.Plain(said)), "run the same command again to go on; kubepki cert approve %s -n %s approves it, where nobody else does", made.Name, made.Namespace)
		case err != nil:
			return nil, err
		}
	}
}

// sayProgress tells what a request waits for, when that changes, and whether it has
// ended without a certificate.
func (o *certCreateOptions) sayProgress(s streams, r *cmapi.CertificateRequest, said string) (now string, ended bool) {
	now = "waits for an approval"
	for _, c := range r.Status.Conditions {
		is := c.Status == cmmeta.ConditionTrue
		switch {
		case is && (c.Type == cmapi.CertificateRequestConditionDenied || c.Type == cmapi.CertificateRequestConditionInvalidRequest),
			c.Type == cmapi.CertificateRequestConditionReady && (c.Reason == cmapi.CertificateRequestReasonFailed || c.Reason == cmapi.CertificateRequestReasonDenied):
			return string(c.Type) + " " + c.Reason + ": " + c.Message, true
		case c.Type == cmapi.CertificateRequestConditionApproved && is && now == "waits for an approval":
			now = "approved, waits for the issuer"
		case c.Type == cmapi.CertificateRequestConditionReady && c.Message != "":
			now = c.Message
		}
	}
	if now != said {
		fmt.Fprintf(s.err, "%s: %s\n", requestResource(r.Name), report.Plain(now))
	}
	return now, false
}

// answerOf is the chain that was issued, if it is for the key that was asked for.
func answerOf(r *cmapi.CertificateRequest, asked *workload.Asked) ([]byte, error) {
	chain, err := trust.ParseCertificates(r.Status.Certificate)
	if err != nil {
		return nil, fmt.Errorf("%s: status.certificate: %w", requestResource(r.Name), err)
	}
	if !trust.SameKey(chain[0].PublicKey, asked.Public) {
		return nil, fmt.Errorf("%s: the certificate is for another key than that of the request", requestResource(r.Name))
	}
	return trust.EncodeCertificates(chain...), nil
}
