package k8sfrontproxy_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/authenticatorfactory"
	"k8s.io/apiserver/pkg/authentication/request/headerrequest"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/client-go/transport"
	"pgregory.net/rapid"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/trust"
	"github.com/kubepki/kubepki/mtls"
	"github.com/kubepki/kubepki/mtls/frontproxy"
)

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func authority(name string) issue.Authority {
	key, err := issue.GenerateKey(issue.ECDSAP256)
	check(err)
	now := time.Now()
	c, err := issue.SelfSign(issue.Template{Subject: pkix.Name{CommonName: name}, Authority: true, NotBefore: now.Add(-time.Hour), NotAfter: now.AddDate(1, 0, 0)}, key)
	check(err)
	return issue.Authority{Certificate: c, Key: key}
}

func leaf(a issue.Authority, usage x509.ExtKeyUsage, subject pkix.Name, life time.Duration) *x509.Certificate {
	key, err := issue.GenerateKey(issue.ECDSAP256)
	check(err)
	now := time.Now()
	c, err := issue.Sign(issue.Template{Subject: subject, DNSNames: []string{"a.example.test"}, Usages: []x509.ExtKeyUsage{usage}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(life)}, key.Public(), a)
	check(err)
	return c
}

// world is what requests are made of: certificates that are shown, and settings.
type world struct {
	shown    map[string]*x509.Certificate // nil: none
	settings map[string]map[string]string // as in the ConfigMap
}

var made = sync.OnceValue(func() *world {
	cluster, proxies, foreign := authority("kubernetes"), authority("front-proxy-ca"), authority("front-proxy-ca")
	named := func(name string, groups ...string) pkix.Name {
		return pkix.Name{CommonName: name, Organization: groups}
	}
	client, server, hour := x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth, time.Hour
	w := &world{shown: map[string]*x509.Certificate{
		"none": nil, "proxy": leaf(proxies, client, named("front-proxy-client"), hour), "other": leaf(proxies, client, named("other", "system:masters"), hour),
		"nameless": leaf(proxies, client, named(""), hour), "old": leaf(proxies, client, named("front-proxy-client"), -time.Minute),
		"serving": leaf(proxies, server, named("front-proxy-client"), hour), "foreign": leaf(foreign, client, named("front-proxy-client"), hour),
		"jane": leaf(cluster, client, named("jane", "dev"), hour), "same": leaf(cluster, client, named("front-proxy-client"), hour),
		"anonymous": leaf(cluster, client, named("system:anonymous"), hour), "group": leaf(cluster, client, named("", "dev"), hour),
	}}
	pem := func(all ...issue.Authority) string {
		var b bytes.Buffer
		for _, a := range all {
			b.Write(trust.EncodeCertificates(a.Certificate))
		}
		return b.String()
	}
	usual := map[string]string{
		"client-ca-file": pem(cluster), "requestheader-client-ca-file": pem(proxies), "requestheader-allowed-names": `["front-proxy-client"]`,
		"requestheader-username-headers": `["X-Remote-User"]`, "requestheader-uid-headers": `["X-Remote-Uid"]`,
		"requestheader-group-headers": `["X-Remote-Group"]`, "requestheader-extra-headers-prefix": `["X-Remote-Extra-"]`,
	}
	with := func(change map[string]string) map[string]string {
		m := maps.Clone(usual)
		maps.Copy(m, change)
		return m
	}
	w.settings = map[string]map[string]string{
		"usual": usual, "any name": with(map[string]string{"requestheader-allowed-names": "[]"}), "no UIDs": with(map[string]string{"requestheader-uid-headers": ""}),
		"two names":     with(map[string]string{"requestheader-allowed-names": `["a","other"]`}),
		"one authority": with(map[string]string{"client-ca-file": pem(cluster, proxies)}),
		"other headers": with(map[string]string{
			"requestheader-username-headers": `["X-User","x-remote-user"]`, "requestheader-group-headers": `["x-group","X-Remote-Group"]`,
			"requestheader-uid-headers": `["X-UID","X-Remote-Uid"]`, "requestheader-extra-headers-prefix": `["x-extra-","X-Remote-Extra-","X-Remote-E"]`,
		}),
		"no headers": with(map[string]string{"requestheader-username-headers": "", "requestheader-group-headers": "null", "requestheader-extra-headers-prefix": "[]"}),
	}
	return w
})

