package main

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/csr"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/kmsproto"
	"github.com/kubepki/kubepki/internal/signer"
	"github.com/kubepki/kubepki/internal/trust"
)

// signOne signs a kubelet's request.
func signOne(t testing.TB, s signer.Source, node string) error {
	t.Helper()
	a, err := s.Authority()
	if err != nil {
		return err
	}
	_, err = csr.Sign(csr.Request{
		SignerName: csr.KubeAPIServerClientKubeletSigner, Usages: []string{"client auth", "digital signature"}, PEM: request(t, node),
	}, a, time.Hour, time.Now())
	return err
}

func TestRequestIsSignedWithAKeyInADevice(t *testing.T) {
	for _, algorithm := range []string{"RSA", "P-256"} {
		t.Run(algorithm, func(t *testing.T) {
			k := newToken(t)
			k.makeKey(t, "ca", algorithm)
			socket, file := k.path("run/kms.sock"), k.path("ca.crt")
			k.start(t, nil, "--socket", socket, "--key", "cluster-ca="+k.pinned("ca"))
			ca := makeAuthority(t, socket, "cluster-ca", file)
			if ca.PublicKeyAlgorithm != map[string]x509.PublicKeyAlgorithm{"RSA": x509.RSA, "P-256": x509.ECDSA}[algorithm] {
				t.Fatalf("the key is of %s", ca.PublicKeyAlgorithm)
			}
			source, err := signer.KMS(socket, "cluster-ca", file, nil)
			if err != nil {
				t.Fatal(err)
			}
			a, err := source.Authority()
			if err != nil {
				t.Fatal(err)
			}
			asked := request(t, "n1")
			certificate, err := csr.Sign(csr.Request{
				SignerName: csr.KubeAPIServerClientKubeletSigner, Usages: []string{"client auth", "digital signature"}, PEM: asked,
			}, a, time.Hour, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			put(t, k.path("leaf.crt"), string(certificate))
			put(t, k.path("leaf.csr"), string(asked))
			out, err := exec.Command("openssl", "verify", "-purpose", "sslclient", "-CAfile", file, k.path("leaf.crt")).CombinedOutput()
			if err != nil {
				t.Errorf("openssl verify: %v: %s", err, out)
			}
			inCertificate, err := exec.Command("openssl", "x509", "-in", k.path("leaf.crt"), "-noout", "-pubkey").Output()
			if err != nil {
				t.Fatal(err)
			}
			inRequest, err := exec.Command("openssl", "req", "-in", k.path("leaf.csr"), "-noout", "-pubkey").Output()
			if err != nil || string(inRequest) != string(inCertificate) {
				t.Errorf("openssl finds another key: %v", err)
			}
		})
	}
}

// The way of docs/kms.md for a cluster that has its authority already.
func TestKeyOfAnAuthorityMovesIntoADevice(t *testing.T) {
	k := newToken(t)
	key := newKey(t)
	c, err := issue.SelfSign(issue.Template{
		Subject: pkix.Name{CommonName: "kubernetes"}, Authority: true, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}, key)
	if err != nil {
		t.Fatal(err)
	}
	data, err := issue.EncodePrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	put(t, k.path("ca.key"), string(data))
	put(t, k.path("ca.crt"), string(trust.EncodeCertificates(c)))
	for _, args := range [][]string{
		{"openssl", "pkcs8", "-topk8", "-nocrypt", "-in", k.path("ca.key"), "-out", k.path("ca.p8")},
		{"softhsm2-util", "--import", k.path("ca.p8"), "--token", "lab", "--label", "cluster-ca", "--id", "01", "--pin", pin},
	} {
		run := exec.Command(args[0], args[1:]...)
		run.Env = k.env
		if out, err := run.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", args[0], err, out)
		}
	}
	socket := k.path("run/kms.sock")
	k.start(t, nil, "--socket", socket, "--key", "cluster-ca=pkcs11:module-path="+module+";token=lab;object=cluster-ca?pin-source="+k.path("pin"))
	source, err := signer.KMS(socket, "cluster-ca", k.path("ca.crt"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := signOne(t, source, "n1"); err != nil {
		t.Error(err)
	}
}

func TestManySignWithTwoKeysAtOnce(t *testing.T) {
	k := newToken(t)
	k.makeKey(t, "one", "RSA")
	k.makeKey(t, "two", "P-256")
	socket := k.path("run/kms.sock")
	p := k.start(t, nil, "--socket", socket, "--concurrency", "4", "--key", "one="+k.pinned("one"), "--key", "two="+k.pinned("two"))
	var sources []signer.Source
	for _, name := range []string{"one", "two"} {
		makeAuthority(t, socket, name, k.path(name+".crt"))
		s, err := signer.KMS(socket, name, k.path(name+".crt"), nil)
		if err != nil {
			t.Fatal(err)
		}
		sources = append(sources, s)
	}
	began := time.Now()
	var all sync.WaitGroup
	var signed atomic.Int64
	for i := range 16 {
		all.Go(func() {
			for range 20 {
				if err := signOne(t, sources[i%2], "n1"); err != nil {
					t.Error(err)
					return
				}
				signed.Add(1)
			}
		})
	}
	all.Wait()
	t.Logf("%d certificates in %s", signed.Load(), time.Since(began).Round(time.Millisecond))
	if log := p.log.String(); strings.Count(log, `"msg":"signed"`) < int(signed.Load()) || strings.Contains(log, pin) {
		t.Errorf("the log misses signatures, or holds the PIN:\n%.2000s", log)
	}
}

func TestKilledWhileSigningAndBackAgain(t *testing.T) {
	k := newToken(t)
	k.makeKey(t, "ca", "RSA")
	socket, file := k.path("run/kms.sock"), k.path("ca.crt")
	args := []string{"--socket", socket, "--key", "ca=" + k.pinned("ca")}
	p := k.start(t, nil, args...)
	makeAuthority(t, socket, "ca", file)
	source, err := signer.KMS(socket, "ca", file, nil)
	if err != nil {
		t.Fatal(err)
	}
	// All that sign until the kill do so without an error, and all that sign
	// until the restart get one, soon.
	var killed, back atomic.Bool
	var before, during, after atomic.Int64
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for after.Load() < 20 {
				wasKilled, wasBack, began := killed.Load(), back.Load(), time.Now()
				switch err := signOne(t, source, "n1"); {
				case err == nil && wasBack:
					after.Add(1)
				case err == nil:
					before.Add(1)
				case !killed.Load() || wasBack:
					t.Errorf("killed %v, back %v: %v", wasKilled, wasBack, err)
					return
				case time.Since(began) > 5*time.Second:
					t.Errorf("the error took %s: %v", time.Since(began), err)
				default:
					during.Add(1)
				}
			}
		})
	}
	for before.Load() < 20 {
		time.Sleep(time.Millisecond)
	}
	killed.Store(true)
	p.kill(t, syscall.SIGKILL)
	for during.Load() < 4 {
		time.Sleep(time.Millisecond)
	}
	k.start(t, nil, args...)
	back.Store(true)
	all.Wait()
	t.Logf("%d signed before, %d errors while it was away, %d signed after", before.Load(), during.Load(), after.Load())
}

