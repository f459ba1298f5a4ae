package certmanager

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwapi "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubepki/kubepki/internal/shim"
)

const (
	ingresses = "/apis/networking.k8s.io/v1/namespaces/n/ingresses"
	gateways  = "/apis/gateway.networking.k8s.io/v1/namespaces/n/gateways"
	nCerts    = "/apis/cert-manager.io/v1/namespaces/n/certificates"
	byIssuer  = "cert-manager.io/issuer"
)

// told are Events.
type told struct {
	mu  sync.Mutex
	all []string
}

func (e *told) Tell(o object, warning bool, reason, message string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, fmt.Sprintf("%s/%s %v %s: %s", o.kind, o.name, warning, reason, message))
}

// of counts the Events about a parent that hold a word.
func (e *told) of(parent, word string) (n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, text := range e.all {
		if strings.HasPrefix(text, parent+" ") && strings.Contains(text, word) {
			n++
		}
	}
	return n
}

// shimmed is a running shim of an API server.
type shimmed struct {
	*api
	events *told
	t      *testing.T
	last   int // of the sentinels
}

func startShim(t *testing.T, gatewayAPI ...string) *shimmed {
	t.Helper()
	a := newAPI(t)
	a.gateways = gatewayAPI
	client, err := NewClient(a.config())
	check(t, err)
	w := &shimmed{api: a, events: &told{}, t: t}
	s := NewShim(ShimOptions{
		Client: client, Ingresses: true, Gateways: gatewayAPI != nil, Events: w.events, Log: slog.New(slog.DiscardHandler),
		Defaults: shim.Defaults{Auto: []string{"kubernetes.io/tls-acme"}, Issuer: cmmeta.IssuerReference{Name: "default", Kind: "ClusterIssuer"}},
	})
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { check(t, s.Run(ctx)) })
	t.Cleanup(func() {
		stop()
		a.CloseClientConnections()
		running.Wait()
	})
	until(t, "all is seen", s.Synced)
	return w
}

// ingress makes one with TLS blocks, given as "secret: host host".
func (w *shimmed) ingress(name string, notes map[string]string, blocks ...string) {
	w.t.Helper()
	o := networkingv1.Ingress{TypeMeta: metav1.TypeMeta{Kind: "Ingress", APIVersion: "networking.k8s.io/v1"}, ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: notes}}
	for _, b := range blocks {
		secret, hosts, _ := strings.Cut(b, ":")
		o.Spec.TLS = append(o.Spec.TLS, networkingv1.IngressTLS{SecretName: secret, Hosts: strings.Fields(hosts)})
	}
	w.make(w.t, ingresses, o)
}

// blocks has a user give an Ingress other TLS blocks.
func (w *shimmed) blocks(name string, blocks ...string) {
	w.t.Helper()
	w.edit(w.t, ingresses+"/"+name, func(o map[string]any) {
		var tls []any
		for _, b := range blocks {
			secret, hosts, _ := strings.Cut(b, ":")
			tls = append(tls, map[string]any{"secretName": secret, "hosts": strings.Fields(hosts)})
		}
		o["spec"] = map[string]any{"tls": tls}
	})
}

