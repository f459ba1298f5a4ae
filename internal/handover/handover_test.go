package handover

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/x509/pkix"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/trust"
)

var noon = time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)

// pair makes a certificate and its key, as PEM.
func pair(t *testing.T, name string, authority bool) (certificate, key []byte) {
	t.Helper()
	k, err := issue.GenerateKey(issue.ECDSAP256)
	if err != nil {
		t.Fatal(err)
	}
	c, err := issue.SelfSign(issue.Template{Subject: pkix.Name{CommonName: name}, Authority: authority, NotBefore: noon, NotAfter: noon.Add(time.Hour)}, k)
	if err != nil {
		t.Fatal(err)
	}
	if key, err = issue.EncodePrivateKey(k); err != nil {
		t.Fatal(err)
	}
	return trust.EncodeCertificates(c), key
}

// publicOf is the public key of a private one, as PEM.
func publicOf(t *testing.T, key []byte) []byte {
	t.Helper()
	k, err := issue.ParsePrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	public, err := issue.EncodePublicKey(k.Public())
	if err != nil {
		t.Fatal(err)
	}
	return public
}

// shared is what a control plane has.
func shared(t *testing.T) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	for _, name := range []string{"ca", "front-proxy-ca", "etcd-ca"} {
		all[name+".crt"], all[name+".key"] = pair(t, name, true)
	}
	_, all["sa.key"] = pair(t, "sa", true)
	all["sa.pub"] = publicOf(t, all["sa.key"])
	return all
}

func TestWhatIsSealedIsOpened(t *testing.T) {
	key, all := GenerateKey(), shared(t)
	external := maps.Clone(all)
	delete(external, "etcd-ca.crt")
	delete(external, "etcd-ca.key")
	external[ExternalEtcdCA] = all["etcd-ca.crt"]
	external[ExternalEtcdCert], external[ExternalEtcdKey] = pair(t, "client", true)
	elsewhere := maps.Clone(all)
	delete(elsewhere, "ca.key")
	rotated := maps.Clone(all)
	_, old := pair(t, "old", true)
	rotated["sa.pub"] = append(publicOf(t, old), all["sa.pub"]...)
	withOurs := maps.Clone(all)
	withOurs["kubelet-ca.crt"], withOurs["kubelet-ca.key"] = pair(t, "kubelet-ca", true)
	for name, c := range map[string]struct {
		contents map[string][]byte
		external bool
		empty    string
	}{
		"etcd on the control planes":               {all, false, "[]"},
		"etcd elsewhere":                           {external, true, "[]"},
		"the authority's key elsewhere":            {elsewhere, false, "[ca.key]"},
		"a rotation, so that two keys verify":      {rotated, false, "[]"},
		"an authority for kubelets, which is ours": {withOurs, false, "[]"},
	} {
		data, err := Seal(key, c.contents, c.external)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for entry, sealed := range data {
			if len(sealed) > 0 && bytes.Contains(sealed, []byte("-----")) {
				t.Errorf("%s: %s is not encrypted", name, entry)
			}
		}
		got, err := Open(key, data)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !maps.EqualFunc(got.Contents, c.contents, bytes.Equal) || got.ExternalEtcd != c.external || fmt.Sprint(got.Empty) != c.empty {
			t.Errorf("%s: got %d contents, empty %v", name, len(got.Contents), got.Empty)
		}
	}
}

