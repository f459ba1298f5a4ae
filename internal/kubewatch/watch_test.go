package kubewatch_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/agent"
	"github.com/kubepki/kubepki/internal/brief"
	"github.com/kubepki/kubepki/internal/kubewatch"
	"github.com/kubepki/kubepki/internal/tlstest"
)

// follower is a Watch that runs.
type follower struct {
	*kubewatch.Watch
	changes chan struct{}
	log     *logged
}

type logged struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func follow(t *testing.T, a *api, o kubewatch.Options) *follower {
	t.Helper()
	f := &follower{changes: make(chan struct{}, 1), log: &logged{}}
	o.Log = slog.New(slog.NewTextHandler(f.log, nil))
	o.Changed = func() {
		select {
		case f.changes <- struct{}{}:
		default:
		}
	}
	var err error
	if f.Watch, err = kubewatch.New(a.config(), o); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = f.Run(ctx) // it returns no error
	}()
	t.Cleanup(func() { cancel(); <-done })
	return f
}

// held is what is kept, a line each.
func (f *follower) held() []string {
	var all []string
	f.Each(func(c brief.Certificate) bool {
		facts := c.Facts.Value()
		all = append(all, fmt.Sprintf("%s %s#%d", facts.Subject.Value().CN, c.Place.String(), c.Index))
		return true
	})
	return all
}

// await waits until what is kept is what is wanted.
func (f *follower) await(t *testing.T, want ...string) {
	t.Helper()
	timeout := time.After(10 * time.Second)
	for {
		got := f.held()
		if slices.Equal(got, want) {
			return
		}
		select {
		case <-f.changes:
		case <-timeout:
			t.Fatalf("got\n%s\nwant\n%s\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"), f.log)
		}
	}
}

func (f *follower) source(t *testing.T, name string) agent.Source {
	t.Helper()
	for _, s := range f.Sources() {
		if s.Name == name {
			return s
		}
	}
	t.Fatalf("there is no source %q", name)
	return agent.Source{}
}

// until waits for what is asked of the source of TLS Secrets.
func (f *follower) until(t *testing.T, is func(agent.Source) bool) agent.Source {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) { // it comes by a socket
		s := f.source(t, tlsSecrets)
		if is(s) {
			return s
		}
		if time.Now().After(deadline) {
			t.Fatalf("%+v\n%s", s, f.log)
		}
	}
}

const tlsSecrets = "secrets kubernetes.io/tls"

func TestChangesOfObjectsShow(t *testing.T) {
	a := newAPI(t)
	ca := tlstest.Authority(t, "root")
	certificate, key := pair(t, "one", ca)
	for i := range 7 { // three pages
		a.set(secret("ns", fmt.Sprintf("s%d", i), map[string][]byte{"tls.crt": certificate, "tls.key": key, "ca.crt": certPEM(ca)}))
	}
	opaque := secret("ns", "opaque", map[string][]byte{"tls.crt": certificate})
	opaque.Type = "Opaque"
	a.set(opaque)
	a.set(rootCA("a", certPEM(ca)))
	a.set(rootCA("kube-system", certPEM(ca)))
	a.set(rootCA("z", certificate))
	a.set(webhook("hook", certPEM(ca), nil, slices.Concat(certPEM(ca), certificate)))
	f := follow(t, a, kubewatch.Options{})
	var want []string
	for i := range 7 {
		want = append(want, fmt.Sprintf("root cluster:secret/ns/s%d#data[ca.crt]#0", i), fmt.Sprintf("one cluster:secret/ns/s%d#data[tls.crt]#0", i))
	}
	rest := []string{
		"root cluster:configmap/kube-system/kube-root-ca.crt#data[ca.crt]#0", "one cluster:configmap/z/kube-root-ca.crt#data[ca.crt]#0",
		"root cluster:validatingwebhookconfiguration/hook#webhooks[w0.example.org].clientConfig.caBundle#0",
		"root cluster:validatingwebhookconfiguration/hook#webhooks[w2.example.org].clientConfig.caBundle#0",
		"one cluster:validatingwebhookconfiguration/hook#webhooks[w2.example.org].clientConfig.caBundle#1",
	}
	f.await(t, slices.Concat(want, rest)...)

	t.Run("one that is made, changed and removed", func(t *testing.T) {
		s := secret("ns", "s9", map[string][]byte{"tls.crt": certificate, "tls.key": key})
		a.set(s)
		f.await(t, slices.Concat(want, []string{"one cluster:secret/ns/s9#data[tls.crt]#0"}, rest)...)
		two, key := pair(t, "two", ca)
		s.Data = map[string][]byte{"tls.crt": two, "tls.key": key}
		a.set(s)
		f.await(t, slices.Concat(want, []string{"two cluster:secret/ns/s9#data[tls.crt]#0"}, rest)...)
		a.remove(s)
		f.await(t, slices.Concat(want, rest)...)
	})
	t.Run("one that was removed while nothing could be watched", func(t *testing.T) {
		a.forget()
		a.remove(secret("ns", "s6", nil))
		f.await(t, slices.Concat(want[:12], rest)...)
		if s := f.source(t, tlsSecrets); s.Resyncs != 1 || !s.Up || s.Bundles != 6 {
			t.Errorf("%+v", s)
		}
	})
	t.Run("the API server is gone for a while", func(t *testing.T) {
		a.CloseClientConnections()
		a.set(secret("ns", "s6", map[string][]byte{"tls.crt": certificate, "ca.crt": certPEM(ca)}))
		f.await(t, slices.Concat(want, rest)...)
	})
}

