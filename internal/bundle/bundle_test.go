package bundle_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/bundle"
	"github.com/kubepki/kubepki/internal/trust"
)

var now = time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)

type made struct {
	*x509.Certificate
	key *ecdsa.PrivateKey
}

var serial atomic.Int64

// certificate makes one that signs itself, of a key or of a new one.
func certificate(t testing.TB, name string, key *ecdsa.PrivateKey, change func(*x509.Certificate)) made {
	t.Helper()
	if key == nil {
		var err error
		if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			t.Fatal(err)
		}
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(serial.Add(1)), Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	if change != nil {
		change(c)
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return made{parsed, key}
}

func text(t testing.TB, data string) *bundle.Text {
	t.Helper()
	b, err := bundle.Parse([]byte(data))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func pemOf(c made) string { return string(trust.EncodeCertificates(c.Certificate)) }

func TestEditsTouchNothingButTheAnchors(t *testing.T) {
	a, b, c := certificate(t, "a", nil, nil), certificate(t, "b", nil, nil), certificate(t, "c", nil, nil)
	plain := "# cluster\n" + pemOf(a) + "\n# the platform, ticket 12\n" + pemOf(b)
	for name, row := range map[string]struct {
		before string
		add    made
		after  string
	}{
		"a new one goes to the end":                                 {plain, c, plain + pemOf(c)},
		"one that is there is not added":                            {plain, a, plain},
		"an end without a new line gets it":                         {strings.TrimSuffix(plain, "\n"), c, plain + pemOf(c)},
		"an empty bundle":                                           {"", c, pemOf(c)},
		"a text after the last block stays":                         {plain + "# end", c, plain + "# end\n" + pemOf(c)},
		"the line ends of Windows are kept":                         {crlf(plain), c, crlf(plain + pemOf(c))},
		"another certificate with the same name and key is another": {pemOf(a), certificate(t, "a", a.key, nil), ""},
	} {
		before := text(t, row.before)
		after, added, err := before.Add(row.add.Certificate, row.add.Certificate)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if row.after == "" {
			row.after = row.before + pemOf(row.add)
		}
		if string(after.Bytes()) != row.after {
			t.Errorf("%s: got\n%s\nwant\n%s", name, after.Bytes(), row.after)
		}
		if before.Holds(row.add.Certificate) {
			if len(added) != 0 {
				t.Errorf("%s: it says that it added %d", name, len(added))
			}
			continue
		}
		if back, n := after.Remove(row.add.Certificate); n != 1 || strings.TrimRight(string(back.Bytes()), "\r\n") != strings.TrimRight(row.before, "\r\n") {
			t.Errorf("%s: taking it out again leaves\n%s", name, back.Bytes())
		}
	}
	if rest, n := text(t, plain+pemOf(a)).Remove(a.Certificate); n != 2 || string(rest.Bytes()) != "# cluster\n\n# the platform, ticket 12\n"+pemOf(b) {
		t.Errorf("removing both copies of one: %d\n%s", n, rest.Bytes())
	}
}

func crlf(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }

func TestABundleThatGrowsTooLargeIsRefused(t *testing.T) {
	full := text(t, strings.Repeat("# a long line of comment that fills the file\n", trust.MaxPEM/45))
	if _, _, err := full.Add(certificate(t, "a", nil, nil).Certificate); err == nil {
		t.Error("it was added")
	}
}

func TestWhatComponentsPassOverIsNoAnchor(t *testing.T) {
	a := certificate(t, "a", nil, nil)
	headers := strings.Replace(pemOf(a), "-----\n", "-----\nNote: ours\n\n", 1)
	key := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("secret")}))
	b := text(t, headers+key)
	if len(b.Anchors) != 0 || len(b.Others) != 2 || b.Others[1].Why != "a block of type PRIVATE KEY" {
		t.Errorf("%d anchors, others %+v", len(b.Anchors), b.Others)
	}
	pool := x509.NewCertPool()
	if pool.AppendCertsFromPEM([]byte(headers)) {
		t.Error("crypto/x509 takes a certificate with headers: so should we")
	}
	after, added, err := b.Add(a.Certificate)
	if err != nil || len(added) != 1 || !bytes.HasPrefix(after.Bytes(), []byte(headers+key)) {
		t.Errorf("added %d, %v", len(added), err)
	}
	for name, data := range map[string]string{
		"a block without an end":      strings.TrimSuffix(pemOf(a), "-----END CERTIFICATE-----\n"),
		"a block that is not base64":  strings.Replace(pemOf(a), "MII", "!!!", 1),
		"a certificate that is wrong": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("no")})),
	} {
		if _, err := bundle.Parse([]byte(data)); err == nil || !strings.Contains(err.Error(), "line 1") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// etcd's own reader takes each block for a certificate, whatever its type and headers.
func TestWhatEtcdDoesNotPassOver(t *testing.T) {
	a := certificate(t, "a", nil, nil)
	headers := strings.Replace(pemOf(a), "-----\n", "-----\nNote: ours\n\n", 1)
	trusted := strings.ReplaceAll(pemOf(a), "CERTIFICATE", "TRUSTED CERTIFICATE")
	for name, c := range map[string]struct{ data, want string }{
		"anchors and comments":          {"# ours\n" + pemOf(a), ""},
		"a block of another type":       {"# ours\n" + trusted, "line 2 holds a block of type TRUSTED CERTIFICATE, which etcd and its clients take for a certificate: they do not start"},
		"headers":                       {headers, "line 1 holds a certificate with PEM headers, which etcd and its clients trust"},
		"both: what keeps it from life": {headers + trusted, "they do not start"},
	} {
		if got := text(t, c.data).ToEtcd(); !strings.Contains(got, c.want) || (got == "") != (c.want == "") {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestOnlyAuthoritiesThatVerifySomethingBecomeAnchors(t *testing.T) {
	good := certificate(t, "good", nil, nil)
	for name, row := range map[string]struct{ data, refused string }{
		"an authority":                  {pemOf(good), ""},
		"two, with a comment":           {"# x\n" + pemOf(good) + pemOf(certificate(t, "b", nil, nil)), ""},
		"one without key usage":         {pemOf(certificate(t, "x", nil, func(c *x509.Certificate) { c.KeyUsage = 0 })), ""},
		"a leaf":                        {pemOf(certificate(t, "x", nil, func(c *x509.Certificate) { c.IsCA = false })), "is a leaf"},
		"one without basic constraints": {pemOf(certificate(t, "x", nil, func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = false, false })), "does not say that it is an authority"},
		"one that may not sign":         {pemOf(certificate(t, "x", nil, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign })), "may not sign"},
		"one that expired":              {pemOf(certificate(t, "x", nil, func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Minute) })), "expired on"},
		"one that has not begun":        {pemOf(certificate(t, "x", nil, func(c *x509.Certificate) { c.NotBefore = now.Add(time.Minute) })), "begins on"},
		"one good and one leaf":         {pemOf(good) + pemOf(certificate(t, "x", nil, func(c *x509.Certificate) { c.IsCA = false })), "is a leaf"},
		"a private key":                 {string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: []byte("s3cret")})), "EC PRIVATE KEY"},
		"a certificate and its key":     {pemOf(good) + string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("s3cret")})), "PRIVATE KEY"},
		"a revocation list":             {string(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: []byte("x")})), "X509 CRL"},
		"a request":                     {string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: []byte("x")})), "CERTIFICATE REQUEST"},
		"nothing":                       {"# only words\n", "no PEM block"},
		"the DER of one":                {string(good.Raw), "no PEM block"},
	} {
		_, err := bundle.ParseAnchors([]byte(row.data), now)
		if row.refused == "" && err != nil || row.refused != "" && (err == nil || !strings.Contains(err.Error(), row.refused)) {
			t.Errorf("%s: %v, want %q", name, err, row.refused)
		}
		if err != nil && strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: the key is repeated", name)
		}
	}
}

