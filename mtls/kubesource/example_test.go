package kubesource_test

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"log"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/kubepki/kubepki/internal/tlstest"
	"github.com/kubepki/kubepki/internal/trust"
	"github.com/kubepki/kubepki/mtls"
	"github.com/kubepki/kubepki/mtls/kubesource"
)

// A server whose certificate is a Secret, and whose clients are those of a
// ConfigMap.
func ExampleNew() {
	client := exampleCluster() // kubernetes.NewForConfig, of k8s.io/client-go
	source, err := kubesource.New(client, kubesource.Config{
		Pair:   kubesource.Secret{Namespace: "shop", Name: "till-tls"},
		Bundle: kubesource.ConfigMap("shop", "clients", "ca.crt"),
		Usage:  x509.ExtKeyUsageServerAuth,
		Told: func(c kubesource.Change) {
			if c.Err != nil {
				log.Printf("what was before stays: %v", c.Err)
			}
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	go source.Run(ctx)
	if err := source.WaitReady(ctx); err != nil {
		log.Fatal(err)
	}
	config := mtls.ServerConfig(source, mtls.RequireClients) // for http.Server
	now, err := source.Snapshot()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(now.Certificate.Leaf.Subject, len(now.Bundle.Anchors()), config.NextProtos)
	// Output: CN=till 1 [h2 http/1.1]
}

// A certificate from a signer of the cluster, renewed by itself. Somebody must
// approve its requests.
func ExampleIssuer() {
	source, err := mtls.NewRenewing(mtls.Renewal{
		Issuer: &kubesource.Issuer{
			Client:     exampleCluster(),
			SignerName: certificatesv1.KubeAPIServerClientSignerName,
			Usages:     []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth},
			Expiration: time.Hour,
		},
		Request: x509.CertificateRequest{Subject: pkix.Name{CommonName: "till"}},
	})
	if err != nil {
		log.Fatal(err)
	}
	// go source.Run(ctx); err = source.WaitReady(ctx)
	_, err = source.Snapshot()
	fmt.Println(err)
	// Output: no certificate has been issued yet
}

// exampleCluster has what the examples ask for.
func exampleCluster() *fake.Clientset {
	ca := tlstest.Authority(tlstest.Panics, "ca")
	c := tlstest.Leaf(tlstest.Panics, ca, "till", tlstest.For(x509.ExtKeyUsageServerAuth))
	pair := map[string][]byte{"tls.crt": trust.EncodeCertificates(c.Leaf), "tls.key": tlstest.KeyPEM(tlstest.Panics, c)}
	return fake.NewClientset(
		&corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "till-tls"}, Data: pair},
		&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "clients"}, Data: map[string]string{"ca.crt": string(tlstest.PEM(ca))}},
	)
}
