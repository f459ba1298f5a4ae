package kube

import (
	"context"
	"crypto/x509/pkix"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/trust"
)

// TestFillWaitsForTheController lets a controller do, after a while, what the
// rows say.
func TestFillWaitsForTheController(t *testing.T) {
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "ci", Name: "robot", UID: "u-1"}}
	asked := AccountSecret{Namespace: "ci", Account: "robot", Name: "robot-token"}
	filled := (&AccountSecret{Namespace: "ci", Account: "robot", UID: "u-1", Name: "robot-token"}).Object("text", []byte("ca"))
	of := func(change func(*corev1.Secret)) *corev1.Secret {
		s := filled.DeepCopy()
		change(s)
		return s
	}
	for name, row := range map[string]struct {
		there      []runtime.Object
		uid        string
		controller func(client *fake.Clientset) error
		made       bool
		want       string // of the error
		is         error
	}{
		"it is filled": {there: []runtime.Object{account}, made: true, controller: func(c *fake.Clientset) error {
			_, err := c.CoreV1().Secrets("ci").Update(t.Context(), filled, metav1.UpdateOptions{})
			return err
		}},
		"it was filled before":    {there: []runtime.Object{account, filled}, uid: "u-1"},
		"there is no controller":  {there: []runtime.Object{account}, made: true, is: ErrNotFilled},
		"there is no account":     {is: ErrNoServiceAccount},
		"the account is another":  {there: []runtime.Object{account}, uid: "u-2", want: "the service account has the uid u-1, not u-2"},
		"it is no Secret of that": {there: []runtime.Object{account, of(func(s *corev1.Secret) { s.Type = corev1.SecretTypeOpaque })}, is: ErrOtherSecret},
		"it is another account's": {there: []runtime.Object{account, of(func(s *corev1.Secret) { s.Annotations[corev1.ServiceAccountNameKey] = "other" })}, is: ErrOtherSecret},
		"it is out of use":        {there: []runtime.Object{account, of(func(s *corev1.Secret) { s.Labels = map[string]string{invalidSince: "2026-01-01"} })}, is: ErrInvalidated},
		"it is removed meanwhile": {there: []runtime.Object{account}, made: true, want: "it was removed before it was filled", controller: func(c *fake.Clientset) error {
			return c.CoreV1().Secrets("ci").Delete(t.Context(), "robot-token", metav1.DeleteOptions{})
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client := fake.NewClientset(row.there...)
				if row.controller != nil {
					time.AfterFunc(3*time.Second, func() {
						if err := row.controller(client); err != nil {
							t.Error(err)
						}
					})
				}
				a := asked
				a.UID = row.uid
				got, made, err := (&ServiceAccounts{client.CoreV1()}).Fill(t.Context(), a, 10*time.Second)
				if made != row.made {
					t.Errorf("made is %t", made)
				}
				if row.want == "" && row.is == nil {
					if d := cmp.Diff(filled, got); err != nil || d != "" {
						t.Errorf("%v (-want +got):\n%s", err, d)
					}
					return
				}
				if err == nil || !strings.HasPrefix(err.Error(), "secret ci/robot-token: "+row.want) || (row.is != nil && !errors.Is(err, row.is)) {
					t.Errorf("got %v", err)
				}
			})
		})
	}
}

func TestFillEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "ci", Name: "robot"}}
		time.AfterFunc(time.Second, cancel)
		start := time.Now()
		_, made, err := (&ServiceAccounts{fake.NewClientset(account).CoreV1()}).Fill(ctx, AccountSecret{Namespace: "ci", Account: "robot", Name: "s"}, time.Hour)
		if !made || !errors.Is(err, context.Canceled) || time.Since(start) > 2*time.Second {
			t.Errorf("got %t, %v after %s", made, err, time.Since(start))
		}
	})
}

func TestRootCAIsWhatIsPublished(t *testing.T) {
	holds := func(ca string) runtime.Object {
		return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "ci", Name: "kube-root-ca.crt"}, Data: map[string]string{"ca.crt": ca}}
	}
	key, err := issue.GenerateKey(issue.ECDSAP256)
	if err != nil {
		t.Fatal(err)
	}
	authority, err := issue.SelfSign(issue.Template{Subject: pkix.Name{CommonName: "ca"}, Authority: true, NotAfter: time.Now().Add(time.Hour)}, key)
	if err != nil {
		t.Fatal(err)
	}
	certificate := string(trust.EncodeCertificates(authority))
	for name, row := range map[string]struct {
		there   runtime.Object
		refused error
		want    string
		is      func(error) bool
	}{
		"a certificate": {there: holds(certificate), want: certificate},
		"nothing":       {there: &corev1.Namespace{}, is: apierrors.IsNotFound},
		"forbidden":     {there: holds(certificate), refused: apierrors.NewForbidden(corev1.Resource("configmaps"), "kube-root-ca.crt", errors.New("no")), is: apierrors.IsForbidden},
		"empty":         {there: holds(""), is: isNoCertificate},
		"a key":         {there: holds("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), is: isNoCertificate},
	} {
		t.Run(name, func(t *testing.T) {
			client := fake.NewClientset(row.there)
			if row.refused != nil {
				client.PrependReactor("get", "configmaps", func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, row.refused })
			}
			got, err := (&ServiceAccounts{client.CoreV1()}).RootCA(t.Context(), "ci")
			if string(got) != row.want || (err == nil) != (row.is == nil) {
				t.Errorf("got %q, %v", got, err)
			}
			if err != nil && (!row.is(err) || !strings.HasPrefix(err.Error(), "ConfigMap ci/kube-root-ca.crt: ")) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func isNoCertificate(err error) bool { return strings.Contains(err.Error(), ": ca.crt: ") }

func TestWarningsAreHandedOn(t *testing.T) {
	var heard []string
	w := warnings(func(text string) { heard = append(heard, text) })
	w.HandleWarningHeader(299, "-", "requested expiration of 7200 seconds shortened to 3600 seconds")
	w.HandleWarningHeader(299, "-", "the pod is old")
	if d := cmp.Diff([]string{"the pod is old"}, heard); d != "" {
		t.Error(d)
	}
}
