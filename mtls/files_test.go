package mtls_test

import (
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/tlstest"
	"github.com/kubepki/kubepki/internal/trust"
	"github.com/kubepki/kubepki/mtls"
)

func TestPairIsNotTakenUp(t *testing.T) {
	rows := map[string]struct {
		harm func(t *testing.T, d *disk)
		want string
	}{
		"when only the key has changed": {func(t *testing.T, d *disk) {
			d.writeKey(t, leaf(t, tlstest.Authority(t, "ca"), "two", forServers))
		}, "does not belong to the key"},
		"when only the certificate has changed": {func(t *testing.T, d *disk) {
			d.writeCertificate(t, leaf(t, tlstest.Authority(t, "ca"), "two", forServers))
		}, "does not belong to the key"},
		"when the certificate is cut off": {func(t *testing.T, d *disk) { cut(t, d.files.Certificate) }, "no end"},
		"when the key is cut off":         {func(t *testing.T, d *disk) { cut(t, d.files.Key) }, "no end"},
		"when the certificate is empty":   {func(t *testing.T, d *disk) { tlstest.Put(t, d.files.Certificate, nil) }, "no PEM block of type CERTIFICATE"},
		"when the key is empty":           {func(t *testing.T, d *disk) { tlstest.Put(t, d.files.Key, nil) }, "no private key"},
		"when the key is gone":            {func(_ *testing.T, d *disk) { os.Remove(d.files.Key) }, "no such file"},
		"when the certificate has expired": {func(t *testing.T, d *disk) {
			old := leaf(t, tlstest.Authority(t, "ca"), "old", forServers)
			time.Sleep(2 * time.Hour)
			d.writePair(t, old)
		}, "expired at"},
		"when it is for clients alone": {func(t *testing.T, d *disk) { d.writePair(t, leaf(t, tlstest.Authority(t, "ca"), "jane", forClients)) }, "lack serverAuth"},
		"when a request is in its place": {func(t *testing.T, d *disk) {
			tlstest.Put(t, d.files.Certificate, []byte("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"))
		}, "where a CERTIFICATE is expected"},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ca, d := tlstest.Authority(t, "ca"), newDisk(t)
				d.writePair(t, leaf(t, ca, "one", forServers))
				d.writeBundle(t, ca)
				d.files.Usage = forServers
				source := d.open(t)
				row.harm(t, d)
				if got := showing(looks(t, source, 5)); got != "one" {
					t.Errorf("%s is shown", got)
				}
				d.want(t, "", row.want)

				d.writePair(t, leaf(t, ca, "two", forServers))
				if got := showing(looks(t, source, 2)); got != "two" {
					t.Errorf("mended, and %s is shown", got)
				}
			})
		})
	}
}

// Who signs may have a clock that is ahead.
func TestCertificateThatIsGoodOnlyLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, d := tlstest.Authority(t, "ca"), newDisk(t)
		later := func(name string, by time.Duration) tls.Certificate {
			return odd(t, ca, func(x *issue.Template) {
				x.Subject.CommonName, x.NotBefore, x.NotAfter = name, time.Now().Add(by), time.Now().Add(by+time.Hour)
			})
		}
		show := func(when string, source mtls.Source, want string) {
			t.Helper()
			if got := showing(looks(t, source, 5)); got != want {
				t.Errorf("%s, %s is shown, want %s", when, got, want)
			}
		}
		d.writePair(t, later("one", time.Minute)) // there is none before it
		d.writeBundle(t, ca)
		source := d.open(t)
		show("at the start", source, "one")
		d.writePair(t, later("two", 0))
		show("while none is good", source, "two")
		d.writePair(t, later("three", 10*time.Minute))
		show("ten minutes early", source, "two")
		d.want(t, "tls.crt", "is good only from")
		time.Sleep(10 * time.Minute)
		show("when it is good", source, "three")
		d.want(t, "tls.crt tls.crt", "is good only from")
		time.Sleep(2 * time.Hour)
		d.writePair(t, later("four", time.Minute))
		show("when that of before has expired", source, "four")
	})
}

func showing(s *mtls.Snapshot) string { return s.Certificate.Leaf.Subject.CommonName }

func cut(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	tlstest.Put(t, path, data[:len(data)/2])
}

