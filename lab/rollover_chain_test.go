//go:build linux

package lab_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubepki/kubepki/internal/trust"
	"github.com/kubepki/kubepki/mtls/kubesource"
)

// chainCA is a CA of the namespace of ClusterIssuers, and a ClusterIssuer of its name.
func chainCA(name, issuerKind, issuer, more string) string {
	return fmt.Sprintf(`---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {name: %s, namespace: kube-system}
spec:
  secretName: %[1]s
  commonName: %[1]s
  isCA: true
  privateKey: {algorithm: ECDSA}
  issuerRef: {name: %[2]s, kind: %[3]s}
%[4]s---
apiVersion: cert-manager.io/v1
kind: ClusterIssuer
metadata:
  name: %[1]s
  annotations: {kubepki.dev/ca-rollover-accept: 2s, kubepki.dev/ca-rollover-window: 3s, kubepki.dev/ca-bundle-clustertrustbundle: %[1]s}
spec: {ca: {secretName: %[1]s}}
`, name, issuer, issuerKind, more)
}

func chainLeaf(namespace, name, issuer string) string {
	return fmt.Sprintf(`---
apiVersion: cert-manager.io/v1
kind: Certificate
metadata: {name: %[1]s, namespace: %[2]s}
spec:
  secretName: %[1]s
  dnsNames: [app.example.org]
  usages: [digital signature, server auth, client auth]
  privateKey: {algorithm: ECDSA}
  issuerRef: {name: %[3]s, kind: ClusterIssuer}
`, name, namespace, issuer)
}

// chainPlaces are the leaves, by namespace.
var chainPlaces = [][2]string{{"default", "top"}, {"default", "low-1"}, {"shop", "low-2"}}

// chainOver tells what is not carried over yet to the root that is there now, if it is not
// the one before.
func (w *workloads) chainOver(ctx context.Context, before []byte) error {
	secrets := func(namespace, name string) (map[string][]byte, error) {
		s, err := w.client.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		return s.Data, nil
	}
	root, err := secrets("kube-system", "chain-root")
	if err != nil {
		return err
	}
	if bytes.Equal(root["tls.crt"], before) {
		return errors.New("the root is the one before")
	}
	ca, err := trust.ParseCertificates(root["tls.crt"])
	if err != nil {
		return err
	}
	for _, at := range chainPlaces {
		data, err := secrets(at[0], at[1])
		if err != nil {
			return err
		}
		chain, err := trust.ParseCertificates(data["tls.crt"])
		if err != nil || !trust.SignedBy(chain[len(chain)-1], ca[0]) || !bytes.Equal(data["ca.crt"], root["tls.crt"]) {
			return fmt.Errorf("%s is not of the root alone: %v", at[1], err)
		}
	}
	for _, name := range []string{"chain-root", "chain-middle"} {
		if reason, message := w.rolloverOf(ctx, name); before != nil && reason != "Done" {
			return fmt.Errorf("ClusterIssuer %s: %s: %s", name, reason, message)
		}
	}
	return nil
}

// rolloverOf is what the condition of a ClusterIssuer says.
func (w *workloads) rolloverOf(ctx context.Context, name string) (reason, message string) {
	issuer := &cmapi.ClusterIssuer{}
	if err := w.cm.Get().Resource("clusterissuers").Name(name).Do(ctx).Into(issuer); err != nil {
		return "", err.Error()
	}
	for _, c := range issuer.Status.Conditions {
		if c.Type == "CARollover" {
			return c.Reason, c.Message
		}
	}
	return "", "no condition"
}

// says waits until a ClusterIssuer has come to a phase.
func (w *workloads) says(t *testing.T, name, want string) {
	t.Helper()
	within(t, 90*time.Second, name+" says "+want, func(ctx context.Context) error {
		if reason, message := w.rolloverOf(ctx, name); reason != want {
			return fmt.Errorf("%s: %s", reason, message)
		}
		return nil
	})
}

// killed ends the controller as the kernel does, and starts it anew.
func (w *workloads) killed(t *testing.T) {
	t.Helper()
	if err := w.process.Kill(); err != nil {
		t.Fatal(err)
	}
	w.run(t, "--leader-elect=false")
}

// TestCARolloverOfAChain has a root with an intermediate below it, ClusterIssuers of both,
// leaves in two namespaces, and one application that trusts by the ClusterTrustBundle
// alone. The root gets another key, and the controller is killed in the midst, twice. With
// KUBEPKI_LAB_LONG the root is then renewed by the controller itself, twice.
func TestCARolloverOfAChain(t *testing.T) {
	w := startWorkloads(t)
	w.run(t, "--leader-elect=false")
	long := os.Getenv("KUBEPKI_LAB_LONG") != ""
	objects := `apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: cert-manager.io/v1
kind: ClusterIssuer
metadata: {name: chain-self}
spec: {selfSigned: {}}
` + chainCA("chain-root", "ClusterIssuer", "chain-self", "") + chainCA("chain-middle", "ClusterIssuer", "chain-root", "") +
		chainLeaf("default", "top", "chain-root") + chainLeaf("default", "low-1", "chain-middle") + chainLeaf("shop", "low-2", "chain-middle")
	w.apply(t, objects)
	within(t, 30*time.Second, "the chain is there", func(ctx context.Context) error { return w.chainOver(ctx, nil) })
	pair := func(at [2]string, bundle kubesource.Bundle) kubesource.Config {
		return kubesource.Config{Pair: kubesource.Secret{Namespace: at[0], Name: at[1]}, Bundle: bundle}
	}
	var all []kubesource.Config
	for _, at := range chainPlaces {
		all = append(all, pair(at, kubesource.SecretCA(at[0], at[1])))
	}
	calls := w.startTrafficOf(t, append(all, pair(chainPlaces[2], kubesource.TrustBundle("chain-root")))...)
	eventually(t, "they talk", func(context.Context) error {
		if n, errs := calls.since(); n < 20 || len(errs) > 0 {
			return fmt.Errorf("%d visits, %w", n, errors.Join(errs...))
		}
		return nil
	})
	none := func(t *testing.T) {
		t.Helper()
		n, errs := calls.since()
		t.Logf("%d handshakes, %d failed", n, len(errs))
		if len(errs) > 0 {
			t.Errorf("the first: %v", errs[0])
		}
		if n < 100 {
			t.Error("that is not much of a traffic")
		}
	}
	root := func() []byte {
		s, err := w.client.CoreV1().Secrets("kube-system").Get(t.Context(), "chain-root", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return s.Data["tls.crt"]
	}
	over := func(before []byte) {
		t.Helper()
		within(t, 90*time.Second, "all is carried over", func(ctx context.Context) error { return w.chainOver(ctx, before) })
		time.Sleep(lateness)
		none(t)
	}
	before := root()
	w.renewIn(t, "kube-system", "chain-root")
	w.says(t, "chain-root", "Accepting")
	w.killed(t)
	w.says(t, "chain-root", "Reissuing")
	w.killed(t)
	over(before)
	if !long {
		return
	}
	before = root()
	w.apply(t, chainCA("chain-root", "ClusterIssuer", "chain-self", "  duration: 1h\n  renewBefore: 59m15s\n"))
	w.renewIn(t, "kube-system", "chain-root") // once by hand, then by itself every 45 seconds
	for n := range 3 {
		over(before)
		t.Logf("root %d", n+2)
		before = root()
	}
}