// theirs is what an extension API server of k8s.io/apiserver does, but for tokens.
func theirs(t testing.TB, data map[string]string) authenticator.Request {
	t.Helper()
	s, err := frontproxy.ParseSettings(data) // of lists of texts there is nothing to disagree about
	check(err)
	content := func(name string) dynamiccertificates.CAContentProvider {
		c, err := dynamiccertificates.NewStaticCAContent(name, []byte(data[name]))
		check(err)
		return c
	}
	a, _, err := authenticatorfactory.DelegatingAuthenticatorConfig{
		ClientCertificateCAContentProvider: content("client-ca-file"),
		RequestHeaderConfig: &authenticatorfactory.RequestHeaderConfig{
			CAContentProvider: content("requestheader-client-ca-file"), AllowedClientNames: headerrequest.StaticStringSlice(s.AllowedNames),
			UsernameHeaders: headerrequest.StaticStringSlice(s.UserHeaders), UIDHeaders: headerrequest.StaticStringSlice(s.UIDHeaders),
			GroupHeaders: headerrequest.StaticStringSlice(s.GroupHeaders), ExtraHeaderPrefixes: headerrequest.StaticStringSlice(s.ExtraPrefixes),
		},
	}.New()
	check(err)
	return a
}

// pair is the same settings on both sides.
type pair struct {
	settings *frontproxy.Settings
	theirs   authenticator.Request
	log      bytes.Buffer
	ours     *frontproxy.Guard
}

func newPair(t testing.TB, data map[string]string) *pair {
	t.Helper()
	s, err := frontproxy.ParseSettings(data)
	check(err)
	p := &pair{settings: s, theirs: theirs(t, data)}
	p.ours = &frontproxy.Guard{Settings: s, Log: slog.New(slog.NewTextHandler(&p.log, nil))}
	return p
}

// request reads a request as net/http does; nil: it is none.
func request(text string, show *x509.Certificate) *http.Request {
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader("GET / HTTP/1.1\r\nHost: a\r\n" + text + "\r\n\r\n")))
	if err != nil {
		return nil
	}
	r.TLS = &tls.ConnectionState{}
	if show != nil {
		r.TLS.PeerCertificates = []*x509.Certificate{show}
	}
	return r
}

const (
	same = iota
	refusedByBoth
	stricter
)

// compare asks both. Nobody may be let in whom Kubernetes does not let in, and
// nobody refused but for what doc.go of frontproxy says.
func (p *pair) compare(t testing.TB, text string, show *x509.Certificate) int {
	t.Helper()
	mine, other := request(text, show), request(text, show)
	if mine == nil {
		return same
	}
	twice := p.twice(mine)
	var caller *frontproxy.Caller
	var left http.Header
	p.log.Reset()
	p.ours.Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		c, _ := frontproxy.FromContext(r.Context())
		caller, left = &c, r.Header
	})).ServeHTTP(httptest.NewRecorder(), mine)
	response, ok, err := p.theirs.AuthenticateRequest(other)
	if caller == nil {
		switch {
		case !ok:
			return refusedByBoth
		case twice:
			return stricter
		}
		t.Fatalf("Kubernetes lets %s in: %q\n%s", response.User.GetName(), text, p.log.String())
	}
	if !ok {
		t.Fatalf("Kubernetes lets nobody in, and here it is %+v: %q: %v", caller.User, text, err)
	}
	u := response.User
	want := mtls.User{Name: u.GetName(), UID: u.GetUID(), Groups: u.GetGroups(), Extra: u.GetExtra()}
	// The order of headers that are one key is not defined there.
	if d := cmp.Diff(want, caller.User, cmpopts.EquateEmpty(), cmpopts.SortSlices(strings.Compare)); d != "" {
		t.Fatalf("%q: %s", text, d)
	}
	for name := range left {
		folded := strings.ToLower(strings.NewReplacer("_", "-", ".", "-").Replace(name))
		if strings.HasPrefix(folded, "x-remote-extra-") || slices.Contains([]string{"x-remote-user", "x-remote-uid", "x-remote-group", "authorization"}, folded) {
			t.Fatalf("%q: %s is left", text, name)
		}
	}
	return same
}

// twice tells whether a request says two things of a user: what is refused here
// alone.
func (p *pair) twice(r *http.Request) bool {
	for _, names := range [][]string{p.settings.UserHeaders, p.settings.UIDHeaders} {
		values := map[string]bool{}
		for _, name := range names {
			all := r.Header.Values(name)
			if len(all) > 1 {
				return true
			}
			for _, v := range all {
				if v != "" {
					values[v] = true
				}
			}
		}
		if len(values) > 1 {
			return true
		}
	}
	return false
}