// certificates are those that there are, each as "name=issuer:host+host", but for sentinels.
func (w *shimmed) certificates() string {
	var all []string
	for _, name := range w.names(nCerts) {
		if strings.HasPrefix(name, "sentinel") {
			continue
		}
		var c cmapi.Certificate
		w.read(nCerts+"/"+name, &c)
		owner := "nobody"
		if o := metav1.GetControllerOf(&c); o != nil {
			owner = o.Name
		}
		all = append(all, fmt.Sprintf("%s=%s:%s of %s", name, c.Spec.IssuerRef.Name, strings.Join(c.Spec.DNSNames, "+"), owner))
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

// settles waits until all that has happened has been looked at.
func (w *shimmed) settles() {
	w.t.Helper()
	for range settling {
		w.last++
		name := fmt.Sprint("sentinel-", w.last)
		w.ingress(name, map[string]string{byIssuer: "ca"}, name+": s.example")
		until(w.t, "a sentinel has its Certificate", func() bool { return slices.Contains(w.names(nCerts), name) })
	}
}

func (w *shimmed) becomes(want string) {
	w.t.Helper()
	until(w.t, want, func() bool { return w.certificates() == want })
}

func TestCertificatesFollowAnIngress(t *testing.T) {
	const web = ingresses + "/web"
	foreign := cmapi.Certificate{TypeMeta: metav1.TypeMeta{Kind: "Certificate", APIVersion: "cert-manager.io/v1"}, ObjectMeta: metav1.ObjectMeta{Name: "api-tls"}}
	foreign.Spec.SecretName, foreign.Spec.DNSNames, foreign.Spec.IssuerRef.Name = "api-tls", []string{"mine.example"}, "mine"
	const before = "web-tls=ca:a.example of web"
	for name, c := range map[string]struct {
		change func(w *shimmed)
		want   string
		event  string // one about web holds it
	}{
		"nothing changes": {func(*shimmed) {}, before, ""},
		"another host":    {func(w *shimmed) { w.blocks("web", "web-tls: a.example b.example") }, "web-tls=ca:a.example+b.example of web", "Successfully updated"},
		"another issuer":  {func(w *shimmed) { w.annotate(w.t, web, byIssuer, "next") }, "web-tls=next:a.example of web", "Successfully updated"},
		"one more block":  {func(w *shimmed) { w.blocks("web", "web-tls: a.example", "api-tls: b.example") }, "api-tls=ca:b.example of web, " + before, "Successfully created Certificate \"api-tls\""},
		"another Secret":  {func(w *shimmed) { w.blocks("web", "new-tls: a.example") }, "new-tls=ca:a.example of web", "Successfully deleted unrequired Certificate \"web-tls\""},
		"no block":        {func(w *shimmed) { w.blocks("web") }, "", "Successfully deleted"},
		"the annotation goes: what is there stays": {func(w *shimmed) {
			w.annotate(w.t, web, byIssuer, "")
			w.blocks("web", "other-tls: b.example")
		}, before, ""},
		"the Ingress is removed: the API server's garbage collector has the Certificate": {func(w *shimmed) { w.remove(w.t, web) }, before, ""},
		"the Ingress is going": {func(w *shimmed) {
			w.edit(w.t, web, func(o map[string]any) { meta(o)["finalizers"] = []any{metav1.FinalizerDeleteDependents} })
			w.settles() // which of two watches comes first is not known
			w.remove(w.t, nCerts+"/web-tls")
		}, "", ""},
		"an Ingress of the same name that is another one": {func(w *shimmed) {
			w.remove(w.t, web)
			w.ingress("web", map[string]string{byIssuer: "evil"}, "web-tls: evil.example")
		}, before, "is there and is not of this Ingress"},
		"somebody removes the Certificate": {func(w *shimmed) { w.remove(w.t, nCerts+"/web-tls") }, before, ""},
		"somebody changes the Certificate": {func(w *shimmed) {
			w.edit(w.t, nCerts+"/web-tls", func(o map[string]any) { o["spec"].(map[string]any)["dnsNames"] = []any{"evil.example"} })
		}, before, "Successfully updated"},
		"somebody says what no annotation can say": {func(w *shimmed) {
			w.edit(w.t, nCerts+"/web-tls", func(o map[string]any) {
				o["spec"].(map[string]any)["additionalOutputFormats"] = []any{map[string]any{"type": "DER"}}
			})
		}, before, ""},
		"a Certificate of a user is in the way": {func(w *shimmed) {
			w.make(w.t, nCerts, foreign)
			w.blocks("web", "web-tls: a.example", "api-tls: b.example")
		}, "api-tls=mine:mine.example of nobody, " + before, `Certificate "api-tls" is there and is not of this Ingress`},
		"two Ingresses with one Secret: the first has it": {func(w *shimmed) {
			w.ingress("second", map[string]string{byIssuer: "other"}, "web-tls: b.example")
			until(w.t, "the second is told", func() bool { return w.events.of("Ingress/second", "is there and is not of this Ingress") == 1 })
		}, before, ""},
		"two blocks with one Secret": {func(w *shimmed) { w.blocks("web", "web-tls: a.example", "web-tls: b.example") }, before, "must only appear in a single TLS entry"},
		"a block without hosts, beside a good one": {func(w *shimmed) { w.blocks("web", "web-tls:", "api-tls: b.example") }, "api-tls=ca:b.example of web, " + before,
			"Skipped a TLS block: spec.tls[0].hosts"},
		"two issuers": {func(w *shimmed) {
			w.annotate(w.t, web, "cert-manager.io/cluster-issuer", "c")
			w.blocks("web", "other-tls: b.example")
		}, before, "may not be set"},
		"an annotation that does not parse": {func(w *shimmed) {
			w.annotate(w.t, web, "cert-manager.io/duration", "90 days")
			w.blocks("web", "other-tls: b.example")
		}, before, `"cert-manager.io/duration"`},
		"one that did not parse, and now does": {func(w *shimmed) {
			w.annotate(w.t, web, "cert-manager.io/duration", "90 days")
			until(w.t, "it is told", func() bool { return w.events.of("Ingress/web", "duration") == 1 })
			w.annotate(w.t, web, "cert-manager.io/duration", "2160h")
			w.blocks("web", "web-tls: b.example")
		}, "web-tls=ca:b.example of web", "Successfully updated"},
		"the API server refuses the Certificate": {func(w *shimmed) {
			w.mu.Lock()
			w.refuses = func(method, path string) int {
				if method == "POST" && path == nCerts && !strings.Contains(fmt.Sprint(w.writes), "once-more") {
					w.writes = append(w.writes, "once-more")
					return 422
				}
				return 0
			}
			w.mu.Unlock()
			w.blocks("web", "web-tls: a.example", "api-tls: b.example")
			until(w.t, "it is told", func() bool { return w.events.of("Ingress/web", "BadConfig") == 1 })
		}, before, ""},
		"the API server fails once": {func(w *shimmed) {
			failed := false
			w.mu.Lock()
			w.refuses = func(method, path string) int {
				if method == "PUT" && path == nCerts+"/web-tls" && !failed {
					failed = true
					return 500
				}
				return 0
			}
			w.mu.Unlock()
			w.blocks("web", "web-tls: b.example")
		}, "web-tls=ca:b.example of web", ""},
		"kubernetes.io/tls-acme and the default issuer": {func(w *shimmed) {
			w.ingress("auto", map[string]string{"kubernetes.io/tls-acme": "true"}, "auto-tls: auto.example")
		}, "auto-tls=default:auto.example of auto, " + before, ""},
		"an Ingress that asks for nothing": {func(w *shimmed) { w.ingress("plain", nil, "plain-tls: b.example") }, before, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := startShim(t)
			w.ingress("web", map[string]string{byIssuer: "ca"}, "web-tls: a.example")
			w.becomes(before)
			c.change(w)
			if c.event != "" {
				until(t, "an Event "+c.event, func() bool { return w.events.of("Ingress/web", c.event) > 0 })
			}
			w.becomes(c.want)
			w.settles()
			w.mu.Lock()
			writes := len(w.writes)
			w.mu.Unlock()
			w.settles()
			w.mu.Lock()
			more := len(w.writes) - writes
			w.mu.Unlock()
			if got := w.certificates(); got != c.want || more != settling {
				t.Errorf("it does not come to rest: %d writes, and there is %s", more-settling, got)
			}
			if n := w.events.of("Ingress/web", c.event); c.event != "" && n != 1 {
				t.Errorf("it was told %d times", n)
			}
		})
	}
}

func TestWhatAUserHasSaidOfACertificateStays(t *testing.T) {
	w := startShim(t)
	w.ingress("web", map[string]string{byIssuer: "ca"}, "web-tls: a.example")
	w.becomes("web-tls=ca:a.example of web")
	w.edit(t, nCerts+"/web-tls", func(o map[string]any) {
		o["spec"].(map[string]any)["keystores"] = map[string]any{"jks": map[string]any{"create": true}}
		meta(o)["annotations"] = map[string]any{"own": "note"}
	})
	w.blocks("web", "web-tls: b.example")
	w.becomes("web-tls=ca:b.example of web")
	var c cmapi.Certificate
	w.read(nCerts+"/web-tls", &c)
	if c.Spec.Keystores == nil || c.Spec.Keystores.JKS == nil || c.Annotations["own"] != "note" {
		t.Errorf("it is gone: %+v", c)
	}
}

func TestCertificatesFollowAGateway(t *testing.T) {
	secret, terminate := gwapi.Kind("Secret"), gwapi.TLSModeTerminate
	core := gwapi.Group("")
	listener := func(name, host string, to string, mode gwapi.TLSModeType) gwapi.Listener {
		h := gwapi.Hostname(host)
		return gwapi.Listener{Name: gwapi.SectionName(name), Hostname: &h, Protocol: gwapi.HTTPSProtocolType, Port: 443,
			TLS: &gwapi.ListenerTLSConfig{Mode: &mode, CertificateRefs: []gwapi.SecretObjectReference{{Group: &core, Kind: &secret, Name: gwapi.ObjectName(to)}}}}
	}
	other := gwapi.Namespace("m")
	abroad := listener("abroad", "abroad.example", "abroad-tls", terminate)
	abroad.TLS.CertificateRefs[0].Namespace = &other
	w := startShim(t, "gateways")
	o := gwapi.Gateway{TypeMeta: metav1.TypeMeta{Kind: "Gateway", APIVersion: "gateway.networking.k8s.io/v1"}, ObjectMeta: metav1.ObjectMeta{Name: "gate", Annotations: map[string]string{byIssuer: "ca"}}}
	o.Spec.Listeners = []gwapi.Listener{
		listener("one", "a.example", "gate-tls", terminate), listener("two", "b.example", "gate-tls", terminate),
		listener("through", "through.example", "through-tls", gwapi.TLSModePassthrough), abroad,
	}
	w.make(t, gateways, o)
	w.becomes("gate-tls=ca:a.example+b.example of gate")
	until(t, "the Secret of another namespace is told", func() bool {
		return w.events.of("Gateway/gate", "cross-namespace secret references are not allowed") == 1
	})
	w.edit(t, gateways+"/gate", func(o map[string]any) {
		spec := o["spec"].(map[string]any)
		spec["listeners"] = spec["listeners"].([]any)[:1]
	})
	w.becomes("gate-tls=ca:a.example of gate")
	w.annotate(t, gateways+"/gate", "cert-manager.io/ignore-tls-listeners", "one")
	w.settles()
	w.becomes("gate-tls=ca:a.example of gate") // as in cert-manager: a listener names its Secret still
}
