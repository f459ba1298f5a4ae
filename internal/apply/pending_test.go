package apply_test

import (
	"crypto"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/kubepki/kubepki/internal/apply"
	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/renew"
	"github.com/kubepki/kubepki/internal/testpki"
	"github.com/kubepki/kubepki/internal/trust"
)

func TestMain(m *testing.M) {
	code := m.Run()
	testpki.Clean()
	os.Exit(code)
}

// asking is a node, an item of it, and a key with the request for that.
func asking(t *testing.T) (*apply.Nodes, *renew.Item, apply.Ask) {
	t.Helper()
	c := testpki.New(t, testpki.Single)
	n, err := apply.ReadNode("", c.Path("cp1", "/"))
	if err != nil {
		t.Fatal(err)
	}
	found := check.Run(n.Graph, check.Options{At: testpki.At}).Findings
	items, err := renew.Plan(n.Graph, found, []string{"apiserver"}, renew.Options{At: testpki.At, Elsewhere: true, Keys: func(p trust.Place) crypto.Signer { return n.Keys[p] }})
	if err != nil {
		t.Fatal(err)
	}
	return n, items[0], ask(t, items[0])
}

func ask(t *testing.T, i *renew.Item) apply.Ask {
	t.Helper()
	key, err := i.MakeKey()
	if err != nil {
		t.Fatal(err)
	}
	r, err := i.Request(key)
	if err != nil {
		t.Fatal(err)
	}
	return apply.Ask{Place: i.Certificate, Key: key, Request: r}
}

func pending(t *testing.T, n *apply.Nodes) []*apply.Pending {
	t.Helper()
	all, err := n.Pending()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestWhatWaitsIsFoundAgainAndForgotten(t *testing.T) {
	n, i, a := asking(t)
	if have := pending(t, n); len(have) != 0 {
		t.Fatalf("%d wait before anything was asked", len(have))
	}
	if err := n.Stage([]apply.Ask{a}, nil); err != nil {
		t.Fatal(err)
	}
	have := pending(t, n)
	if len(have) != 1 || have[0].Place != i.Certificate || !trust.SameKey(have[0].Key.Public(), a.Key.Public()) || !renew.SameRequest(have[0].Request, a.Request) {
		t.Fatalf("what waits is %+v", have)
	}
	for path, mode := range map[string]os.FileMode{apply.PendingFolder: 0o700 | os.ModeDir, apply.KeyPath(i.Certificate): 0o600} {
		if info, err := os.Stat(filepath.Join(n.Dirs[""], path)); err != nil || info.Mode() != mode {
			t.Errorf("%s: %v, want %s", path, info.Mode(), mode)
		}
	}
	// Another request for the same key takes the place of the first; a key that was not
	// seen does not.
	i.DNSNames = append(i.DNSNames, "more.example.test")
	more, err := i.Request(a.Key)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.Stage([]apply.Ask{{Place: a.Place, Key: a.Key, Request: more}}, have); err != nil {
		t.Fatal(err)
	}
	if got := pending(t, n); len(got) != 1 || !renew.SameRequest(got[0].Request, more) {
		t.Errorf("the second request does not wait")
	}
	if err := n.Stage([]apply.Ask{ask(t, i)}, nil); err == nil || !strings.Contains(err.Error(), "exists") {
		t.Errorf("a key that waits was written over: %v", err)
	}
	if err := n.Forget(i.Certificate); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(n.Dirs[""], apply.PendingFolder)); !os.IsNotExist(err) {
		t.Errorf("the folder is still there: %v", err)
	}
}

// pendingAbove is the folder of all that waits, above a key.
func pendingAbove(key string) string {
	base := filepath.Base(apply.PendingFolder)
	return key[:strings.Index(key, base)+len(base)]
}

func TestWhatStandsBesideWhatWaits(t *testing.T) {
	rows := map[string]struct {
		change func(key, request string) error
		want   string // part of the error
		keys   int    // that wait, without an error
	}{
		"nothing":                       {func(string, string) error { return nil }, "", 1},
		"a key that others may read":    {func(key, _ string) error { return os.Chmod(key, 0o640) }, "others may have read the key", 0},
		"a key that is none":            {func(key, _ string) error { return os.WriteFile(key, []byte("junk"), 0o600) }, "remove it, and ask anew", 0},
		"a request that is none":        {func(_, request string) error { return os.WriteFile(request, []byte("junk"), 0o600) }, "", 1},
		"a request that is gone":        {func(_, request string) error { return os.Remove(request) }, "", 1},
		"a key that is a link":          {func(key, request string) error { return os.Symlink("/etc/passwd", request+".key") }, "", 1},
		"a folder that others may read": {func(key, _ string) error { return os.Chmod(pendingAbove(key), 0o755) }, "", 1},
		"a folder of others":            {func(key, _ string) error { return os.Chmod(pendingAbove(key), 0o777) }, "others may write into it (mode 0777)", 0},
		"a note of somebody":            {func(key, _ string) error { return os.WriteFile(key+".txt", []byte("call Jane"), 0o600) }, "", 1},
		"a temporary of a killed run": {func(key, _ string) error {
			return os.WriteFile(filepath.Join(filepath.Dir(key), ".kubepki-x.tmp"), nil, 0o600)
		}, "", 1},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			n, i, a := asking(t)
			if err := n.Stage([]apply.Ask{a}, nil); err != nil {
				t.Fatal(err)
			}
			root := n.Dirs[""]
			if err := row.change(filepath.Join(root, apply.KeyPath(i.Certificate)), filepath.Join(root, apply.RequestPath(i.Certificate))); err != nil {
				t.Fatal(err)
			}
			have, err := n.Pending()
			if err != nil && row.want != "" {
				var hinted interface{ Hint() string }
				if !errors.As(err, &hinted) || !strings.Contains(err.Error()+hinted.Hint(), row.want) {
					t.Errorf("it says %v", err)
				}
				return
			}
			if err != nil || row.want != "" || len(have) != row.keys {
				t.Errorf("%d wait: %v", len(have), err)
			}
		})
	}
}