var requests = map[string]string{
	"nothing":                      "Accept: */*",
	"a user":                       "X-Remote-User: admin",
	"groups":                       "X-Remote-User: admin\r\nX-Remote-Group: a\r\nx-remote-group: b\r\nX-REMOTE-GROUP:\r\nX-Remote-Group: system:authenticated",
	"no user":                      "X-Remote-Group: system:masters\r\nX-Remote-Uid: 1",
	"an empty user":                "X-Remote-User:\r\nX-Remote-Group: system:masters",
	"a user of spaces":             "X-Remote-User:   \t ",
	"a user in spaces":             "X-Remote-User:  admin ",
	"users":                        "X-Remote-User: jane\r\nX-Remote-User: admin",
	"an empty user and another":    "X-Remote-User:\r\nX-Remote-User: admin",
	"the same user twice":          "X-Remote-User: jane\r\nX-Remote-User: jane",
	"small letters":                "x-remote-user: admin\r\nx-remote-uid: 1\r\nx-remote-extra-a: 1",
	"underscores":                  "X_Remote_User: admin\r\nX_Remote_Group: system:masters",
	"underscores beside":           "X-Remote-User: jane\r\nX_Remote_User: admin\r\nX_Remote_Group: system:masters\r\nX-Remote_Extra_a: b",
	"a UID":                        "X-Remote-User: a\r\nX-Remote-Uid: 1",
	"UIDs":                         "X-Remote-User: a\r\nX-Remote-Uid: 1\r\nX-Remote-Uid: 2",
	"an empty UID":                 "X-Remote-User: a\r\nX-Remote-Uid:",
	"extra":                        "X-Remote-User: a\r\nX-Remote-Extra-Scopes: a\r\nX-Remote-Extra-Scopes: b\r\nX-Remote-Extra-Other:",
	"extra without a key":          "X-Remote-User: a\r\nX-Remote-Extra-: a",
	"extra that is encoded":        "X-Remote-User: a\r\nX-Remote-Extra-Example.com%2fscopes: a\r\nX-Remote-Extra-%C3%BC: b\r\nx-remote-extra-%41: c",
	"extra that is encoded wrong":  "X-Remote-User: a\r\nX-Remote-Extra-%2: a\r\nX-Remote-Extra-%zz: b\r\nX-Remote-Extra-%: c",
	"extra that is one key":        "X-Remote-User: a\r\nX-Remote-Extra-ab: a\r\nX-Remote-Extra-%61b: b",
	"other headers":                "X-User: jane\r\nX-Group: a\r\nX-Remote-Group: b\r\nX-Uid: 7\r\nX-Extra-a: 1\r\nX-Remote-Extra-a: 2",
	"other headers, and the usual": "X-User: jane\r\nX-Remote-User: admin",
	"both the same":                "X-User: jane\r\nX-Remote-User: jane\r\nX-Uid: 1\r\nX-Remote-Uid: 1",
	"the first is empty":           "X-User:\r\nX-Remote-User: admin",
	"anonymous":                    "X-Remote-User: system:anonymous\r\nX-Remote-Group: system:unauthenticated",
	"anonymous without a group":    "X-Remote-User: system:anonymous",
	"unauthenticated":              "X-Remote-User: a\r\nX-Remote-Group: system:unauthenticated",
	"bytes that are no UTF-8":      "X-Remote-User: \xff\xfe\r\nX-Remote-Group: \xe9",
	"hops":                         "X-Remote-User: a\r\nConnection: X-Remote-User\r\nAuthorization: Bearer x",
}

func TestKubernetesSaysTheSame(t *testing.T) {
	w := made()
	counts := map[int]int{}
	for settings, data := range w.settings {
		for name, text := range requests {
			for show, certificate := range w.shown {
				t.Run(settings+"/"+name+"/"+show, func(t *testing.T) {
					if request(text, certificate) == nil {
						t.Fatal("net/http takes no such request")
					}
					counts[newPair(t, data).compare(t, text, certificate)]++
				})
			}
		}
	}
	t.Logf("%d let in by both as the same user, %d refused by both, %d refused here alone", counts[same], counts[refusedByBoth], counts[stricter])
	if counts[same] == 0 || counts[refusedByBoth] == 0 || counts[stricter] == 0 {
		t.Error("the cases show too little")
	}
}

func FuzzSame(f *testing.F) {
	w := made()
	shows, settings := slices.Sorted(maps.Keys(w.shown)), slices.Sorted(maps.Keys(w.settings))
	for _, text := range requests {
		for i := range settings {
			f.Add(text, uint8(slices.Index(shows, "proxy")), uint8(i))
		}
	}
	var pairs []*pair
	for _, name := range settings {
		pairs = append(pairs, newPair(f, w.settings[name]))
	}
	f.Fuzz(func(t *testing.T, text string, show, setting uint8) {
		pairs[int(setting)%len(pairs)].compare(t, text, w.shown[shows[int(show)%len(shows)]])
	})
}