func TestWhatIsForbiddenIsSaidOnceAndTheRestIsFollowed(t *testing.T) {
	a := newAPI(t)
	a.forbidden[secretsPath] = true
	a.set(rootCA("kube-system", certPEM(tlstest.Authority(t, "root"))))
	f := follow(t, a, kubewatch.Options{})
	f.await(t, "root cluster:configmap/kube-system/kube-root-ca.crt#data[ca.crt]#0")
	s := f.until(t, func(s agent.Source) bool { return s.Reason != "" })
	if s.Up || s.Errors["http_403"] < 1 || !strings.Contains(s.Reason, "list and watch secrets") {
		t.Errorf("%+v", s)
	}
	f.until(t, func(s agent.Source) bool { return s.Errors["http_403"] > 1 })
	if n := strings.Count(f.log.String(), "list and watch secrets"); n != 1 {
		t.Errorf("said %d times\n%s", n, f.log)
	}
	a.mu.Lock()
	a.forbidden[secretsPath] = false // as an API server does that has come to know its roles
	a.mu.Unlock()
	f.until(t, func(s agent.Source) bool { return s.Up })
}

func TestOnlyCertificatesAreTaken(t *testing.T) {
	ca := tlstest.Authority(t, "root")
	certificate, key := pair(t, "one", ca)
	const place = "cluster:secret/ns/s#data[tls.crt]"
	cases := map[string]struct {
		text []byte
		want []string
		code string
	}{
		"a certificate":                         {certificate, []string{"one " + place + "#0"}, ""},
		"a key before it":                       {slices.Concat(key, certificate), []string{"one " + place + "#0"}, ""},
		"text around them":                      {slices.Concat([]byte("subject=one\n"), certificate, []byte("\n# ca\n"), certPEM(ca)), []string{"one " + place + "#0", "root " + place + "#1"}, ""},
		"CRLF":                                  {[]byte(strings.ReplaceAll(string(certificate), "\n", "\r\n")), []string{"one " + place + "#0"}, ""},
		"nothing":                               {nil, nil, ""},
		"a key alone":                           {key, nil, "no_certificate_found"},
		"a block that does not end":             {certificate[:len(certificate)-30], nil, "bad_pem"},
		"a block that does not parse":           {[]byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), nil, "bad_pem"},
		"a key within a block that has no end":  {slices.Concat([]byte("-----BEGIN CERTIFICATE-----\n"), key, certificate), nil, "bad_pem"},
		"a good one beside one that is not one": {slices.Concat([]byte("-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n"), certificate), []string{"one " + place + "#0"}, "bad_pem"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			a := newAPI(t)
			a.set(secret("ns", "s", map[string][]byte{"tls.crt": c.text, "tls.key": key}))
			f := follow(t, a, kubewatch.Options{})
			f.until(t, func(s agent.Source) bool { return s.Read })
			if got := f.held(); !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
			var codes []string
			for _, fault := range f.source(t, tlsSecrets).Faults {
				codes = append(codes, fault.Code)
			}
			if got := strings.Join(codes, " "); got != c.code {
				t.Errorf("faults %q, want %q", got, c.code)
			}
		})
	}
}

func TestWhatIsFollowedCanBeChosen(t *testing.T) {
	a := newAPI(t)
	ca := tlstest.Authority(t, "root")
	certificate, _ := pair(t, "one", ca)
	kept, out := secret("ns", "kept", map[string][]byte{"a.pem": certificate, "b.crt": certificate}), secret("out", "s", map[string][]byte{"a.pem": certificate})
	kept.Type, out.Type = "Opaque", "Opaque"
	a.set(kept)
	a.set(out)
	s, err := kubewatch.ParseSecrets(`Opaque:.*\.pem`)
	if err != nil {
		t.Fatal(err)
	}
	f := follow(t, a, kubewatch.Options{Secrets: []kubewatch.Secrets{s}, Excluded: []string{"out"}})
	f.await(t, "one cluster:secret/ns/kept#data[a.pem]#0")
	for _, bad := range []string{"", ":x", "Opaque:("} {
		if _, err := kubewatch.ParseSecrets(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	if _, err := kubewatch.New(a.config(), kubewatch.Options{Selector: "a in ("}); err == nil {
		t.Error("a selector that is none was taken")
	}
}

func TestMoreThanIsKeptIsCounted(t *testing.T) {
	a := newAPI(t)
	certificate, _ := pair(t, "one", tlstest.Authority(t, "root"))
	for i := range 5 {
		a.set(secret("ns", fmt.Sprintf("s%d", i), map[string][]byte{"tls.crt": certificate}))
	}
	f := follow(t, a, kubewatch.Options{MaxCertificates: 2})
	f.await(t, "one cluster:secret/ns/s0#data[tls.crt]#0", "one cluster:secret/ns/s1#data[tls.crt]#0")
	f.until(t, func(s agent.Source) bool { return s.Left == 3 && s.Bundles == 5 })
}
