package frontproxy_test

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubepki/kubepki/mtls"
	"github.com/kubepki/kubepki/mtls/frontproxy"
)

func listen() net.Listener {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	return l
}

// What a proxy says is what the server behind it hears, through a real
// connection, whatever the client has sent beside it.
func TestUsersArriveAsTheyAre(t *testing.T) {
	w := newWorld()
	proxy := client(w.proxies, "front-proxy-client")
	var got *frontproxy.Caller
	behind := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		r.TLS = request(&proxy, nil).TLS
		w.guard(w.settings).Handler(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			c, _ := frontproxy.FromContext(r.Context())
			got = &c
		})).ServeHTTP(rw, r)
	}))
	defer behind.Close()
	target, err := url.Parse(behind.URL)
	check(err)
	for name, c := range map[string]struct {
		user mtls.User
		err  string
	}{
		"a plain user":                  {user: mtls.User{Name: "jane", Groups: []string{"a", "b", "system:authenticated"}}},
		"a service account":             {user: mtls.User{Name: "system:serviceaccount:a:b", UID: "6f5c", Groups: []string{"system:authenticated"}, Extra: map[string][]string{"authentication.kubernetes.io/pod-name": {"a"}, "scopes": {"x", "y"}}}},
		"keys that must be encoded":     {user: mtls.User{Name: "j", Groups: []string{"system:authenticated"}, Extra: map[string][]string{"a%2fb/ü (c)": {"x"}, "": {""}}}},
		"a name that is not ASCII":      {user: mtls.User{Name: "Jürgen, von X", Groups: []string{"system:authenticated"}}},
		"no name":                       {user: mtls.User{UID: "1"}, err: "no name"},
		"a name that would be cut":      {user: mtls.User{Name: " system:admin"}, err: "would not arrive"},
		"a group that would be cut":     {user: mtls.User{Name: "j", Groups: []string{"system:masters\t"}}, err: "would not arrive"},
		"a name of two lines":           {user: mtls.User{Name: "j\r\nX-Remote-Group: system:masters"}, err: "would not arrive"},
		"a UID of two lines":            {user: mtls.User{Name: "j", UID: "1\n2"}, err: "would not arrive"},
		"an extra that would be cut":    {user: mtls.User{Name: "j", Extra: map[string][]string{"a": {" b"}}}, err: "would not arrive"},
		"a group without a name":        {user: mtls.User{Name: "j", Groups: []string{""}}, err: "without a name"},
		"two keys that would be one":    {user: mtls.User{Name: "j", Extra: map[string][]string{"Scopes": {"1"}, "scopes": {"2"}}}, err: "the same in small letters"},
		"a user whom the proxy has not": {err: "not known"},
	} {
		t.Run(name, func(t *testing.T) {
			got = nil
			front := &httputil.ReverseProxy{}
			front.Director = func(r *http.Request) { r.URL.Scheme, r.URL.Host = target.Scheme, target.Host } //nolint:staticcheck // the harder case: what hops take out is taken out after it
			var problem error
			front.ErrorHandler = func(rw http.ResponseWriter, _ *http.Request, err error) {
				problem = err
				rw.WriteHeader(http.StatusBadGateway)
			}
			front.Transport = frontproxy.RoundTripper(http.DefaultTransport, func(*http.Request) (mtls.User, error) {
				if c.err == "not known" {
					return mtls.User{}, errors.New("not known")
				}
				return c.user, nil
			})
			r := request(nil, headers{
				"X-Remote-User": {"admin"}, "X-Remote-Uid": {"0"}, "X_Remote_User": {"admin"}, "x-remote-group": {"system:masters"}, "X-Remote-Extra-Evil": {"1"},
				"Authorization": {"Bearer secret"}, "Connection": {"x-remote-group, keep-alive", "X-Remote-Extra-Scopes"},
			})
			front.ServeHTTP(httptest.NewRecorder(), r)
			if c.err != "" {
				if problem == nil || !strings.Contains(problem.Error(), c.err) || got != nil {
					t.Errorf("%v, %v", problem, got)
				}
				return
			}
			if got == nil || !cmp.Equal(got.User, c.user) {
				t.Errorf("%v, %s", problem, cmp.Diff(c.user, got))
			}
		})
	}
}

func TestWhatTheClientSentIsTakenOut(t *testing.T) {
	r := request(nil, headers{
		"X-Remote-User": {"admin"}, "X_Remote_Group": {"system:masters"}, "x-remote-extra-a": {"1"}, "X.Remote.Uid": {"0"}, "authorization": {"Bearer secret"},
		"Connection": {"Upgrade, X-Remote-Group", "x_remote_user"}, "Upgrade": {"websocket"}, "Accept": {"*/*"},
	})
	r.Trailer = http.Header{"X-Remote-User": nil, "Checksum": nil}
	shared := r.Header
	before := shared.Clone()
	if err := frontproxy.SetUser(r, mtls.User{}); err == nil || !cmp.Equal(r.Header, before) {
		t.Errorf("a user without a name: %v, %v", err, r.Header)
	}
	if err := frontproxy.SetUser(r, mtls.User{Name: "jane", Groups: []string{"dev"}}); err != nil {
		t.Fatal(err)
	}
	want := http.Header{"X-Remote-User": {"jane"}, "X-Remote-Group": {"dev"}, "Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Accept": {"*/*"}}
	if !cmp.Equal(r.Header, want) || !cmp.Equal(r.Trailer, http.Header{"Checksum": nil}) {
		t.Errorf("%s, %v", cmp.Diff(want, r.Header), r.Trailer)
	}
	if !cmp.Equal(shared, before) {
		t.Error("headers that others may read were changed")
	}
}