func TestFingerprintsNameOneAnchor(t *testing.T) {
	a, b := certificate(t, "a", nil, nil), certificate(t, "b", nil, nil)
	both := []*x509.Certificate{a.Certificate, b.Certificate, a.Certificate}
	whole := bundle.Fingerprint(a.Certificate)
	for text, want := range map[string]bool{whole: true, whole[:8]: true, strings.ToUpper(whole[:12]): true, whole[:2] + ":" + whole[2:4] + ":" + whole[4:8]: true} {
		if got, err := bundle.Find(both, text); err != nil || (got == a.Certificate) != want {
			t.Errorf("%s: %v", text, err)
		}
	}
	for _, text := range []string{whole[:7], whole + "0", "zzzzzzzz", "", "::::::::"} {
		if _, err := bundle.Find(both, text); err == nil || bundle.IsFingerprint(text) {
			t.Errorf("%q is taken for a fingerprint", text)
		}
	}
	if got, err := bundle.Find(both, strings.Repeat("0", 64)); got != nil || err != nil {
		t.Errorf("an unknown one: %v, %v", got, err)
	}
	// Two with one beginning are found by trying: 8 digits are too many for that,
	// so the same certificate twice stands for one, and must not be ambiguous.
	if _, err := bundle.Find([]*x509.Certificate{a.Certificate, a.Certificate}, whole); err != nil {
		t.Error(err)
	}
}

