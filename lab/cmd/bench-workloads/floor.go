//go:build linux

package main

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"

	"github.com/kubepki/kubepki/internal/certmanager"
	"github.com/kubepki/kubepki/internal/workload"
)

// writes are the four writes of an issuance, prepared.
type writes struct {
	certificate *cmapi.Certificate
	request     *cmapi.CertificateRequest
	answer      cmapi.CertificateRequestStatus
	secret      *applycorev1.SecretApplyConfiguration
	status      cmapi.CertificateStatus
}

func newWrites(o *cmapi.Certificate) (*writes, error) {
	key, err := workload.NewKey(&o.Spec)
	if err != nil {
		return nil, err
	}
	text, err := workload.Request(&o.Spec, key)
	if err != nil {
		return nil, err
	}
	r := &cmapi.CertificateRequest{
		TypeMeta: metav1.TypeMeta{APIVersion: cmapi.SchemeGroupVersion.String(), Kind: cmapi.CertificateRequestKind},
		ObjectMeta: metav1.ObjectMeta{Namespace: o.Namespace, Name: o.Name + "-1", Annotations: map[string]string{
			cmapi.CertificateRequestRevisionAnnotationKey: "1", cmapi.CertificateNameKey: o.Name, cmapi.CertificateRequestPrivateKeyAnnotationKey: o.Spec.SecretName,
		}},
		Spec: cmapi.CertificateRequestSpec{IssuerRef: o.Spec.IssuerRef, Request: text},
	}
	asked, err := workload.Read(r)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	issued, err := workload.SignSelf(asked, key, nil, now)
	if err != nil {
		return nil, err
	}
	w := &writes{certificate: o, request: r, answer: cmapi.CertificateRequestStatus{Certificate: issued.Chain, CA: issued.CA}}
	workload.SetRequestCondition(&w.answer, cmapi.CertificateRequestConditionApproved, cmmeta.ConditionTrue, "cert-manager.io", "Certificate request has been approved by cert-manager.io", now)
	workload.SetRequestCondition(&w.answer, cmapi.CertificateRequestConditionReady, cmmeta.ConditionTrue, cmapi.CertificateRequestReasonIssued, "Certificate fetched from issuer successfully", now)
	encoded, err := workload.EncodeKey(key, &o.Spec)
	if err != nil {
		return nil, err
	}
	content := workload.Content{Key: encoded, Chain: issued.Chain, CA: issued.CA, Made: now, Name: o.Name, Issuer: o.Spec.IssuerRef}
	w.secret, err = workload.SecretOf(o, content, workload.Passwords{}, "", false)
	w.status = statusOf(issued.Leaf, now)
	return w, err
}

func statusOf(leaf *x509.Certificate, now time.Time) cmapi.CertificateStatus {
	revision := 1
	begin, end, renewal := metav1.NewTime(leaf.NotBefore), metav1.NewTime(leaf.NotAfter), metav1.NewTime(leaf.NotAfter.Add(-time.Hour))
	s := cmapi.CertificateStatus{Revision: &revision, NotBefore: &begin, NotAfter: &end, RenewalTime: &renewal}
	workload.SetCondition(&s, cmapi.CertificateConditionReady, 1, cmmeta.ConditionTrue, workload.ReasonReady, workload.MessageReady, now)
	return s
}

// do writes.
func (w *writes) do(ctx context.Context, c *certmanager.Client) error {
	meta := func(answer []byte) (string, error) {
		var o struct {
			Metadata struct{ ResourceVersion string }
		}
		err := json.Unmarshal(answer, &o)
		return o.Metadata.ResourceVersion, err
	}
	answer, err := c.CM.Post().Namespace(namespace).Resource("certificaterequests").Body(w.request).Do(ctx).Raw()
	if err != nil {
		return err
	}
	if w.request.ResourceVersion, err = meta(answer); err != nil {
		return err
	}
	w.request.Status = w.answer
	if err := c.CM.Put().Namespace(namespace).Resource("certificaterequests").Name(w.request.Name).SubResource("status").Body(w.request).Do(ctx).Error(); err != nil {
		return err
	}
	if _, err := c.Kube.CoreV1().Secrets(namespace).Apply(ctx, w.secret, metav1.ApplyOptions{FieldManager: workload.FieldManager, Force: true}); err != nil {
		return err
	}
	// Nobody else writes to it: the version need not be known.
	patch, err := json.Marshal(map[string]any{"status": w.status})
	if err != nil {
		return err
	}
	return c.CM.Patch("application/merge-patch+json").Namespace(namespace).Resource("certificates").Name(w.certificate.Name).SubResource("status").Body(patch).Do(ctx).Error()
}
