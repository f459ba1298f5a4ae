package shim_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwapi "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"

	"github.com/kubepki/kubepki/internal/shim"
)

type notes = map[string]string

// ingress is one with an issuer and the TLS blocks given as "secret: host host".
func ingress(annotations notes, blocks ...string) *networkingv1.Ingress {
	o := &networkingv1.Ingress{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "web", UID: "1", Annotations: notes{"cert-manager.io/issuer": "ca"}}}
	maps.Copy(o.Annotations, annotations)
	for _, b := range blocks {
		secret, hosts, _ := strings.Cut(b, ":")
		o.Spec.TLS = append(o.Spec.TLS, networkingv1.IngressTLS{SecretName: secret, Hosts: strings.Fields(hosts)})
	}
	return o
}

// only is the one Certificate that an Ingress asks for.
func only(t *testing.T, d *shim.Defaults, o *networkingv1.Ingress) (*cmapi.Certificate, error) {
	t.Helper()
	all, _, err := d.Wanted(shim.OfIngress(o))
	if err != nil {
		return nil, err
	}
	if len(all) != 1 {
		t.Fatalf("it asks for %d", len(all))
	}
	return all[0], nil
}

func text(t *testing.T, o any) string {
	t.Helper()
	data, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestAnnotationsOfAnIngress(t *testing.T) {
	const base = `"dnsNames":["a.example"],"secretName":"tls","issuerRef":{"name":"ca","kind":"Issuer"},`
	for what, test := range map[string]struct {
		annotations notes
		want        string // in the spec, or the error
	}{
		"an issuer alone":             {nil, `{` + base + `"usages":["digital signature","key encipherment"]}`},
		"a common name":               {notes{"cert-manager.io/common-name": "cn"}, `"commonName":"cn"`},
		"more names":                  {notes{"cert-manager.io/alt-names": "b.example,c.example"}, `"dnsNames":["a.example","b.example","c.example"]`},
		"more names, but none":        {notes{"cert-manager.io/alt-names": ""}, base},
		"addresses":                   {notes{"cert-manager.io/ip-sans": "10.0.0.1,fd00::1"}, `"ipAddresses":["10.0.0.1","fd00::1"]`},
		"mail":                        {notes{"cert-manager.io/email-sans": "a@b.example,c@d.example"}, `"emailAddresses":["a@b.example","c@d.example"]`},
		"times":                       {notes{"cert-manager.io/duration": "2160h", "cert-manager.io/renew-before": "1440h"}, `"duration":"2160h0m0s","renewBefore":"1440h0m0s"`},
		"a share":                     {notes{"cert-manager.io/renew-before-percentage": "30"}, `"renewBeforePercentage":30`},
		"usages":                      {notes{"cert-manager.io/usages": "server auth, client auth"}, `"usages":["server auth","client auth"]`},
		"revisions":                   {notes{"cert-manager.io/revision-history-limit": "7"}, `"revisionHistoryLimit":7`},
		"a key":                       {notes{"cert-manager.io/private-key-algorithm": "ECDSA", "cert-manager.io/private-key-size": "384", "cert-manager.io/private-key-encoding": "PKCS8", "cert-manager.io/private-key-rotation-policy": "Always"}, `"privateKey":{"rotationPolicy":"Always","encoding":"PKCS8","algorithm":"ECDSA","size":384}`},
		"the size of an RSA key":      {notes{"cert-manager.io/private-key-size": "4096"}, `"privateKey":{"size":4096}`},
		"a subject, with a comma":     {notes{"cert-manager.io/subject-organizations": `"Shop, Inc.",More`, "cert-manager.io/subject-serialnumber": "9"}, `"subject":{"organizations":["Shop, Inc.","More"],"serialNumber":"9"}`},
		"each part of a subject":      {notes{"cert-manager.io/subject-organizationalunits": "u", "cert-manager.io/subject-countries": "DE", "cert-manager.io/subject-provinces": "p", "cert-manager.io/subject-localities": "l", "cert-manager.io/subject-postalcodes": "1", "cert-manager.io/subject-streetaddresses": "s"}, `"subject":{"countries":["DE"],"organizationalUnits":["u"],"localities":["l"],"provinces":["p"],"streetAddresses":["s"],"postalCodes":["1"]}`},
		"a template":                  {notes{"cert-manager.io/secret-template": `{"annotations":{"a":"b"},"labels":{"c":"d"}}`}, `"secretTemplate":{"annotations":{"a":"b"},"labels":{"c":"d"}}`},
		"an empty template":           {notes{"cert-manager.io/secret-template": `{}`}, base},
		"another kind of issuer":      {notes{"cert-manager.io/issuer-kind": "Vault", "cert-manager.io/issuer-group": "x.example"}, `"issuerRef":{"name":"ca","kind":"Vault","group":"x.example"}`},
		"two issuers":                 {notes{"cert-manager.io/cluster-issuer": "c"}, `both "cert-manager.io/cluster-issuer" and "cert-manager.io/issuer" may not be set`},
		"no time":                     {notes{"cert-manager.io/duration": "90d"}, `invalid ingress annotation "cert-manager.io/duration"`},
		"no share":                    {notes{"cert-manager.io/renew-before-percentage": "5000000000"}, `invalid ingress annotation "cert-manager.io/renew-before-percentage"`},
		"an unknown usage":            {notes{"cert-manager.io/usages": "server auth,serve"}, `invalid key usage name "serve"`},
		"no revision":                 {notes{"cert-manager.io/revision-history-limit": "0"}, "must be a positive number"},
		"an unknown algorithm":        {notes{"cert-manager.io/private-key-algorithm": "DSA"}, `"DSA" is none of RSA, ECDSA, Ed25519`},
		"an unknown encoding":         {notes{"cert-manager.io/private-key-encoding": "PKCS7"}, `is none of PKCS1, PKCS8`},
		"an unknown policy":           {notes{"cert-manager.io/private-key-rotation-policy": "Now"}, `is none of Never, Always`},
		"a weak key":                  {notes{"cert-manager.io/private-key-size": "1024"}, "invalid private key size"},
		"a curve that is none":        {notes{"cert-manager.io/private-key-algorithm": "ECDSA", "cert-manager.io/private-key-size": "2048"}, "invalid private key size"},
		"a template of cert-manager":  {notes{"cert-manager.io/secret-template": `{"annotations":{"cert-manager.io/x":"b"}}`}, "must not have cert-manager.io/ annotations"},
		"a template of unknown words": {notes{"cert-manager.io/secret-template": `{"data":{}}`}, "error parsing secret template JSON"},
		"a subject of two lines":      {notes{"cert-manager.io/subject-countries": "DE\nFR"}, "2 lines of values where one is wanted"},
		"an empty subject":            {notes{"cert-manager.io/subject-countries": ""}, "0 lines of values"},
	} {
		t.Run(what, func(t *testing.T) {
			c, err := only(t, &shim.Defaults{}, ingress(test.annotations, "tls: a.example"))
			got := ""
			if err != nil {
				got = err.Error()
			} else {
				got = text(t, c.Spec)
			}
			if !strings.Contains(got, test.want) {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
		})
	}
}

func TestWhatElseACertificateTakesOver(t *testing.T) {
	o := ingress(notes{"team": "x", "other": "y", "acme.cert-manager.io/http01-edit-in-place": "true", "acme.cert-manager.io/http01-ingress-class": "nginx", "acme.cert-manager.io/http01-ingress-ingressclassname": "traefik"},
		"tls: a.example 10.0.0.1 a.example fd00::1")
	o.Labels = map[string]string{"app": "web", "applyset.kubernetes.io/part-of": "set"}
	c, err := only(t, &shim.Defaults{Extra: []string{"team", "absent"}}, o)
	if err != nil {
		t.Fatal(err)
	}
	c.Spec.Usages = nil
	const want = `{"metadata":{"name":"tls","namespace":"ns","labels":{"app":"web"},"annotations":{` +
		`"acme.cert-manager.io/http01-override-ingress-class":"nginx","acme.cert-manager.io/http01-override-ingress-ingressclassname":"traefik",` +
		`"acme.cert-manager.io/http01-override-ingress-name":"web","cert-manager.io/issue-temporary-certificate":"true","team":"x"},` +
		`"ownerReferences":[{"apiVersion":"networking.k8s.io/v1","kind":"Ingress","name":"web","uid":"1","controller":true,"blockOwnerDeletion":true}]},` +
		`"spec":{"dnsNames":["a.example"],"ipAddresses":["10.0.0.1","fd00::1"],"secretName":"tls","issuerRef":{"name":"ca","kind":"Issuer"}},"status":{}}`
	if got := text(t, c); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if o.Labels["applyset.kubernetes.io/part-of"] == "" {
		t.Error("the labels of the Ingress were changed")
	}
}

func TestWhoAsks(t *testing.T) {
	d := &shim.Defaults{Issuer: cmmeta.IssuerReference{Name: "usual", Kind: "ClusterIssuer", Group: "cert-manager.io"}, Auto: []string{shim.TLSACME}}
	for what, test := range map[string]struct {
		defaults    *shim.Defaults
		annotations notes
		want        string // the issuer; "": it does not ask; else the error
	}{
		"an issuer":                         {d, notes{"cert-manager.io/issuer": "a"}, "a Issuer cert-manager.io"},
		"an issuer of the cluster":          {&shim.Defaults{}, notes{"cert-manager.io/cluster-issuer": "a"}, "a ClusterIssuer "},
		"the usual one":                     {d, notes{"kubernetes.io/tls-acme": "true"}, "usual ClusterIssuer cert-manager.io"},
		"nothing":                           {d, notes{"a": "b"}, ""},
		"no to the usual one":               {d, notes{"kubernetes.io/tls-acme": "false"}, ""},
		"the usual one, where there is not": {&shim.Defaults{Auto: d.Auto}, notes{"kubernetes.io/tls-acme": "true"}, "no annotation names an issuer"},
		"an empty issuer":                   {&shim.Defaults{}, notes{"cert-manager.io/issuer": ""}, "no annotation names an issuer"},
		"a group for one of the cluster":    {d, notes{"cert-manager.io/cluster-issuer": "a", "cert-manager.io/issuer-group": "g"}, "may not be set"},
		"a kind for one of the cluster":     {d, notes{"cert-manager.io/cluster-issuer": "a", "cert-manager.io/issuer-kind": "k"}, "may not be set"},
	} {
		t.Run(what, func(t *testing.T) {
			o := ingress(nil, "tls: a.example")
			o.Annotations = test.annotations
			plan, err := test.defaults.Plan(shim.OfIngress(o), nil)
			got := ""
			switch {
			case err != nil:
				got = err.Error()
			case len(plan.Create) > 0:
				ref := plan.Create[0].Spec.IssuerRef
				got = ref.Name + " " + ref.Kind + " " + ref.Group
			}
			if test.want == "" && got != "" || !strings.Contains(got, test.want) {
				t.Errorf("got %q", got)
			}
		})
	}
}

func TestBlocksThatGetNoCertificate(t *testing.T) {
	for what, test := range map[string]struct {
		blocks []string
		wanted string
		bad    string // of a block, or of the whole
	}{
		"all are good":                {[]string{"a: a.example", "b: b.example"}, "a b", ""},
		"one without hosts":           {[]string{"a:", "b: b.example"}, "b", "spec.tls[0].hosts: Required value"},
		"one without a Secret":        {[]string{"a: a.example", ": b.example"}, "a", "spec.tls[1].secretName: Required value"},
		"two with one Secret: nobody": {[]string{"a: a.example", "b: b.example", "a: c.example"}, "", "must only appear in a single TLS entry"},
		"no TLS":                      {nil, "", ""},
	} {
		t.Run(what, func(t *testing.T) {
			all, skipped, err := (&shim.Defaults{}).Wanted(shim.OfIngress(ingress(nil, test.blocks...)))
			said := fmt.Sprint(strings.Join(skipped, " "), err)
			if got := certificateNames(all); got != test.wanted || !strings.Contains(said, test.bad) || test.bad == "" && (err != nil || len(skipped) > 0) {
				t.Errorf("it asks for %q; %s", got, said)
			}
		})
	}
}

func certificateNames(all []*cmapi.Certificate) string {
	var list []string
	for _, c := range all {
		list = append(list, c.Name)
	}
	return strings.Join(list, " ")
}

// gateway is one with listeners, each a YAML text.
func gateway(t *testing.T, annotations notes, listeners ...string) *gwapi.Gateway {
	t.Helper()
	g := &gwapi.Gateway{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: "gate", UID: "2", Annotations: notes{"cert-manager.io/issuer": "ca"}}}
	maps.Copy(g.Annotations, annotations)
	for _, text := range listeners {
		var l gwapi.Listener
		if err := yaml.UnmarshalStrict([]byte(text), &l); err != nil {
			t.Fatal(err)
		}
		g.Spec.Listeners = append(g.Spec.Listeners, l)
	}
	return g
}

func TestListeners(t *testing.T) {
	const good = `{name: a, hostname: a.example, port: 443, protocol: HTTPS, tls: {mode: Terminate, certificateRefs: [{group: "", kind: Secret, name: a}]}}`
	change := func(from, to string) string {
		if !strings.Contains(good, from) {
			t.Fatal(from)
		}
		return strings.Replace(good, from, to, 1)
	}
	for what, test := range map[string]struct {
		annotations notes
		listeners   []string
		want        string // "secret: hosts" of each
		bad         string
	}{
		"one":                             {nil, []string{good}, "a: a.example", ""},
		"two with one Secret":             {nil, []string{good, change("hostname: a.example", `hostname: "*.b.example"`)}, "a: a.example *.b.example", ""},
		"two with one Secret and host":    {nil, []string{good, good}, "a: a.example", ""},
		"two Secrets":                     {nil, []string{change(`name: a}]`, `name: a}, {name: b}]`)}, "a: a.example, b: a.example", ""},
		"TLS":                             {nil, []string{change("HTTPS", "TLS")}, "a: a.example", ""},
		"HTTP":                            {nil, []string{change("HTTPS", "HTTP")}, "", ""},
		"a protocol that a flag names":    {nil, []string{change("HTTPS", "x.example/DTLS")}, "a: a.example", ""},
		"TLS that goes through":           {nil, []string{change("Terminate", "Passthrough")}, "", ""},
		"one that is to be ignored":       {notes{"cert-manager.io/ignore-tls-listeners": "x, a"}, []string{good, strings.ReplaceAll(good, "name: a", "name: c")}, "c: c.example", ""},
		"no host":                         {nil, []string{change("hostname: a.example, ", "")}, "", "spec.listeners[0].hostname: Required value"},
		"no TLS":                          {nil, []string{`{name: a, hostname: a.example, port: 443, protocol: HTTPS}`}, "", "spec.listeners[0].tls: Required value"},
		"no Secret":                       {nil, []string{change(`[{group: "", kind: Secret, name: a}]`, "[]")}, "", "listener has no certificateRefs"},
		"a Secret of another namespace":   {nil, []string{change("name: a}]", "name: a, namespace: other}]")}, "", "cross-namespace"},
		"a Secret of its own namespace":   {nil, []string{change("name: a}]", "name: a, namespace: ns}]")}, "a: a.example", ""},
		"another kind":                    {nil, []string{change("kind: Secret", "kind: ConfigMap")}, "", `kind: Unsupported value: "ConfigMap"`},
		"another group":                   {nil, []string{change(`group: ""`, "group: x")}, "", `group: Unsupported value: "x"`},
		"another mode":                    {nil, []string{change("Terminate", "Reencrypt")}, "", `mode: Unsupported value: "Reencrypt"`},
		"no mode":                         {nil, []string{change("mode: Terminate, ", "")}, "", "mode: Required value"},
		"a bad one does not stop another": {nil, []string{`{name: b, port: 443, protocol: HTTPS}`, good}, "a: a.example", "spec.listeners[0]"},
	} {
		t.Run(what, func(t *testing.T) {
			all, skipped, err := (&shim.Defaults{Protocols: []string{"x.example/DTLS"}}).Wanted(shim.OfGateway(gateway(t, test.annotations, test.listeners...)))
			var got []string
			for _, c := range all {
				got = append(got, c.Name+": "+strings.Join(c.Spec.DNSNames, " "))
			}
			if err != nil || strings.Join(got, ", ") != test.want || !strings.Contains(strings.Join(skipped, " "), test.bad) || (test.bad == "") != (len(skipped) == 0) {
				t.Errorf("it asks for %q; %s, %v", got, skipped, err)
			}
		})
	}
}

func TestParentRefsForHTTP01(t *testing.T) {
	g := gateway(t, notes{"kubernetes.io/tls-acme": "true"}, `{name: a, hostname: a.example, port: 443, protocol: HTTPS, tls: {mode: Terminate, certificateRefs: [{name: a}]}}`)
	above := gwapi.Namespace("infra")
	set := &gwapi.ListenerSet{ObjectMeta: *g.ObjectMeta.DeepCopy()}
	set.Spec.ParentRef = gwapi.ParentGatewayReference{Name: "gate", Namespace: &above}
	set.Name = "set"
	set.Spec.Listeners = []gwapi.ListenerEntry{gwapi.ListenerEntry(g.Spec.Listeners[0])}
	through := set.DeepCopy()
	through.Annotations["acme.cert-manager.io/http01-parentreffallback"] = "true"
	for want, p := range map[string]*shim.Parent{
		"Gateway/gate":       shim.OfGateway(g),
		"ListenerSet/set":    shim.OfListenerSet(set),
		"Gateway/infra/gate": shim.OfListenerSet(through),
	} {
		all, _, err := (&shim.Defaults{}).Wanted(p)
		if err != nil || len(all) != 1 {
			t.Fatal(len(all), err)
		}
		a := all[0].Annotations
		got := a["acme.cert-manager.io/http01-parentrefkind"] + "/" + a["acme.cert-manager.io/http01-parentrefnamespace"] + "/" + a["acme.cert-manager.io/http01-parentrefname"]
		if got = strings.Replace(got, "//", "/", 1); got != want || all[0].OwnerReferences[0].Kind != p.Kind.Kind {
			t.Errorf("%s, of a %s; want %s", got, all[0].OwnerReferences[0].Kind, want)
		}
	}
	g.Annotations = notes{"kubernetes.io/tls-acme": "true"}
	if d := (&shim.Defaults{Auto: []string{shim.TLSACME}, Issuer: cmmeta.IssuerReference{Name: "x"}}); d.Asks(shim.OfGateway(g)) {
		t.Error("tls-acme is for Ingresses alone")
	}
}

func TestPlanAgainstWhatIsThere(t *testing.T) {
	d := &shim.Defaults{}
	for what, test := range map[string]struct {
		change  func(*networkingv1.Ingress, *cmapi.Certificate) // of what has been in order
		want    string                                          // create, update, delete
		overlay string                                          // in the spec or metadata after an update
	}{
		"all in order":    {func(*networkingv1.Ingress, *cmapi.Certificate) {}, "||", ""},
		"another host":    {func(o *networkingv1.Ingress, _ *cmapi.Certificate) { o.Spec.TLS[0].Hosts[0] = "b.example" }, "|a|", `"dnsNames":["b.example"]`},
		"another Secret":  {func(o *networkingv1.Ingress, _ *cmapi.Certificate) { o.Spec.TLS[0].SecretName = "b" }, "b||a", ""},
		"another issuer":  {func(o *networkingv1.Ingress, _ *cmapi.Certificate) { o.Annotations["cert-manager.io/issuer"] = "b" }, "|a|", `"issuerRef":{"kind":"Issuer","name":"b"}`},
		"no TLS any more": {func(o *networkingv1.Ingress, _ *cmapi.Certificate) { o.Spec.TLS = nil }, "||a", ""},
		"a block that is spoiled leaves its certificate": {func(o *networkingv1.Ingress, _ *cmapi.Certificate) { o.Spec.TLS[0].Hosts = nil }, "||", ""},
		"no annotation any more: the certificate stays":  {func(o *networkingv1.Ingress, _ *cmapi.Certificate) { o.Annotations = nil; o.Spec.TLS = nil }, "||", ""},
		"an Ingress that is going": {func(o *networkingv1.Ingress, _ *cmapi.Certificate) {
			o.Finalizers = []string{"foregroundDeletion"}
			o.Spec.TLS = nil
		}, "||", ""},
		"another label": {func(o *networkingv1.Ingress, _ *cmapi.Certificate) { o.Labels = notes{"l": "m"} }, "|a|", `"labels":{"l":"m"}`},
		"a label that somebody has added to the certificate": {func(_ *networkingv1.Ingress, c *cmapi.Certificate) { c.Labels = notes{"l": "m"} }, "|a|", ""},
		"a keystore that somebody has added":                 {func(_ *networkingv1.Ingress, c *cmapi.Certificate) { c.Spec.Keystores = &cmapi.CertificateKeystores{} }, "||", ""},
		"a keystore stays when the host changes": {func(o *networkingv1.Ingress, c *cmapi.Certificate) {
			c.Spec.Keystores = &cmapi.CertificateKeystores{JKS: &cmapi.JKSKeystore{Create: true}}
			o.Spec.TLS[0].Hosts[0] = "b.example"
		}, "|a|", `"keystores":{"jks":{"create":true`},
		"usages that somebody has added": {func(_ *networkingv1.Ingress, c *cmapi.Certificate) { c.Spec.Usages = []cmapi.KeyUsage{"client auth"} }, "||", ""},
		"usages stay when the host changes": {func(o *networkingv1.Ingress, c *cmapi.Certificate) {
			c.Spec.Usages = []cmapi.KeyUsage{"client auth"}
			o.Spec.TLS[0].Hosts[0] = "b.example"
		}, "|a|", `"usages":["client auth"]`},
		"usages that an annotation asks for": {func(o *networkingv1.Ingress, _ *cmapi.Certificate) {
			o.Annotations["cert-manager.io/usages"] = "client auth"
		}, "|a|", `"usages":["client auth"]`},
		"a subject that an annotation asks for": {func(o *networkingv1.Ingress, _ *cmapi.Certificate) {
			o.Annotations["cert-manager.io/subject-countries"] = "DE"
		}, "|a|", `"subject":{"countries":["DE"]}`},
		"a duration that an annotation asked for before": {func(_ *networkingv1.Ingress, c *cmapi.Certificate) { c.Spec.Duration = &metav1.Duration{Duration: 1} }, "|a|", `"spec":{"dnsNames"`},
		"a key that an annotation asks for": {func(o *networkingv1.Ingress, _ *cmapi.Certificate) {
			o.Annotations["cert-manager.io/private-key-algorithm"] = "ECDSA"
		}, "|a|", `"privateKey":{"algorithm":"ECDSA"}`},
		"an annotation for ACME": {func(o *networkingv1.Ingress, _ *cmapi.Certificate) {
			o.Annotations["acme.cert-manager.io/http01-edit-in-place"] = "true"
		}, "|a|", `"acme.cert-manager.io/http01-override-ingress-name":"web"`},
		"the group of cert-manager, which somebody wrote out": {func(_ *networkingv1.Ingress, c *cmapi.Certificate) { c.Spec.IssuerRef.Group = "cert-manager.io" }, "||", ""},
		"annotations of others on the certificate":            {func(_ *networkingv1.Ingress, c *cmapi.Certificate) { c.Annotations = notes{"x": "y"} }, "||", ""},
		"annotations of others stay when the issuer changes": {func(o *networkingv1.Ingress, c *cmapi.Certificate) {
			c.Annotations = notes{"x": "y"}
			o.Annotations["cert-manager.io/issuer"] = "b"
		}, "|a|", `"annotations":{"x":"y"}`},
		"the size of a key of which there is but one": {func(o *networkingv1.Ingress, c *cmapi.Certificate) {
			o.Annotations["cert-manager.io/private-key-algorithm"] = "Ed25519"
			c.Spec.PrivateKey = &cmapi.CertificatePrivateKey{Algorithm: "Ed25519", Size: 256}
		}, "||", ""},
	} {
		t.Run(what, func(t *testing.T) {
			o := ingress(nil, "a: a.example")
			there, err := only(t, d, o.DeepCopy())
			if err != nil {
				t.Fatal(err)
			}
			there.UID = "5"
			test.change(o, there)
			plan, err := d.Plan(shim.OfIngress(o), []*cmapi.Certificate{there})
			if err != nil {
				t.Fatal(err)
			}
			if got := certificateNames(plan.Create) + "|" + certificateNames(plan.Update) + "|" + certificateNames(plan.Delete); got != test.want {
				t.Fatalf("it would do %s", got)
			}
			if len(plan.Update) == 0 {
				return
			}
			var whole map[string]any
			if err := json.Unmarshal([]byte(text(t, there)), &whole); err != nil {
				t.Fatal(err)
			}
			if err := shim.Overlay(whole, plan.Update[0]); err != nil {
				t.Fatal(err)
			}
			after := &cmapi.Certificate{}
			if err := json.Unmarshal([]byte(text(t, whole)), after); err != nil {
				t.Fatal(err)
			}
			if got := text(t, whole); !strings.Contains(got, test.overlay) || after.UID != "5" {
				t.Errorf("after it there is %s", got)
			}
			if again, err := d.Plan(shim.OfIngress(o), []*cmapi.Certificate{after}); err != nil || len(again.Update) > 0 {
				t.Errorf("a second look would write again: %v", err)
			}
		})
	}
}

func TestWhatIsWrongWithTheWholeRemovesNothing(t *testing.T) {
	o := ingress(nil, "a: a.example")
	there, err := only(t, &shim.Defaults{}, o)
	if err != nil {
		t.Fatal(err)
	}
	o.Spec.TLS[0].SecretName = "b"
	o.Annotations["cert-manager.io/duration"] = "soon"
	if plan, err := (&shim.Defaults{}).Plan(shim.OfIngress(o), []*cmapi.Certificate{there}); err == nil || plan != nil {
		t.Errorf("%v, %v", plan, err)
	}
}