func TestBundleIsNotTakenUp(t *testing.T) {
	rows := map[string]struct {
		harm func(t *testing.T, d *disk)
		want string
	}{
		"when it is cut off": {func(t *testing.T, d *disk) { cut(t, d.files.Bundle) }, "no end"},
		"when it is empty":   {func(t *testing.T, d *disk) { tlstest.Put(t, d.files.Bundle, nil) }, "no PEM block of type CERTIFICATE"},
		"when it is gone":    {func(_ *testing.T, d *disk) { os.Remove(d.files.Bundle) }, "no such file"},
		"when it is a key": {func(t *testing.T, d *disk) {
			data, err := os.ReadFile(d.files.Key)
			if err != nil {
				t.Fatal(err)
			}
			tlstest.Put(t, d.files.Bundle, data)
		}, "where a CERTIFICATE is expected"},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				one, two, d := tlstest.Authority(t, "one"), tlstest.Authority(t, "two"), newDisk(t)
				d.writePair(t, leaf(t, one, "server", forServers))
				d.writeBundle(t, one)
				source := d.open(t)
				row.harm(t, d)
				if got := trusting(looks(t, source, 5)); got != "one" {
					t.Errorf("%s is trusted", got)
				}
				d.want(t, "", row.want)

				d.writeBundle(t, one, two)
				if got := trusting(looks(t, source, 2)); got != "one two" {
					t.Errorf("mended, and %s is trusted", got)
				}
			})
		})
	}
}

func trusting(s *mtls.Snapshot) string {
	var names []string
	for _, a := range s.Bundle.Anchors() {
		names = append(names, a.Subject.CommonName)
	}
	return strings.Join(names, " ")
}

// An authority can be taken out of use however long the pair is broken.
func TestBundleIsTakenUpBesideABrokenPair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two, d := tlstest.Authority(t, "one"), tlstest.Authority(t, "two"), newDisk(t)
		d.writePair(t, leaf(t, one, "server", forServers))
		d.writeBundle(t, one, two)
		source := d.open(t)
		cut(t, d.files.Key)
		d.writeBundle(t, one)
		now := looks(t, source, 3)
		if showing(now) != "server" || trusting(now) != "one" {
			t.Errorf("%s, %s", showing(now), trusting(now))
		}
		d.want(t, "ca.crt", "no end")
	})
}

func TestSnapshotIsTheSameWhileNothingChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, d := tlstest.Authority(t, "ca"), newDisk(t)
		d.writePair(t, leaf(t, ca, "one", forServers))
		d.writeBundle(t, ca)
		source := d.open(t)
		before := looks(t, source, 1)
		if looks(t, source, 5) != before {
			t.Error("another one")
		}
		d.writePair(t, leaf(t, ca, "two", forServers))
		if after := looks(t, source, 2); after == before || after.Bundle != before.Bundle {
			t.Error("the pair has changed, and the bundle has not")
		}
	})
}

func TestPairInOneFile(t *testing.T) {
	d, pair := newDisk(t), leaf(t, tlstest.Authority(t, "ca"), "kubelet", forServers)
	d.writePair(t, pair)
	key, err := os.ReadFile(d.files.Key)
	if err != nil {
		t.Fatal(err)
	}
	tlstest.Put(t, d.files.Certificate, append(trust.EncodeCertificates(pair.Leaf, tlstest.Authority(t, "above").Certificate), key...))
	s, err := mtls.OpenFiles(mtls.Files{Certificate: d.files.Certificate, Key: d.files.Certificate}, nil)
	if err != nil {
		t.Fatal(err)
	}
	now, err := s.Snapshot()
	if err != nil || showing(now) != "kubelet" || len(now.Certificate.Certificate) != 2 || now.Bundle != nil {
		t.Errorf("%v, %v", now, err)
	}
}

func TestFilesThatCannotBeOpened(t *testing.T) {
	d, pair := newDisk(t), leaf(t, tlstest.Authority(t, "ca"), "one", forServers)
	if _, err := mtls.OpenFiles(d.files, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	d.writePair(t, pair)
	if _, err := mtls.OpenFiles(d.files, nil); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "ca.crt") {
		t.Errorf("got %v", err)
	}
	d.writeKey(t, leaf(t, tlstest.Authority(t, "ca"), "two", forServers))
	_, err := mtls.OpenFiles(d.files, nil)
	if err == nil || !strings.Contains(err.Error(), "tls.crt") || strings.Contains(err.Error(), "PRIVATE") {
		t.Errorf("got %v", err)
	}
}

