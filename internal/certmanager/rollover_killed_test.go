package certmanager

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubepki/kubepki/internal/trust"
	"github.com/kubepki/kubepki/internal/workload"
)

// Readers take up what has changed within lateness, and are given acceptance.
const (
	acceptance = 10 * time.Minute
	lateness   = 9 * time.Minute
)

// leaves are those of the chain: of the root's issuer, and of the intermediate's.
var chainLeaves = []string{"web", "app-1", "app-2"}

// chainOf is an API with a root that signs itself, its issuer, an intermediate of it, the
// issuer of that, and leaves of both.
func chainOf(t *testing.T) *api {
	a := newPipeAPI(t)
	gv := metav1.TypeMeta{APIVersion: cmapi.SchemeGroupVersion.String()}
	issuer := func(name string, spec cmapi.IssuerConfig) {
		o := cmapi.Issuer{TypeMeta: gv, ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{
			annotationAccept: acceptance.String(), annotationWindow: "10m",
		}}, Spec: cmapi.IssuerSpec{IssuerConfig: spec}}
		o.Kind = cmapi.IssuerKind
		a.make(t, cm+"issuers", o)
	}
	certificate := func(name, of string, ca bool) {
		o := cmapi.Certificate{TypeMeta: gv, ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: cmapi.CertificateSpec{
			SecretName: name, CommonName: name, DNSNames: []string{name}, IsCA: ca, IssuerRef: cmmeta.IssuerReference{Name: of},
			PrivateKey: &cmapi.CertificatePrivateKey{Algorithm: cmapi.ECDSAKeyAlgorithm},
		}}
		o.Kind = cmapi.CertificateKind
		a.make(t, cm+"certificates", o)
	}
	issuer("self", cmapi.IssuerConfig{SelfSigned: &cmapi.SelfSignedIssuer{}})
	issuer("root", cmapi.IssuerConfig{CA: &cmapi.CAIssuer{SecretName: "root"}})
	issuer("middle", cmapi.IssuerConfig{CA: &cmapi.CAIssuer{SecretName: "middle"}})
	certificate("root", "self", true)
	certificate("middle", "root", true)
	certificate("web", "root", false)
	certificate("app-1", "middle", false)
	certificate("app-2", "middle", false)
	return a
}

// serve runs a controller in a bubble until it is to end, or dies.
func serve(t *testing.T, a *api, most time.Duration, until func() error) {
	t.Helper()
	client, err := NewClient(a.config())
	check(t, err)
	var said bytes.Buffer // read when the process has ended
	c := New(Options{Client: client, Approver: BuiltInSigners(), Workers: 2, ClusterNamespace: "n", Log: slog.New(slog.NewTextHandler(&said, nil))})
	ctx, stop := context.WithCancel(t.Context())
	a.mu.Lock()
	a.die, a.dead = stop, false
	a.mu.Unlock()
	var running sync.WaitGroup
	running.Go(func() { check(t, c.Run(ctx)) })
	begun, last := time.Now(), error(nil)
	for {
		time.Sleep(30 * time.Second)
		if last = until(); last == nil || ctx.Err() != nil || time.Since(begun) > most {
			break
		}
	}
	died := ctx.Err() != nil
	stop()
	running.Wait()
	if last != nil && !died {
		t.Fatalf("after %s: %v\n%s", most, last, &said)
	}
}

// holds is what a Secret holds, as long as it does.
type holds struct {
	name       string
	chain      []*x509.Certificate
	anchors    []*x509.Certificate
	begin, end time.Time
}

// history is what the Secrets of leaves have held since a time.
func (a *api) history(t *testing.T, since time.Time) []holds {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []holds
	for _, name := range chainLeaves {
		var last *holds
		for _, e := range a.events {
			if e.path != secretPath+name {
				continue
			}
			var s corev1.Secret
			check(t, json.Unmarshal(e.object, &s))
			chain, err := trust.ParseCertificates(s.Data["tls.crt"])
			check(t, err)
			anchors, err := trust.ParseCertificates(s.Data["ca.crt"])
			check(t, err)
			if last != nil {
				last.end = e.at
				all = append(all, *last)
			}
			last = &holds{name: name, chain: chain, anchors: anchors, begin: e.at}
		}
		last.end = time.Now()
		all = append(all, *last)
	}
	var late []holds
	for _, h := range all {
		if h.end.After(since) {
			late = append(late, h)
		}
	}
	return late
}

// refuses looks whether an application may have refused another: each shows and trusts
// what its Secret holds, or has held until a time ago.
func refuses(t *testing.T, all []holds, lateness time.Duration) error {
	t.Helper()
	for _, server := range all {
		for _, client := range all {
			if server.begin.After(client.end.Add(lateness)) || client.begin.After(server.end.Add(lateness)) {
				continue
			}
			roots, between := x509.NewCertPool(), x509.NewCertPool()
			for _, c := range client.anchors {
				roots.AddCert(c)
			}
			for _, c := range server.chain[1:] {
				between.AddCert(c)
			}
			if _, err := server.chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
				return fmt.Errorf("%s of %s to %s, shown to %s of %s to %s, which trusts %d: %w", server.name, server.begin.Format(time.TimeOnly), server.end.Format(time.TimeOnly),
					client.name, client.begin.Format(time.TimeOnly), client.end.Format(time.TimeOnly), len(client.anchors), err)
			}
		}
	}
	return nil
}

