package load

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	bootstrapapi "k8s.io/cluster-bootstrap/token/api"
	"k8s.io/cluster-bootstrap/token/jws"
	"k8s.io/utils/ptr"
)

const (
	// joinersGroup is the group that kubeadm lets join
	// (NodeBootstrapTokenAuthGroup in k/k cmd/kubeadm/app/constants/constants.go).
	joinersGroup = "system:bootstrappers:kubeadm:default-node-token"
	// A bootstrap token is good for a day, and prolonged after half of it.
	bootstrapLife = 24 * time.Hour
	// joinedLife is the shortest life that a request may ask for, in seconds.
	joinedLife = 600
)

// bootstrapToken is the token of the run.
type bootstrapToken struct {
	id, secret string
	expires    time.Time
}

// letters are those of a bootstrap token
// (k8s.io/cluster-bootstrap/token/api: [a-z0-9]).
func letters(n int) string { return strings.ToLower(rand.Text())[:n] }

// makeBootstrapToken makes a token as kubeadm token create does, and waits until
// the cluster's discovery information is signed with it.
func (s *site) makeBootstrapToken(ctx context.Context, c *clients) error {
	s.token = bootstrapToken{letters(6), letters(16), time.Now().Add(bootstrapLife)}
	_, err := c.core.Secrets(metav1.NamespaceSystem).Create(ctx, s.tokenSecret(), metav1.CreateOptions{})
	if err != nil {
		return err
	}
	return eventually(ctx, func(ctx context.Context) error {
		info, err := c.core.ConfigMaps(metav1.NamespacePublic).Get(ctx, bootstrapapi.ConfigMapClusterInfo, metav1.GetOptions{})
		if found, err := exists(err); !found {
			return err // the stream's own affair
		}
		if _, ok := info.Data[bootstrapapi.JWSSignatureKeyPrefix+s.token.id]; !ok {
			return notYet("the ConfigMap cluster-info is not signed with a new bootstrap token")
		}
		return nil
	})
}

func (s *site) tokenSecret() *corev1.Secret {
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{
			Name: bootstrapapi.BootstrapTokenSecretPrefix + s.token.id, Namespace: metav1.NamespaceSystem, Labels: map[string]string{label: s.id},
		},
		Type: bootstrapapi.SecretTypeBootstrapToken,
		StringData: map[string]string{
			bootstrapapi.BootstrapTokenDescriptionKey: "of kubepki-lab load",
			bootstrapapi.BootstrapTokenIDKey:          s.token.id, bootstrapapi.BootstrapTokenSecretKey: s.token.secret,
			bootstrapapi.BootstrapTokenExpirationKey:       s.token.expires.UTC().Format(time.RFC3339),
			bootstrapapi.BootstrapTokenUsageSigningKey:     "true",
			bootstrapapi.BootstrapTokenUsageAuthentication: "true",
			bootstrapapi.BootstrapTokenExtraGroupsKey:      joinersGroup,
		},
	}
}

// joinStreams let nodes join that are there for that alone.
func (s *site) joinStreams(ctx context.Context, c *clients) ([]*Stream, error) {
	_, err := c.core.ConfigMaps(metav1.NamespacePublic).Get(ctx, bootstrapapi.ConfigMapClusterInfo, metav1.GetOptions{})
	if found, err := exists(err); err != nil {
		return nil, err
	} else if !found {
		s.absent("join", 16, "there is no ConfigMap cluster-info in kube-public")
		return nil, nil
	}
	j := &joins{site: s, user: s.administrator()}
	return []*Stream{{Name: "join", Link: 16, Every: 5 * time.Second, Do: j.do, Close: j.user.close}}, nil
}

// joins does what a joining node does until it has its client certificate: it
// learns the cluster's authority from the discovery information, which the token
// has signed, shows the token, asks for a certificate and shows that. The node's
// name is never used again.
type joins struct {
	site *site
	user *user // who takes the request away again, and prolongs the token
	n    int
}

func (j *joins) do(ctx context.Context) error {
	j.n++
	return j.user.call(func(c *clients) error {
		if err := j.prolong(ctx, c); err != nil {
			return err
		}
		config, err := j.discover(ctx, c.config.Host)
		if err != nil {
			return fmt.Errorf("discovery: %w", err)
		}
		name := j.site.meta("join-" + strconv.Itoa(j.n)).Name
		joined, err := j.bootstrap(ctx, config, name)
		if err != nil {
			return err
		}
		if err := joined.whoAmI(ctx, "system:node:"+name); err != nil {
			return fmt.Errorf("with the new certificate: %w", err)
		}
		joined.close()
		return c.certificates.CertificateSigningRequests().Delete(ctx, name, metav1.DeleteOptions{})
	})
}

