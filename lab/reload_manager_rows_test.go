//go:build linux

package lab_test

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/issue"
	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// controllerManagerRows start two of them: one with an embedded credential,
// and one whose kubeconfig names files.
func (b *bench) controllerManagerRows() []*reloadRow {
	component := catalog.ControllerManager
	flags, rows := b.servedRows(component, "127.0.0.1:10257", "/metrics")
	signing, signed := b.signingRow()
	kubeconfig, embedded := b.managerEmbedded()
	b.start(component, component, slices.Concat(flags, signing, []string{
		kubeconfig, "--leader-elect=false",
		b.give(component, "root-ca-file", b.cluster.pem),
		b.give(component, "service-account-private-key-file", read(b.t, b.pki("sa.key"))),
	})...)
	// Refused connections would end it while it starts its controllers.
	eventually(b.t, "the controller manager publishes kube-root-ca.crt", func(ctx context.Context) error {
		_, err := b.api().CoreV1().ConfigMaps("kube-public").Get(ctx, "kube-root-ca.crt", metav1.GetOptions{})
		return err
	})
	return slices.Concat(rows, []*reloadRow{signed, b.rootCARow(), b.tokenSecretRow()}, embedded, b.managerByPath())
}

var managerIdentity = pkix.Name{CommonName: "system:kube-controller-manager"}

// managerEmbedded replaces a kubeconfig that holds certificates and a key.
func (b *bench) managerEmbedded() (flag string, rows []*reloadRow) {
	component := catalog.ControllerManager
	servers := newAuthority(b.t, "embedded servers")
	f := b.apiFront(b.frontLeaf(b.cluster), b.frontLeaf(servers))
	old, next := b.cluster.leaf(b.t, managerIdentity), b.cluster.leaf(b.t, managerIdentity)
	embed := func(c credential, bundle ...[]byte) []byte {
		return b.kubeconfig(clientcmdapi.Cluster{Server: f.url(), CertificateAuthorityData: slices.Concat(bundle...)},
			clientcmdapi.AuthInfo{ClientCertificateData: c.certificate, ClientKeyData: c.key})
	}
	change := b.swap(component, "kubeconfig", embed(next, b.cluster.pem, servers.pem))
	return b.give(component, "kubeconfig", embed(old, b.cluster.pem)), []*reloadRow{
		clientRow(component, []string{"client-certificate-data", "client-key-data"}, f, old, next, change),
		trustRow(component, "certificate-authority-data", f, 10*time.Second, change, nil),
	}
}

// patientLease makes a component ask for its lease all the time, so that it
// shows its credential, and not end when a busy machine answers late.
func patientLease() []string {
	return []string{"--leader-elect-lease-duration=10m", "--leader-elect-renew-deadline=9m"}
}

// managerByPath starts a second one beside the first. It neither takes the
// first one's place nor signs tokens, which no list of controllers says.
func (b *bench) managerByPath() []*reloadRow {
	const component, instance = catalog.ControllerManager, "controller-manager-paths"
	f := b.apiFront(b.frontLeaf(b.cluster), b.frontLeaf(b.cluster))
	old, next := b.cluster.leaf(b.t, managerIdentity), b.cluster.leaf(b.t, managerIdentity)
	linked := b.give(instance, "client-ca-file", b.cluster.pem)
	b.link(instance, "client-ca-file")
	b.start(instance, component, append(patientLease(),
		"--secure-port=11257", "--leader-elect-resource-name=reload", "--controllers=clusterrole-aggregation-controller",
		"--service-account-private-key-file=", linked,
		b.give(instance, "kubeconfig", b.kubeconfig(
			clientcmdapi.Cluster{Server: f.url(), CertificateAuthority: b.put(instance, "certificate-authority", b.cluster.pem)},
			clientcmdapi.AuthInfo{
				ClientCertificate: b.put(instance, "client-certificate", old.certificate),
				ClientKey:         b.put(instance, "client-key", old.key),
			})))...)
	row := clientRow(component, []string{"client-certificate", "client-key"}, f, old, next,
		b.swapPair(instance, "client-certificate", "client-key", next, nil))
	row.instance = instance
	return []*reloadRow{row, b.linkedBundleRow(component, instance, "127.0.0.1:11257")}
}