func TestWrongKeysAndPINs(t *testing.T) {
	k := newToken(t)
	k.makeKey(t, "ca", "P-256")
	put(t, k.path("wrong"), "1111\n")
	put(t, k.path("empty"), "\n")
	put(t, k.path("open"), pin)
	if err := os.Chmod(k.path("open"), 0o644); err != nil {
		t.Fatal(err)
	}
	rows := map[string]struct {
		env  []string
		args []string
		code int
		want string
	}{
		"a wrong PIN is not for trying again": {nil, []string{"--key", "ca=" + k.uri("ca", "?pin-source="+k.path("wrong"))}, 2, "CKR_PIN_INCORRECT"},
		"no PIN file":                         {nil, []string{"--key", "ca=" + k.uri("ca", "?pin-source="+k.path("none"))}, 1, "pin-source"},
		"an empty PIN file":                   {nil, []string{"--key", "ca=" + k.uri("ca", "?pin-source="+k.path("empty"))}, 2, "is empty"},
		"a PIN file for all to read":          {nil, []string{"--key", "ca=" + k.uri("ca", "?pin-source="+k.path("open"))}, 2, "others cannot read"},
		"a PIN as an argument":                {nil, []string{"--key", "ca=" + k.uri("ca", "?pin-value="+pin)}, 2, "pin-value"},
		"a secret of Azure as an argument":    {nil, []string{"--key", "ca=azurekms:vault=v;name=n;client-secret=" + pin}, 2, "client-secret"},
		"no such key":                         {nil, []string{"--key", "ca=" + k.pinned("other")}, 1, "other"},
		"no such token":                       {nil, []string{"--key", "ca=pkcs11:module-path=" + module + ";token=other;object=ca?pin-source=" + k.path("pin")}, 1, "token"},
		"no such module":                      {nil, []string{"--key", "ca=pkcs11:module-path=/none.so;token=lab;object=ca?pin-source=" + k.path("pin")}, 1, "none.so"},
		"no such scheme":                      {nil, []string{"--key", "ca=file:ca.key"}, 2, `"file"`},
		"no key":                              {nil, nil, 2, "--key"},
		"a key twice":                         {nil, []string{"--key", "a=b:c", "--key", "a=b:c"}, 2, "twice"},
		"no such user":                        {nil, []string{"--key", "a=b:c", "--allow-user", "nobody-at-all"}, 2, "nobody-at-all"},
		"a PIN from the environment, with a folder of the socket open to others": {[]string{pinVariable + "=" + pin},
			[]string{"--key", "ca=" + k.uri("ca"), "--socket", filepath.Join(os.TempDir(), "kms.sock")}, 1, "0700"},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			p := k.start(t, row.env, append([]string{"--socket", k.path("run/kms.sock")}, row.args...)...)
			<-p.exited
			if got := p.ProcessState.ExitCode(); got != row.code || !strings.Contains(p.log.String(), row.want) {
				t.Errorf("exit %d, want %d with %q:\n%s", got, row.code, row.want, p.log.String())
			}
			if strings.Contains(p.log.String(), pin) || strings.Contains(p.log.String(), "1111") {
				t.Errorf("the PIN is told:\n%s", p.log.String())
			}
		})
	}
}