// carriedTo tells what is not carried over yet to the root that is in its Secret now.
func (a *api) carriedTo() error {
	var root corev1.Secret
	if !a.read(secretPath+"root", &root) {
		return fmt.Errorf("there is no root")
	}
	if !bytes.Equal(root.Data["ca.crt"], root.Data["tls.crt"]) {
		return fmt.Errorf("the root's own ca.crt is another")
	}
	list, err := trust.ParseCertificates(root.Data["tls.crt"])
	if err != nil {
		return err
	}
	for _, name := range chainLeaves {
		var s corev1.Secret
		if !a.read(secretPath+name, &s) || !bytes.Equal(s.Data["ca.crt"], root.Data["tls.crt"]) {
			return fmt.Errorf("%s trusts something else", name)
		}
		chain, err := trust.ParseCertificates(s.Data["tls.crt"])
		if err != nil || !trust.SignedBy(chain[len(chain)-1], list[0]) {
			return fmt.Errorf("%s is of another root: %v", name, err)
		}
	}
	for _, name := range []string{"root", "middle"} {
		var i cmapi.Issuer
		var record corev1.Secret
		if !a.read(cm+"issuers/"+name, &i) || !a.read(secretPath+name+".issuer.ca-rollover", &record) {
			return fmt.Errorf("there is no record of %s", name)
		}
		for _, c := range i.Status.Conditions {
			if c.Type == conditionRollover && c.Status != cmmeta.ConditionFalse {
				return fmt.Errorf("issuer %s: %s", name, c.Message)
			}
		}
		if len(record.Data[recordKey]) > 0 || len(record.OwnerReferences) != 1 {
			return fmt.Errorf("the record of %s has a key, or %d owners", name, len(record.OwnerReferences))
		}
	}
	return nil
}

// renew has a Certificate issued anew, as cmctl renew does.
func (a *api) renew(t *testing.T, name string) {
	t.Helper()
	var o cmapi.Certificate
	if !a.read(cm+"certificates/"+name, &o) {
		t.Fatalf("there is no %s", name)
	}
	workload.SetCondition(&o.Status, cmapi.CertificateConditionIssuing, o.Generation, cmmeta.ConditionTrue, "ManuallyTriggered", "", time.Now())
	data, err := json.Marshal(o.Status)
	check(t, err)
	var status map[string]any
	check(t, json.Unmarshal(data, &status))
	a.mu.Lock()
	defer a.mu.Unlock()
	changed := clone(a.objects[cm+"certificates/"+name])
	changed["status"], changed["metadata"] = status, clone(meta(changed))
	a.put(cm+"certificates/"+name, "MODIFIED", changed)
}

func (a *api) secretText(name, key string) string {
	var s corev1.Secret
	a.read(secretPath+name, &s)
	return string(s.Data[key])
}

// TestAProcessThatDiesInTheMidstOfARolloverHarmsNobody has a root get another key, with an
// intermediate below it, and the process die at each write in turn: once before it is done
// and once after. However late readers are, no leaf is ever shown to one that refuses it,
// and the old root goes.
func TestAProcessThatDiesInTheMidstOfARolloverHarmsNobody(t *testing.T) {
	writes := rolloverKilledAt(t, 0, false)
	t.Logf("a rollover of a root, an intermediate and %d leaves is %d writes", len(chainLeaves), writes)
	if os.Getenv("KUBEPKI_LAB_LONG") == "" { // some of them; the first are those of the root
		for i, n := range []int{1, 3, 4, 6, 11, 19, 31, 47} {
			rolloverKilledAt(t, n, i%2 == 0)
		}
		return
	}
	for n := 1; n <= writes; n++ {
		rolloverKilledAt(t, n, true)
		rolloverKilledAt(t, n, false)
	}
}

func rolloverKilledAt(t *testing.T, at int, before bool) (writes int) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		a := chainOf(t)
		serve(t, a, time.Minute, a.carriedTo)
		begun, old := time.Now(), a.secretText("root", "tls.crt")
		first := len(a.writes)
		a.renew(t, "root")
		died := at == 0
		a.dies = func(n int) (bool, bool) {
			is := n-first == at
			died = died || is
			return is && before, is && !before
		}
		done := func() error {
			if is := a.secretText("root", "tls.crt"); is == old || strings.Contains(is, old) {
				return fmt.Errorf("the root is the old one")
			}
			return a.carriedTo()
		}
		serve(t, a, 3*time.Hour, done)
		if at > 0 && died {
			a.mu.Lock()
			a.dies = nil
			a.mu.Unlock()
			time.Sleep(3 * time.Minute) // until another takes over
			serve(t, a, 3*time.Hour, done)
		}
		writes = len(a.writes) - first
		if at == 0 && refuses(t, a.history(t, begun), 4*acceptance) == nil {
			t.Error("readers who take longer than they are given are refused, and nothing sees it")
		}
		if err := refuses(t, a.history(t, begun), lateness); err != nil {
			t.Errorf("died at write %d (before it: %t), %q: %v", at, before, a.writes[first+max(at, 1)-1], err)
		}
	})
	return writes
}