// linkedBundleRow switches a link to a bundle of client authorities.
func (b *bench) linkedBundleRow(component, instance, address string) *reloadRow {
	clients := newAuthority(b.t, "linked clients")
	c := b.caller(clients.leaf(b.t, masters), "https://"+address+"/metrics", nil)
	return &reloadRow{
		component: component, settings: []string{"client-ca-file"}, instance: instance, seen: c.accepted,
		change: func(context.Context) error { return b.swapLink(instance, "client-ca-file", b.cluster.pem, clients.pem) },
		notify: func() error { return b.removeLinked(instance, "client-ca-file") },
	}
}

// frontLeaf is a serving certificate of a front.
func (b *bench) frontLeaf(a *authority) credential {
	return a.leaf(b.t, pkix.Name{CommonName: "front"}, ownAddress, "reload.kube-system.svc")
}

// schedulerRows start one whose kubeconfig names a token file and an authority
// file.
func (b *bench) schedulerRows() []*reloadRow {
	component := catalog.Scheduler
	flags, rows := b.servedRows(component, "127.0.0.1:10259", "/metrics")
	servers := newAuthority(b.t, "named servers")
	f := b.apiFront(b.frontLeaf(b.cluster), b.frontLeaf(servers))
	old, next := b.schedulerToken(), b.schedulerToken()
	tokenFile := b.put(component, "tokenFile", []byte(old))
	b.link(component, "tokenFile") // as in a volume
	kubeconfig := b.kubeconfig(
		clientcmdapi.Cluster{Server: f.url(), CertificateAuthority: b.put(component, "certificate-authority", b.cluster.pem)},
		clientcmdapi.AuthInfo{TokenFile: tokenFile})
	b.start(component, component, slices.Concat(flags, patientLease(), []string{b.give(component, "kubeconfig", kubeconfig)})...)
	return append(rows,
		trustRow(component, "certificate-authority", f, 3*time.Second, b.swap(component, "certificate-authority", b.cluster.pem, servers.pem), nil),
		&reloadRow{
			component: component, settings: []string{"tokenFile"},
			change: func(context.Context) error { return b.swapLink(component, "tokenFile", []byte(next)) },
			seen: func(context.Context) (bool, error) {
				_, token := f.shown()
				if token != old && token != next {
					return false, errWait
				}
				return token == next, nil
			},
		})
}

// signingRow: the controller manager signs requests by a new authority.
func (b *bench) signingRow() (flags []string, row *reloadRow) {
	component := catalog.ControllerManager
	const certificate, key = "cluster-signing-cert-file", "cluster-signing-key-file"
	next := newAuthority(b.t, "signing of requests")
	flags = b.givePair(component, certificate, key, credential{b.cluster.pem, b.cluster.key})
	return flags, &reloadRow{
		component: component, settings: []string{certificate, key}, every: time.Second,
		change: b.swapPair(component, certificate, key, credential{next.pem, next.key}, func(ctx context.Context) error {
			if now, err := b.signs(ctx, next); err != nil || now {
				return fmt.Errorf("by the new authority: %t, %w", now, err)
			}
			return nil
		}),
		seen: func(ctx context.Context) (bool, error) { return b.signs(ctx, next) },
	}
}