func TestDiffComparesSets(t *testing.T) {
	a, b := certificate(t, "a", nil, nil), certificate(t, "b", nil, nil)
	again, other := certificate(t, "a", a.key, nil), certificate(t, "a", nil, nil)
	list := func(all ...made) (out []*x509.Certificate) {
		for _, m := range all {
			out = append(out, m.Certificate)
		}
		return out
	}
	for name, row := range map[string]struct {
		a, b                []*x509.Certificate
		onlyA, onlyB, again int
		reordered           bool
	}{
		"the same":                                 {list(a, b), list(a, b), 0, 0, 0, false},
		"the same in another order":                {list(a, b), list(b, a), 0, 0, 0, true},
		"the same, one of them twice":              {list(a, b, a), list(a, b), 0, 0, 0, false},
		"one more":                                 {list(a), list(a, b), 0, 1, 0, false},
		"one less":                                 {list(a, b), list(b), 1, 0, 0, false},
		"re-certified: the same name and key":      {list(a), list(again), 1, 1, 1, false},
		"made anew: the same name and another key": {list(a), list(other), 1, 1, 0, false},
		"nothing and nothing":                      {nil, nil, 0, 0, 0, false},
	} {
		d := bundle.Diff(row.a, row.b)
		if len(d.OnlyA) != row.onlyA || len(d.OnlyB) != row.onlyB || len(d.Again) != row.again || d.Reordered != row.reordered || d.Same() != (row.onlyA+row.onlyB == 0) {
			t.Errorf("%s: %d, %d, %d, %t", name, len(d.OnlyA), len(d.OnlyB), len(d.Again), d.Reordered)
		}
	}
}

func TestPruneLeavesWhatIsNeededAndNeverNothing(t *testing.T) {
	ended := func(ago time.Duration) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.NotBefore, c.NotAfter = now.Add(-ago-time.Hour), now.Add(-ago) }
	}
	good, old, older := certificate(t, "good", nil, nil), certificate(t, "old", nil, ended(time.Minute)), certificate(t, "older", nil, ended(time.Hour))
	for name, row := range map[string]struct {
		before, after                     string
		needed                            *x509.Certificate
		expired, duplicate, keptButNeeded int
	}{
		"nothing to do":                      {pemOf(good), pemOf(good), nil, 0, 0, 0},
		"an expired one goes":                {"# a\n" + pemOf(old) + "# b\n" + pemOf(good), "# a\n# b\n" + pemOf(good), nil, 1, 0, 0},
		"a second copy goes":                 {pemOf(good) + "# again\n" + pemOf(good), pemOf(good) + "# again\n", nil, 0, 1, 0},
		"an expired one that is needed":      {pemOf(old) + pemOf(good), pemOf(old) + pemOf(good), old.Certificate, 0, 0, 1},
		"of expired ones the last one stays": {pemOf(older) + pemOf(old), pemOf(old), nil, 1, 0, 1},
		"an expired one twice":               {pemOf(old) + pemOf(good) + pemOf(old), pemOf(good), nil, 1, 0, 0},
		"the only one, expired, twice":       {pemOf(old) + pemOf(old), pemOf(old), nil, 0, 1, 1},
		"an empty bundle":                    {"# none\n", "# none\n", nil, 0, 0, 0},
	} {
		after, p := text(t, row.before).Prune(now, func(c *x509.Certificate) bool { return c == row.needed || row.needed != nil && c.Equal(row.needed) })
		if string(after.Bytes()) != row.after || len(p.Expired) != row.expired || len(p.Duplicate) != row.duplicate || len(p.Kept) != row.keptButNeeded {
			t.Errorf("%s: %d expired, %d duplicate, %d kept:\n%s", name, len(p.Expired), len(p.Duplicate), len(p.Kept), after.Bytes())
		}
		if p.Empty() != (row.before == row.after) {
			t.Errorf("%s: Empty is %t", name, p.Empty())
		}
	}
}

// FuzzText: what parses has anchors whose blocks are whole, and takes and gives back
// another without a trace.
func FuzzText(f *testing.F) {
	a, b := certificate(f, "a", nil, nil), certificate(f, "b", nil, nil)
	f.Add([]byte("# x\n" + pemOf(a) + "between\n" + pemOf(a)))
	f.Add([]byte(crlf(pemOf(a)) + "-----END x"))
	f.Add([]byte(strings.Replace(pemOf(a), "-----\n", "-----\nA: b\n\n", 1)))
	f.Fuzz(func(t *testing.T, data []byte) {
		before, err := bundle.Parse(data)
		if err != nil {
			return
		}
		if before.Holds(b.Certificate) {
			return
		}
		after, added, err := before.Add(b.Certificate)
		if err != nil {
			return
		}
		if len(added) != 1 || len(after.Anchors) != len(before.Anchors)+1 || !bytes.HasPrefix(after.Bytes(), data) {
			t.Fatalf("added %d to %d", len(added), len(before.Anchors))
		}
		back, n := after.Remove(b.Certificate)
		if n != 1 || !bytes.Equal(bytes.TrimRight(back.Bytes(), "\r\n"), bytes.TrimRight(data, "\r\n")) {
			t.Fatalf("back: %q", back.Bytes())
		}
		for _, x := range before.Anchors {
			rest, _ := before.Remove(x.Certificate)
			if rest.Holds(x.Certificate) || len(rest.Others) != len(before.Others) {
				t.Fatalf("removing one of %d leaves %d, others %d", len(before.Anchors), len(rest.Anchors), len(rest.Others))
			}
		}
	})
}
