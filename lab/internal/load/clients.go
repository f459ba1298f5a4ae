package load

import (
	"bytes"
	"fmt"
	"net"
	"net/http"
	"os"

	"k8s.io/apimachinery/pkg/types"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	appsv1 "k8s.io/client-go/kubernetes/typed/apps/v1"
	authenticationv1 "k8s.io/client-go/kubernetes/typed/authentication/v1"
	certificatesv1 "k8s.io/client-go/kubernetes/typed/certificates/v1"
	coordinationv1 "k8s.io/client-go/kubernetes/typed/coordination/v1"
	corev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	rbacv1 "k8s.io/client-go/kubernetes/typed/rbac/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	wardlev1alpha1 "k8s.io/sample-apiserver/pkg/generated/clientset/versioned/typed/wardle/v1alpha1"
)

// once makes each request once. client-go tries some again without a word, up to
// ten times (rest/with_retry.go): what the first one met is what counts here.
type once struct{ rest.Interface }

func (o once) Verb(verb string) *rest.Request { return o.Interface.Verb(verb).MaxRetries(0) }
func (o once) Post() *rest.Request            { return o.Interface.Post().MaxRetries(0) }
func (o once) Put() *rest.Request             { return o.Interface.Put().MaxRetries(0) }
func (o once) Get() *rest.Request             { return o.Interface.Get().MaxRetries(0) }
func (o once) Delete() *rest.Request          { return o.Interface.Delete().MaxRetries(0) }
func (o once) Patch(t types.PatchType) *rest.Request {
	return o.Interface.Patch(t).MaxRetries(0)
}

// clients are the API's clients of one user over one transport, which nobody
// else shares: client-go's own is shared by all that have the same credentials.
type clients struct {
	config    *rest.Config
	transport *http.Transport
	http      *http.Client

	core           *corev1.CoreV1Client
	apps           *appsv1.AppsV1Client
	authentication *authenticationv1.AuthenticationV1Client
	certificates   *certificatesv1.CertificatesV1Client
	coordination   *coordinationv1.CoordinationV1Client
	rbac           *rbacv1.RbacV1Client
	wardle         *wardlev1alpha1.WardleV1alpha1Client
}

func newClients(config *rest.Config) (*clients, error) {
	config = rest.CopyConfig(config)
	config.QPS = -1 // the streams have a pace of their own
	config.UserAgent = "kubepki-lab-load"
	config.WarningHandler = rest.NoWarnings{} // each request would repeat them
	tlsConfig, err := rest.TLSConfigFor(config)
	if err != nil {
		return nil, err
	}
	// As in client-go's transport/cache.go, so that a dead connection is noticed
	// as soon as there.
	dial := config.Dial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	transport := utilnet.SetTransportDefaults(&http.Transport{TLSClientConfig: tlsConfig, DialContext: dial, Proxy: http.ProxyURL(nil)})
	wrapped, err := rest.HTTPWrappersForConfig(config, transport)
	if err != nil {
		return nil, err
	}
	c := &clients{config: config, transport: transport, http: &http.Client{Transport: wrapped}}
	return c, c.connect()
}

// connect makes a client for each API group.
func (c *clients) connect() error {
	core, err := corev1.NewForConfigAndClient(c.config, c.http)
	if err != nil {
		return err
	}
	apps, err := appsv1.NewForConfigAndClient(c.config, c.http)
	if err != nil {
		return err
	}
	authentication, err := authenticationv1.NewForConfigAndClient(c.config, c.http)
	if err != nil {
		return err
	}
	certificates, err := certificatesv1.NewForConfigAndClient(c.config, c.http)
	if err != nil {
		return err
	}
	coordination, err := coordinationv1.NewForConfigAndClient(c.config, c.http)
	if err != nil {
		return err
	}
	rbac, err := rbacv1.NewForConfigAndClient(c.config, c.http)
	if err != nil {
		return err
	}
	wardle, err := wardlev1alpha1.NewForConfigAndClient(c.config, c.http)
	if err != nil {
		return err
	}
	c.core, c.apps = corev1.New(once{core.RESTClient()}), appsv1.New(once{apps.RESTClient()})
	c.authentication = authenticationv1.New(once{authentication.RESTClient()})
	c.certificates = certificatesv1.New(once{certificates.RESTClient()})
	c.coordination = coordinationv1.New(once{coordination.RESTClient()})
	c.rbac = rbacv1.New(once{rbac.RESTClient()})
	c.wardle = wardlev1alpha1.New(once{wardle.RESTClient()})
	return nil
}

// close closes the connections that nobody uses.
func (c *clients) close() { c.transport.CloseIdleConnections() }

// user is one who calls the API by a kubeconfig. As kubectl, which starts anew
// with each command, it takes up a changed file with its next call.
type user struct {
	file  string
	fresh bool // each call on a connection of its own
	// as changes the configuration after it was read; nil: not at all.
	as func(*rest.Config)

	data []byte // the file as it was
	now  *clients
}

// call calls the API.
func (u *user) call(f func(*clients) error) error {
	c, err := u.clients()
	if err != nil {
		return err
	}
	if u.fresh {
		defer c.close()
	}
	return f(c)
}

func (u *user) clients() (*clients, error) {
	data, err := os.ReadFile(u.file)
	if err != nil {
		return nil, err
	}
	if u.now != nil && !u.fresh && bytes.Equal(data, u.data) {
		return u.now, nil
	}
	u.close()
	config, err := clientcmd.RESTConfigFromKubeConfig(data)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig %s: %w", u.file, err)
	}
	if u.as != nil {
		u.as(config)
	}
	c, err := newClients(config)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig %s: %w", u.file, err)
	}
	u.data, u.now = data, c
	return c, nil
}

func (u *user) close() {
	if u.now != nil {
		u.now.close()
	}
}