// signs makes and approves a request and tells whether an authority has signed
// it.
func (b *bench) signs(ctx context.Context, a *authority) (bool, error) {
	key, err := issue.GenerateKey(issue.ECDSAP256)
	if err != nil {
		return false, err
	}
	der, err := issue.Request(issue.Template{Subject: pkix.Name{CommonName: "reload"}, Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, key)
	if err != nil {
		return false, err
	}
	requests := b.api().CertificatesV1().CertificateSigningRequests()
	request, err := requests.Create(ctx, &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{Name: "reload-" + strings.ToLower(rand.Text())},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			Request: issue.EncodeRequest(der), SignerName: certificatesv1.KubeAPIServerClientSignerName,
			Usages: []certificatesv1.KeyUsage{certificatesv1.UsageClientAuth},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return false, err
	}
	request.Status.Conditions = []certificatesv1.CertificateSigningRequestCondition{{
		Type: certificatesv1.CertificateApproved, Status: corev1.ConditionTrue, Reason: "Reload", Message: "for the matrix",
	}}
	if _, err := requests.UpdateApproval(ctx, request.Name, request, metav1.UpdateOptions{}); err != nil {
		return false, err
	}
	var signed []byte
	err = wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, 20*time.Second, true, func(ctx context.Context) (bool, error) {
		request, err := requests.Get(ctx, request.Name, metav1.GetOptions{})
		if err == nil {
			signed = request.Status.Certificate
		}
		return len(signed) > 0, err
	})
	if err != nil {
		return false, err
	}
	return certificatesIn(signed)[0].CheckSignatureFrom(a.Certificate) == nil, nil
}

// rootCARow: the controller manager publishes a new bundle. What is published
// is taken away, so that it is published again.
func (b *bench) rootCARow() *reloadRow {
	component := catalog.ControllerManager
	next := newAuthority(b.t, "root of pods")
	maps := func() interface {
		Get(context.Context, string, metav1.GetOptions) (*corev1.ConfigMap, error)
		Delete(context.Context, string, metav1.DeleteOptions) error
	} {
		return b.api().CoreV1().ConfigMaps("kube-public")
	}
	return &reloadRow{
		component: component, settings: []string{"root-ca-file"}, every: 2 * time.Second,
		change: b.swap(component, "root-ca-file", b.cluster.pem, next.pem),
		seen: func(ctx context.Context) (bool, error) {
			const name = "kube-root-ca.crt"
			if err := maps().Delete(ctx, name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
				return false, err
			}
			var bundle string
			err := wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, 20*time.Second, true, func(ctx context.Context) (bool, error) {
				published, err := maps().Get(ctx, name, metav1.GetOptions{})
				if apierrors.IsNotFound(err) {
					return false, nil
				}
				bundle = published.Data["ca.crt"]
				return err == nil, err
			})
			return strings.Contains(bundle, string(next.pem)), err
		},
	}
}

// tokenSecretRow: the controller manager signs the token of a Secret by a new
// key.
func (b *bench) tokenSecretRow() *reloadRow {
	component := catalog.ControllerManager
	next := newAuthority(b.t, "signing of token secrets")
	return &reloadRow{
		component: component, settings: []string{"service-account-private-key-file"}, every: 2 * time.Second,
		change: b.swap(component, "service-account-private-key-file", next.key),
		seen: func(ctx context.Context) (bool, error) {
			if _, err := b.token(ctx); err != nil { // makes the account
				return false, err
			}
			secrets := b.api().CoreV1().Secrets("kube-system")
			secret, err := secrets.Create(ctx, &corev1.Secret{
				ObjectMeta: metav1.ObjectMeta{GenerateName: "reload-", Annotations: map[string]string{corev1.ServiceAccountNameKey: "reload"}},
				Type:       corev1.SecretTypeServiceAccountToken,
			}, metav1.CreateOptions{})
			if err != nil {
				return false, err
			}
			var token string
			err = wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, 20*time.Second, true, func(ctx context.Context) (bool, error) {
				got, err := secrets.Get(ctx, secret.Name, metav1.GetOptions{})
				if err == nil {
					token = string(got.Data[corev1.ServiceAccountTokenKey])
				}
				return token != "", err
			})
			if err != nil {
				return false, errors.Join(err, errors.New("the Secret has no token"))
			}
			return signedBy(token, next)
		},
	}
}