// Requests of headers that mean something, in any number and order.
func TestKubernetesSaysTheSameOfRandomRequests(t *testing.T) {
	w := made()
	shows, settings := slices.Sorted(maps.Keys(w.shown)), slices.Sorted(maps.Keys(w.settings))
	var pairs []*pair
	for _, name := range settings {
		pairs = append(pairs, newPair(t, w.settings[name]))
	}
	names := rapid.SampledFrom([]string{
		"X-Remote-User", "x-remote-user", "X_Remote_User", "X-User", "x-uid", "X-Remote-Uid", "X-Remote-UID", "X-Remote-Group", "X-REMOTE-GROUP", "X-Group", "X.Remote.Group",
		"X-Remote-Extra-", "X-Remote-Extra-a", "x-remote-extra-A", "X-Remote-Extra-%41", "X-Remote-Extra-%61", "X-Remote-Extra-%", "X-Extra-a", "X-Remote-Ex", "X_Remote_Extra_a", "Accept", "Connection",
	})
	values := rapid.SampledFrom([]string{"", "a", "b", " a ", "system:anonymous", "system:authenticated", "system:unauthenticated", "system:masters", "é", "\xff", "X-Remote-User"})
	rapid.Check(t, func(r *rapid.T) {
		var lines []string
		for range rapid.IntRange(0, 8).Draw(r, "headers") {
			lines = append(lines, names.Draw(r, "name")+":"+values.Draw(r, "value"))
		}
		if rapid.Bool().Draw(r, "named") {
			lines = append(lines, "X-Remote-User: jane")
		}
		show := rapid.SampledFrom(append(shows, "proxy", "proxy", "proxy", "other")).Draw(r, "show")
		pairs[rapid.IntRange(0, len(pairs)-1).Draw(r, "settings")].compare(t, strings.Join(lines, "\r\n"), w.shown[show])
	})
}

// FuzzSetUser: what a proxy sends is what client-go sends, and Kubernetes reads the
// same user from it.
func FuzzSetUser(f *testing.F) {
	w := made()
	p := newPair(f, w.settings["usual"])
	f.Add("jane", "1", "dev", "system:authenticated", "scopes", "a", "example.com/ü%2f", "b")
	f.Add("system:serviceaccount:a:b", "", "x", "x", "Scopes", "", "", " ")
	f.Add(" jane", "1\n", "a\tb", "", "scopes", "\x7f", "scopes", "é")
	f.Fuzz(func(t *testing.T, name, uid, group1, group2, key1, value1, key2, value2 string) {
		u := mtls.User{Name: name, UID: uid, Groups: []string{group1, group2}, Extra: map[string][]string{key1: {value1, value2}, key2: {value2}}}
		ours, other := httptest.NewRequest(http.MethodGet, "https://a/", nil), httptest.NewRequest(http.MethodGet, "https://a/", nil)
		ours.Header.Set("X-Remote-Extra-Evil", "1")
		if err := frontproxy.SetUser(ours, u); err != nil {
			return
		}
		transport.SetAuthProxyHeaders(other, u.Name, u.UID, u.Groups, u.Extra)
		if d := cmp.Diff(other.Header, ours.Header); d != "" {
			t.Fatal(d)
		}
		var wire bytes.Buffer
		check(ours.Write(&wire))
		read, err := http.ReadRequest(bufio.NewReader(&wire))
		if err != nil {
			t.Fatalf("%v of %q", err, ours.Header)
		}
		read.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{w.shown["proxy"]}}
		response, ok, err := p.theirs.AuthenticateRequest(read)
		if !ok {
			t.Fatalf("%v, %+v", err, u)
		}
		got := mtls.User{Name: response.User.GetName(), UID: response.User.GetUID(), Groups: response.User.GetGroups(), Extra: response.User.GetExtra()}
		want := u
		if !slices.ContainsFunc(u.Groups, func(g string) bool { return g == "system:authenticated" || g == "system:unauthenticated" }) && u.Name != "system:anonymous" {
			want.Groups = append(slices.Clone(u.Groups), "system:authenticated")
		}
		want.Extra = map[string][]string{}
		for key, values := range u.Extra {
			want.Extra[lower(key)] = values
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatal(d)
		}
	})
}

// lower is how a key arrives: bytes that are encoded stay as they are.
func lower(key string) string {
	b := []byte(key)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}