// A client that shows nothing has a bundle alone, and follows it.
func TestBundleWithoutAPair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one, two, d := tlstest.Authority(t, "one"), tlstest.Authority(t, "two"), newDisk(t)
		d.writeBundle(t, one)
		s, err := mtls.OpenFiles(mtls.Files{Bundle: d.files.Bundle}, nil)
		if err != nil {
			t.Fatal(err)
		}
		first, _ := s.Snapshot()
		d.writeBundle(t, two)
		now := looks(t, s, 3)
		if now.Certificate != nil || trusting(first) != "one" || trusting(now) != "two" {
			t.Errorf("%s, then %s", trusting(first), trusting(now))
		}
		if got := s.Status(); got.Taken != 1 || got.Failing || !got.AsOf.Equal(time.Now()) {
			t.Errorf("%+v", got)
		}
	})
}

func TestFilesThatNobodyHasNamed(t *testing.T) {
	for name, row := range map[string]struct {
		files mtls.Files
		want  string
	}{
		"nothing at all":                {mtls.Files{}, "nor Bundle"},
		"nothing but what it is for":    {mtls.Files{Usage: forServers}, "nor Bundle"},
		"a certificate and no key":      {mtls.Files{Certificate: "tls.crt", Bundle: "ca.crt"}, "only one"},
		"a key and no certificate":      {mtls.Files{Key: "tls.key"}, "only one"},
		"all three, which do not exist": {mtls.Files{Certificate: "no/tls.crt", Key: "no/tls.key", Bundle: "no/ca.crt"}, "no/tls.crt"},
	} {
		if _, err := mtls.OpenFiles(row.files, nil); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A certificate without extended key usages is good for all (RFC 5280 section
// 4.2.1.12), and so is one that says so.
func TestUsageOfACertificate(t *testing.T) {
	rows := map[string]struct {
		usages []x509.ExtKeyUsage
		want   x509.ExtKeyUsage
		good   bool
	}{
		"for servers, as is wanted":         {[]x509.ExtKeyUsage{forServers}, forServers, true},
		"for both, and one is wanted":       {[]x509.ExtKeyUsage{forClients, forServers}, forServers, true},
		"for everything, said so":           {[]x509.ExtKeyUsage{x509.ExtKeyUsageAny}, forServers, true},
		"for everything, nothing said":      {nil, forServers, true},
		"for clients, where it is a server": {[]x509.ExtKeyUsage{forClients}, forServers, false},
		"for servers, where it is a client": {[]x509.ExtKeyUsage{forServers}, forClients, false},
		"for clients, and nothing wanted":   {[]x509.ExtKeyUsage{forClients}, x509.ExtKeyUsageAny, true},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			d := newDisk(t)
			d.writePair(t, leaf(t, tlstest.Authority(t, "ca"), "one", row.usages...))
			d.files.Bundle, d.files.Usage = "", row.want
			_, err := mtls.OpenFiles(d.files, nil)
			if (err == nil) != row.good || (err != nil && !strings.Contains(err.Error(), "lack "+row.want.String())) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestPairThatChangesWhileManyAsk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ca, d := tlstest.Authority(t, "ca"), newDisk(t)
		d.writePair(t, leaf(t, ca, "one", forServers))
		d.writeBundle(t, ca)
		source := d.open(t)
		stop := make(chan struct{})
		var all sync.WaitGroup
		for range 8 {
			all.Go(func() {
				for {
					select {
					case <-stop:
						return
					case <-time.After(100 * time.Millisecond):
					}
					now, err := source.Snapshot()
					if err != nil || !trust.SameKey(now.Certificate.Leaf.PublicKey, now.Certificate.PrivateKey.(crypto.Signer).Public()) {
						t.Errorf("no pair: %v", err)
					}
				}
			})
		}
		for range 20 {
			two := leaf(t, ca, "two", forServers)
			d.writeKey(t, two)
			time.Sleep(700 * time.Millisecond)
			d.writeCertificate(t, two)
			time.Sleep(3 * time.Second)
		}
		close(stop)
		all.Wait()
		if len(d.taken) != 20 {
			t.Errorf("taken up %d times of 20; %q", len(d.taken), d.problems)
		}
	})
}