// prolong keeps the token good for as long as the run takes.
func (j *joins) prolong(ctx context.Context, c *clients) error {
	if time.Until(j.site.token.expires) > bootstrapLife/2 {
		return nil
	}
	j.site.token.expires = time.Now().Add(bootstrapLife)
	_, err := c.core.Secrets(metav1.NamespaceSystem).Update(ctx, j.site.tokenSecret(), metav1.UpdateOptions{})
	return err
}

// discover reads the discovery information as kubeadm join does: from whoever
// serves it, as the signature proves it (k/k cmd/kubeadm/app/discovery/token/token.go).
func (j *joins) discover(ctx context.Context, host string) (*rest.Config, error) {
	anyone, err := newClients(&rest.Config{Host: host, TLSClientConfig: rest.TLSClientConfig{Insecure: true}})
	if err != nil {
		return nil, err
	}
	defer anyone.close()
	info, err := anyone.core.ConfigMaps(metav1.NamespacePublic).Get(ctx, bootstrapapi.ConfigMapClusterInfo, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	token, content := j.site.token, info.Data[bootstrapapi.KubeConfigKey]
	if !jws.DetachedTokenIsValid(info.Data[bootstrapapi.JWSSignatureKeyPrefix+token.id], content, token.id, token.secret) {
		return nil, errors.New("the signature of the ConfigMap cluster-info by the bootstrap token is missing or wrong")
	}
	kubeconfig, err := clientcmd.Load([]byte(content))
	if err != nil {
		return nil, err
	}
	for _, cluster := range kubeconfig.Clusters { // there is one, without a name
		return &rest.Config{
			Host: cluster.Server, BearerToken: token.id + "." + token.secret,
			TLSClientConfig: rest.TLSClientConfig{CAData: cluster.CertificateAuthorityData},
		}, nil
	}
	return nil, errors.New("the ConfigMap cluster-info names no cluster")
}

// bootstrap gets a client certificate for a node, and returns clients with it on
// a connection of their own.
func (j *joins) bootstrap(ctx context.Context, config *rest.Config, name string) (*clients, error) {
	joining, err := newClients(config)
	if err != nil {
		return nil, err
	}
	defer joining.close()
	key, request, err := nodeRequest("system:node:" + name)
	if err != nil {
		return nil, err
	}
	_, err = joining.certificates.CertificateSigningRequests().Create(ctx, &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{label: j.site.id}},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			SignerName: certificatesv1.KubeAPIServerClientKubeletSignerName, Request: request, ExpirationSeconds: ptr.To[int32](joinedLife),
			Usages: []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return nil, err
	}
	certificate, err := signed(ctx, joining, name)
	if err != nil {
		return nil, err
	}
	own := rest.AnonymousClientConfig(config)
	own.CertData, own.KeyData = certificate, key
	return newClients(own)
}

// signed waits for the certificate of a request.
func signed(ctx context.Context, c *clients, name string) (certificate []byte, err error) {
	err = eventually(ctx, func(ctx context.Context) error {
		csr, err := c.certificates.CertificateSigningRequests().Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		state := "not approved"
		for _, condition := range csr.Status.Conditions {
			switch condition.Type {
			case certificatesv1.CertificateDenied, certificatesv1.CertificateFailed:
				return fmt.Errorf("certificate signing request %s: %s: %s", name, condition.Type, condition.Message)
			}
			state = "approved, but not signed"
		}
		if len(csr.Status.Certificate) == 0 {
			return notYet(fmt.Sprintf("certificate signing request %s: %s yet", name, state))
		}
		certificate = csr.Status.Certificate
		return nil
	})
	return certificate, err
}

// nodeRequest makes a key and a request for a node's client certificate, both PEM.
func nodeRequest(user string) (key, request []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalECPrivateKey(private)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.CertificateRequest{Subject: pkix.Name{Organization: []string{"system:nodes"}, CommonName: user}}
	asked, err := x509.CreateCertificateRequest(rand.Reader, template, private)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: asked}), nil
}
