package certmanager

import (
	"bytes"
	"encoding/base64"
	"maps"
	"testing"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	jks "github.com/pavlo-v-chernykh/keystore-go/v4"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"software.sslmate.com/src/go-pkcs12"
)

// withKeystores is a Certificate whose keystores have the passwords of two Secrets.
func withKeystores(t *testing.T) *api {
	t.Helper()
	a := prepare(t)
	for _, name := range []string{"jks-password", "p12-password"} {
		a.make(t, "/api/v1/namespaces/n/secrets", corev1.Secret{
			TypeMeta: metav1.TypeMeta{Kind: "Secret", APIVersion: "v1"}, ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string][]byte{"password": []byte("first-one"), "other": []byte("other-one")},
		})
	}
	a.edit(t, certificate, func(o map[string]any) {
		ref := func(name string) map[string]any {
			return map[string]any{"create": true, "passwordSecretRef": map[string]any{"name": name, "key": "password"}}
		}
		o["spec"].(map[string]any)["keystores"] = map[string]any{"jks": ref("jks-password"), "pkcs12": ref("p12-password")}
	})
	return a
}

func (a *api) password(t *testing.T, secret, password string) {
	t.Helper()
	a.edit(t, secretPath+secret, func(o map[string]any) {
		o["data"] = map[string]any{"password": base64.StdEncoding.EncodeToString([]byte(password))}
	})
}

// opens tells which passwords open the keystores of the Secret, JKS first.
func (a *api) opens(t *testing.T, all ...string) (java, p12 string) {
	t.Helper()
	var s corev1.Secret
	a.read(secretPath+"web-tls", &s)
	for _, password := range all {
		if jks.New().Load(bytes.NewReader(s.Data[cmapi.JKSSecretKey]), []byte(password)) == nil {
			java = password
		}
		if _, _, _, err := pkcs12.DecodeChain(s.Data[cmapi.PKCS12SecretKey], password); err == nil {
			p12 = password
		}
	}
	return java, p12
}

// made tells whether the Certificate is ready, of some revision, and its keystores have
// these passwords.
func (a *api) made(t *testing.T, java, p12 string) func() bool {
	return func() bool {
		gotJava, gotP12 := a.opens(t, "first-one", "second-one", "other-one")
		return a.issued() && gotJava == java && gotP12 == p12
	}
}

// issued tells whether the Certificate is ready, as ready does where it has the one Secret.
func (a *api) issued() bool {
	var o cmapi.Certificate
	if !a.read(certificate, &o) || o.Status.Revision == nil || len(o.Status.Conditions) == 0 {
		return false
	}
	return o.Status.Conditions[0].Status == cmmeta.ConditionTrue
}

func TestKeystoresFollowTheirPasswords(t *testing.T) {
	a := withKeystores(t)
	process(t, a, BuiltInSigners(), a.made(t, "first-one", "first-one"))
	var before corev1.Secret
	a.read(secretPath+"web-tls", &before)

	t.Run("while the process runs", func(t *testing.T) {
		changed := false
		process(t, a, BuiltInSigners(), func() bool {
			if !changed && a.made(t, "first-one", "first-one")() {
				changed = true
				a.password(t, "jks-password", "second-one")
			}
			return a.made(t, "second-one", "first-one")()
		})
	})
	t.Run("while none ran", func(t *testing.T) {
		a.password(t, "p12-password", "second-one")
		process(t, a, BuiltInSigners(), a.made(t, "second-one", "second-one"))
	})
	t.Run("when it comes back", func(t *testing.T) {
		a.remove(t, secretPath+"p12-password")
		a.make(t, "/api/v1/namespaces/n/secrets", corev1.Secret{
			TypeMeta: metav1.TypeMeta{Kind: "Secret", APIVersion: "v1"}, ObjectMeta: metav1.ObjectMeta{Name: "p12-password"}, Data: map[string][]byte{"password": []byte("first-one")},
		})
		process(t, a, BuiltInSigners(), a.made(t, "second-one", "first-one"))
	})
	// Nothing was issued for it, and the key and the certificate are as they were.
	var after corev1.Secret
	a.read(secretPath+"web-tls", &after)
	if n := a.writesTo(cm + "certificaterequests"); n != 1 || !bytes.Equal(before.Data["tls.key"], after.Data["tls.key"]) || !bytes.Equal(before.Data["tls.crt"], after.Data["tls.crt"]) {
		t.Errorf("it was issued %d times", n)
	}
	for key := range maps.Keys(before.Data) {
		if len(after.Data[key]) == 0 {
			t.Errorf("%s is gone", key)
		}
	}
}

func TestAPasswordThatDidNotChangeWritesNothing(t *testing.T) {
	a := withKeystores(t)
	process(t, a, BuiltInSigners(), a.made(t, "first-one", "first-one"))
	a.make(t, "/api/v1/namespaces/n/secrets", corev1.Secret{
		TypeMeta: metav1.TypeMeta{Kind: "Secret", APIVersion: "v1"}, ObjectMeta: metav1.ObjectMeta{Name: "foreign"}, Data: map[string][]byte{"password": []byte("x")},
	})
	writes := len(a.writes)
	// A hundred looks at what is there take 200 ms: a write would show in them.
	seen := 0
	process(t, a, BuiltInSigners(), func() bool {
		if seen++; seen == 20 {
			a.password(t, "foreign", "y")
		}
		return seen > 100
	})
	if len(a.writes) != writes {
		t.Errorf("it wrote %q", a.writes[writes:])
	}
	// One that is removed leaves the keystores as they are.
	a.remove(t, secretPath+"jks-password")
	seen = 0
	process(t, a, BuiltInSigners(), func() bool { seen++; return seen > 100 })
	if len(a.writes) != writes {
		t.Errorf("it wrote %q", a.writes[writes:])
	}
}

func TestPasswordsAreWatchedForAsLongAsTheyAreNamed(t *testing.T) {
	a := withKeystores(t)
	client, err := NewClient(a.config())
	check(t, err)
	p := newPasswords(client.Metadata, func(types.NamespacedName) {})
	p.named.start(t.Context())
	p.named.most = 2
	var c cmapi.Certificate
	a.read(certificate, &c)
	running := func() int {
		p.named.mu.Lock()
		defer p.named.mu.Unlock()
		return len(p.named.running)
	}
	key := types.NamespacedName{Namespace: "n", Name: "web"}
	if !p.follow(key, &c) || running() != 2 {
		t.Fatalf("%d are watched", running())
	}
	other := c.DeepCopy()
	other.Spec.Keystores.JKS.PasswordSecretRef.Name = "third"
	if p.follow(types.NamespacedName{Namespace: "n", Name: "other"}, other) || running() != 2 {
		t.Errorf("more are watched than may be: %d", running())
	}
	p.follow(key, nil)
	p.follow(types.NamespacedName{Namespace: "n", Name: "other"}, nil)
	if running() != 0 || len(p.named.wanted) != 0 || len(p.used) != 0 {
		t.Errorf("%d are watched for nobody", running())
	}
}