// What waited for a certificate goes in the transaction that puts it in place: not
// before, not without it, and not if it has become another meanwhile.
func TestWhatWaitedGoesWithItsCertificate(t *testing.T) {
	rows := map[string]struct {
		meanwhile func(n *apply.Nodes, a apply.Ask) error
		fails     bool
	}{
		"nothing happens meanwhile": {func(*apply.Nodes, apply.Ask) error { return nil }, false},
		"the request is gone": {func(n *apply.Nodes, a apply.Ask) error {
			return os.Remove(filepath.Join(n.Dirs[""], apply.RequestPath(a.Place)))
		}, false},
		"the certificate's place is another's": {func(n *apply.Nodes, a apply.Ask) error {
			return os.WriteFile(filepath.Join(n.Dirs[""], a.Place.Path), []byte("another\n"), 0o600)
		}, true},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			n, i, a := asking(t)
			if err := n.Stage([]apply.Ask{a}, nil); err != nil {
				t.Fatal(err)
			}
			made := renew.Made{Chain: []*x509.Certificate{i.Old}, Key: a.Key} // this is about files alone
			r, err := apply.Assemble(n, []*apply.Renewed{{Item: i, Made: made}}, check.Run(n.Graph, check.Options{At: testpki.At}), testpki.At)
			if err != nil {
				t.Fatal(err)
			}
			r.Answered = pending(t, n)
			if err := row.meanwhile(n, a); err != nil {
				t.Fatal(err)
			}
			if err := r.Write(n); (err != nil) != row.fails {
				t.Fatal(err)
			}
			if waits := len(pending(t, n)) > 0; waits != row.fails {
				t.Errorf("it waits: %v", waits)
			}
		})
	}
}

func TestOfTwoAtOnceOneWins(t *testing.T) {
	n, i, _ := asking(t)
	asks := []apply.Ask{ask(t, i), ask(t, i)}
	errs := make([]error, len(asks))
	var all sync.WaitGroup
	for k, a := range asks {
		all.Go(func() { errs[k] = n.Stage([]apply.Ask{a}, nil) })
	}
	all.Wait()
	if (errs[0] == nil) == (errs[1] == nil) {
		t.Fatalf("they end with %v and %v", errs[0], errs[1])
	}
	winner := asks[0]
	if errs[0] != nil {
		winner = asks[1]
	}
	if have := pending(t, n); len(have) != 1 || !trust.SameKey(have[0].Key.Public(), winner.Key.Public()) || !trust.SameKey(have[0].Request.PublicKey, winner.Key.Public()) {
		t.Error("the key of one waits with the request of the other")
	}
}

// A certificate that the rules find fault with is named by them, also where the same
// fault was there before; one that is good is not.
func TestFaultsOfWhatIsTakenIn(t *testing.T) {
	rows := map[string]struct {
		change func(*issue.Template)
		want   string
	}{
		"good":              {func(*issue.Template) {}, ""},
		"a name is missing": {func(t *issue.Template) { t.Addresses = t.Addresses[:1] }, "san-missing"},
		"a client's":        {func(t *issue.Template) { t.Usages = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }, "usage-missing"},
		"it has expired":    {func(t *issue.Template) { t.NotAfter = testpki.At.Add(-1) }, "cert-expired"},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			c := testpki.New(t, testpki.Single)
			n, err := apply.ReadNode("", c.Path("cp1", "/"))
			if err != nil {
				t.Fatal(err)
			}
			before := check.Run(n.Graph, check.Options{At: testpki.At})
			items, err := renew.Plan(n.Graph, before.Findings, []string{"apiserver"}, renew.Options{At: testpki.At, Elsewhere: true, Keys: func(p trust.Place) crypto.Signer { return n.Keys[p] }})
			if err != nil {
				t.Fatal(err)
			}
			a := ask(t, items[0])
			template := items[0].Template()
			template.NotBefore = testpki.Made
			row.change(&template)
			leaf, err := issue.Sign(template, a.Key.Public(), c.Authority("cp1", "ca"))
			if err != nil {
				t.Fatal(err)
			}
			r, err := apply.Assemble(n, []*apply.Renewed{{Item: items[0], Made: renew.Made{Chain: []*x509.Certificate{leaf}, Key: a.Key}}}, before, testpki.At)
			if err != nil {
				t.Fatal(err)
			}
			faults := strings.Join(r.Faults(n, before, testpki.At), "\n")
			if (row.want == "") != (faults == "") || !strings.Contains(faults, row.want) {
				t.Errorf("faults are %q", faults)
			}
		})
	}
}