func TestUnknownKeyIsToldApart(t *testing.T) {
	k := newToken(t)
	k.makeKey(t, "ca", "P-256")
	socket := k.path("run/kms.sock")
	k.start(t, []string{pinVariable + "=" + pin}, "--socket", socket, "--key", "ca="+k.uri("ca"))
	_, err := signer.Key(socket, "other")
	var failure *kmsproto.Error
	if !errors.As(err, &failure) || failure.Code != kmsproto.UnknownKey {
		t.Errorf("got %v", err)
	}
}

func TestCertificateOfAnotherKeyIsRefused(t *testing.T) {
	k := newToken(t)
	k.makeKey(t, "one", "P-256")
	k.makeKey(t, "two", "P-256")
	socket := k.path("run/kms.sock")
	k.start(t, nil, "--socket", socket, "--key", "one="+k.pinned("one"), "--key", "two="+k.pinned("two"))
	makeAuthority(t, socket, "one", k.path("one.crt"))
	if _, err := signer.KMS(socket, "two", k.path("one.crt"), nil); err == nil || !strings.Contains(err.Error(), "does not belong to the key") {
		t.Errorf("got %v", err)
	}
}

// A device that is gone makes the process end, so that a supervisor starts one
// that finds it again.
func TestDeviceThatIsGoneEndsTheProcess(t *testing.T) {
	k := newToken(t)
	k.makeKey(t, "ca", "P-256")
	socket := k.path("run/kms.sock")
	p := k.start(t, nil, "--socket", socket, "--key", "ca="+k.pinned("ca"))
	makeAuthority(t, socket, "ca", k.path("ca.crt"))
	source, err := signer.KMS(socket, "ca", k.path("ca.crt"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(k.path("tokens")); err != nil {
		t.Fatal(err)
	}
	var failure *kmsproto.Error
	if err := signOne(t, source, "n1"); !errors.As(err, &failure) || failure.Code != kmsproto.KeyFailed {
		t.Fatalf("got %v", err)
	}
	select {
	case <-p.exited:
	case <-time.After(20 * time.Second):
		t.Fatalf("it goes on:\n%s", p.log.String())
	}
	if got := p.ProcessState.ExitCode(); got != exitFailed {
		t.Errorf("exit %d:\n%s", got, p.log.String())
	}
}
