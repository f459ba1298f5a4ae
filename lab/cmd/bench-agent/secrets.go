package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// secretsAPI answers lists of Secrets page by page, as kube-apiserver does in its own
// encoding, and watches in which nothing happens. It knows nothing else.
type secretsAPI struct{ all []corev1.Secret }

// newSecretsAPI has a Secret for each file of a folder of certificates, with a key that is
// as long as a true one, and one ca.crt for all.
func newSecretsAPI(many string) (*secretsAPI, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	private := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	files, err := filepath.Glob(filepath.Join(many, "*.crt"))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench-ca"}, NotAfter: time.Now().AddDate(10, 0, 0), IsCA: true, BasicConstraintsValid: true}
	if der, err = x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key); err != nil {
		return nil, err
	}
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	a := &secretsAPI{}
	for i, file := range files {
		certificate, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		a.all = append(a.all, corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Namespace: fmt.Sprintf("ns-%d", i%100), Name: fmt.Sprintf("certificate-%d", i), UID: "6f2c1c0e-0000-4000-8000-000000000000"},
			Type:       corev1.SecretTypeTLS, Data: map[string][]byte{"tls.crt": certificate, "tls.key": private, "ca.crt": ca},
		})
	}
	return a, nil
}

func (a *secretsAPI) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	switch {
	case r.URL.Path != "/api/v1/secrets":
		http.NotFound(w, r)
		return
	case q.Get("watch") == "true":
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		return
	}
	start, _ := strconv.Atoi(q.Get("continue")) // "": from the start
	limit, _ := strconv.Atoi(q.Get("limit"))
	end := min(len(a.all), start+max(1, limit))
	list := &corev1.SecretList{ListMeta: metav1.ListMeta{ResourceVersion: "1"}, Items: a.all[start:end]}
	if end < len(a.all) {
		list.Continue = strconv.Itoa(end)
	}
	list.SetGroupVersionKind(corev1.SchemeGroupVersion.WithKind("SecretList"))
	var b bytes.Buffer
	if err := protobuf.NewSerializer(scheme.Scheme, scheme.Scheme).Encode(list, &b); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/vnd.kubernetes.protobuf")
	_, _ = w.Write(b.Bytes()) // who asked may be gone
}

// serve serves over TLS, and writes a kubeconfig for it.
func (a *secretsAPI) serve(kubeconfig string) (stop func(), err error) {
	server := httptest.NewTLSServer(a)
	config := clientcmdapi.NewConfig()
	config.Clusters["bench"] = &clientcmdapi.Cluster{Server: server.URL, CertificateAuthorityData: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})}
	config.AuthInfos["bench"] = &clientcmdapi.AuthInfo{Token: "bench"}
	config.Contexts["bench"] = &clientcmdapi.Context{Cluster: "bench", AuthInfo: "bench"}
	config.CurrentContext = "bench"
	return func() { server.CloseClientConnections(); server.Close() }, clientcmd.WriteToFile(*config, kubeconfig)
}