// TestSealedAsKubeadmSeals opens with the words of kubeadm's DecryptBytes.
func TestSealedAsKubeadmSeals(t *testing.T) {
	key, all := GenerateKey(), shared(t)
	data, err := Seal(key, all, false)
	if err != nil {
		t.Fatal(err)
	}
	block, err := aes.NewCipher(key.bytes)
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	nonces := map[string]bool{}
	for name, sealed := range data {
		nonce := sealed[:gcm.NonceSize()]
		if nonces[string(nonce)] {
			t.Fatalf("%s: a nonce was used twice", name)
		}
		nonces[string(nonce)] = true
		got, err := gcm.Open(nil, nonce, sealed[gcm.NonceSize():], nil)
		if err != nil || !bytes.Equal(got, all[name]) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWhatIsNotWholeIsRefused(t *testing.T) {
	key, all := GenerateKey(), shared(t)
	sealWith := func(name string, content []byte) func(map[string][]byte) {
		return func(data map[string][]byte) {
			sealed, err := key.seal(content)
			if err != nil {
				t.Fatal(err)
			}
			data[name] = sealed
		}
	}
	leaf, _ := pair(t, "leaf", false)
	_, otherKey := pair(t, "other", true)
	good := func(map[string][]byte) {}
	for name, c := range map[string]struct {
		spoil func(map[string][]byte)
		key   Key
		want  string // in the error; "": none
	}{
		"all is whole":                             {good, key, ""},
		"an entry that nobody knows":               {func(d map[string][]byte) { d["../../etc/passwd"] = []byte("x") }, key, ""},
		"another key":                              {good, GenerateKey(), "cannot be decrypted"},
		"no key":                                   {good, Key{}, "no certificate key"},
		"a bit of the text was changed":            {func(d map[string][]byte) { d["ca.key"][20] ^= 1 }, key, "ca.key: cannot be decrypted"},
		"a bit of the nonce was changed":           {func(d map[string][]byte) { d["sa.key"][0] ^= 1 }, key, "sa.key: cannot be decrypted"},
		"it was cut off":                           {func(d map[string][]byte) { d["ca.crt"] = d["ca.crt"][:40] }, key, "ca.crt: cannot be decrypted"},
		"it is shorter than a nonce":               {func(d map[string][]byte) { d["ca.crt"] = d["ca.crt"][:5] }, key, "ca.crt: cannot be decrypted"},
		"an entry is missing":                      {func(d map[string][]byte) { delete(d, "sa.key") }, key, "does not hold sa.key"},
		"all of etcd is missing":                   {func(d map[string][]byte) { delete(d, "etcd-ca.crt"); delete(d, "etcd-ca.key") }, key, "does not hold etcd-ca.crt, etcd-ca.key"},
		"two whole entries were swapped":           {func(d map[string][]byte) { d["ca.key"], d["etcd-ca.key"] = d["etcd-ca.key"], d["ca.key"] }, key, "ca.key: does not belong to ca.crt"},
		"certificates of two authorities, swapped": {func(d map[string][]byte) { d["ca.crt"], d["etcd-ca.crt"] = d["etcd-ca.crt"], d["ca.crt"] }, key, "does not belong"},
		"the authority's certificate is empty":     {func(d map[string][]byte) { d["ca.crt"] = nil }, key, "the authority of the cluster is not there"},
		"a leaf in the place of an authority":      {sealWith("front-proxy-ca.crt", leaf), key, "is no authority"},
		"another authority's key":                  {sealWith("ca.key", otherKey), key, "ca.key: does not belong to ca.crt"},
		"a key for tokens that nobody verifies":    {sealWith("sa.key", otherKey), key, "sa.key: does not belong to sa.pub"},
		"a key in the place of a certificate":      {sealWith("ca.crt", otherKey), key, "ca.crt: "},
		"what is no PEM":                           {sealWith("sa.pub", []byte("hello")), key, "sa.pub: "},
		"an entry of 2 MiB":                        {func(d map[string][]byte) { d["ca.crt"] = make([]byte, 2<<20) }, key, "more than 1048576"},
		"a hundred entries": {func(d map[string][]byte) {
			for i := range 100 {
				d[fmt.Sprint(i)] = nil
			}
		}, key, "more than 64"},
		"nothing at all": {func(d map[string][]byte) { clear(d) }, key, "does not hold ca.crt"},
	} {
		data, err := Seal(key, all, false)
		if err != nil {
			t.Fatal(err)
		}
		c.spoil(data)
		got, err := Open(c.key, data)
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v, want %q", name, err, c.want)
		case err != nil && (strings.Contains(err.Error(), "-----") || strings.Contains(err.Error(), key.Reveal())):
			t.Errorf("%s: the error holds a secret: %v", name, err)
		case c.want == "" && name != "all is whole" && len(got.Unknown) != 1:
			t.Errorf("%s: unknown are %v", name, got.Unknown)
		}
	}
}

func TestNothingIsSealedThatDoesNotBelongTogether(t *testing.T) {
	all := shared(t)
	all["ca.key"] = all["etcd-ca.key"]
	if _, err := Seal(GenerateKey(), all, false); err == nil {
		t.Error("a key of another authority was handed over")
	}
	if _, err := Seal(GenerateKey(), map[string][]byte{}, false); err == nil {
		t.Error("nothing was handed over, and no error")
	}
}

func TestKeysAreReadAndNotShown(t *testing.T) {
	key := GenerateKey()
	again, err := ParseKey(strings.ToUpper(key.Reveal()))
	if err != nil || again.Reveal() != key.Reveal() {
		t.Errorf("%v", err)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%q", "%d"} {
		if got := fmt.Sprintf(verb, key); got != "<certificate key>" {
			t.Errorf("%s shows %s", verb, got)
		}
	}
	for name, text := range map[string]string{"empty": "", "63 digits": key.Reveal()[1:], "66 digits": key.Reveal() + "00", "no digits": strings.Repeat("z", 64), "of AES-128": key.Reveal()[:32]} {
		if _, err := ParseKey(text); err == nil || text != "" && strings.Contains(err.Error(), text) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAuthorityIsOfTheCluster(t *testing.T) {
	all, others := shared(t), shared(t)
	own, err := trust.ParseCertificates(all["ca.crt"])
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := trust.ParseCertificates(others["ca.crt"])
	if err != nil {
		t.Fatal(err)
	}
	if err := OfCluster(all, append(foreign, own...)); err != nil {
		t.Errorf("it is one of two that the cluster shows: %v", err)
	}
	if err := OfCluster(all, foreign); err == nil {
		t.Error("the authority of another cluster is taken")
	}
}

func TestSameInOtherWords(t *testing.T) {
	all := shared(t)
	for _, e := range Entries(false) {
		content := all[e.Name]
		if content == nil {
			continue
		}
		if !e.Same(append([]byte("# a comment\n"), content...), content) {
			t.Errorf("%s: text before it makes it another", e.Name)
		}
		if other := shared(t)[e.Name]; e.Same(other, content) || e.Same(nil, content) {
			t.Errorf("%s: another one is the same", e.Name)
		}
	}
}
