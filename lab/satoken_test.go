//go:build linux

package lab_test

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"

	"github.com/kubepki/kubepki/token"
)

// saTokens is a control plane whose service-account key is RSA, so that the
// same claims make the same token, and what tokens are bound to.
type saTokens struct {
	*controlPlane
	api  *kubernetes.Clientset
	conf string // the administrator's kubeconfig
	dir  string // for files
	uids map[string]string
}

const hookURL = "https://hook.test/"

func TestServiceAccountTokens(t *testing.T) {
	k := startSATokens(t)
	for _, test := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"what is signed here the API server takes, as whom the claims name", k.testOffline},
		{"what is wrong with a token the API server sees too", k.testRefused},
		{"what is signed here says what the API server says", k.testSame},
		{"what the API server signs is verified here", k.testVerified},
		{"the API server shortens lives, and kubepki says so", k.testLives},
		{"a Secret of kubepki is one of the controller", k.testLegacy},
		{"clients work with the folder and its kubeconfig", k.testMount},
		{"clients work with a token in a kubeconfig", k.testKubeconfig},
		{"a token dies with what it is bound to", k.testDeleted},
	} {
		t.Run(test.name, test.run)
	}
}

func startSATokens(t *testing.T) *saTokens {
	t.Helper()
	k := &saTokens{controlPlane: &controlPlane{dir: initCluster(t, 1, "--key-algorithm=ECDSA-P256"), shape: "separate"}, dir: t.TempDir(), uids: map[string]string{}}
	k.replaceKey(t)
	node := addNode(t, newNetwork(t), "cp1", k.path("cp1", ""), "10.99.0.11/24")
	k.nodes = append(k.nodes, node)
	k.apiserver = start(t, node, "kube-apiserver", "--feature-gates=APIServerWebhookAuthenticationToken=true", "--service-account-max-token-expiration=4h")
	ready(t, start(t, node, "etcd", "--unsafe-no-fsync"), k.apiserver)
	k.manager = start(t, node, "kube-controller-manager")
	ready(t, k.manager)
	k.conf = k.path("cp1", "etc/kubernetes/super-admin.conf")
	k.admin = k.controlPlane.conf(t, "super-admin")
	k.api = k.client(t)
	k.makeObjects(t)
	return k
}

// replaceKey puts an RSA key in the place of that of init, before anything runs.
func (k *saTokens) replaceKey(t *testing.T) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	write(t, k.pki("sa.key"), string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})))
	write(t, k.pki("sa.pub"), string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})))
}

// makeObjects makes a service account, and one object of each kind.
func (k *saTokens) makeObjects(t *testing.T) {
	t.Helper()
	ctx, options := t.Context(), metav1.CreateOptions{}
	made := func(kind string, o metav1.Object, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		k.uids[kind] = string(o.GetUID())
	}
	named := metav1.ObjectMeta{Name: "a"}
	namespace, err := k.api.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ci"}}, options)
	made("Namespace", namespace, err)
	account, err := k.api.CoreV1().ServiceAccounts("ci").Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "robot"}}, options)
	made("ServiceAccount", account, err)
	node, err := k.api.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: named}, options)
	made("Node", node, err)
	secret, err := k.api.CoreV1().Secrets("ci").Create(ctx, &corev1.Secret{ObjectMeta: named}, options)
	made("Secret", secret, err)
	pod, err := k.api.CoreV1().Pods("ci").Create(ctx, &corev1.Pod{ObjectMeta: named, Spec: corev1.PodSpec{
		ServiceAccountName: "robot", NodeName: "a", Containers: []corev1.Container{{Name: "a", Image: "a"}},
	}}, options)
	made("Pod", pod, err)
	client := admissionregistrationv1.WebhookClientConfig{URL: ptr.To(hookURL)}
	rules := []admissionregistrationv1.RuleWithOperations{{Operations: []admissionregistrationv1.OperationType{"CREATE"}, Rule: admissionregistrationv1.Rule{APIGroups: []string{"apps"}, APIVersions: []string{"v9"}, Resources: []string{"nothing"}}}}
	none := ptr.To(admissionregistrationv1.SideEffectClassNone)
	validating, err := k.api.AdmissionregistrationV1().ValidatingWebhookConfigurations().Create(ctx, &admissionregistrationv1.ValidatingWebhookConfiguration{ObjectMeta: named, Webhooks: []admissionregistrationv1.ValidatingWebhook{
		{Name: "hook.test.example", ClientConfig: client, Rules: rules, SideEffects: none, AdmissionReviewVersions: []string{"v1"}},
	}}, options)
	made("ValidatingWebhookConfiguration", validating, err)
	mutating, err := k.api.AdmissionregistrationV1().MutatingWebhookConfigurations().Create(ctx, &admissionregistrationv1.MutatingWebhookConfiguration{ObjectMeta: named, Webhooks: []admissionregistrationv1.MutatingWebhook{
		{Name: "hook.test.example", ClientConfig: client, Rules: rules, SideEffects: none, AdmissionReviewVersions: []string{"v1"}},
	}}, options)
	made("MutatingWebhookConfiguration", mutating, err)
	// An account that shows itself to webhooks has to be allowed to.
	role, err := k.api.RbacV1().ClusterRoles().Create(ctx, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: "attest"}, Rules: []rbacv1.PolicyRule{
		{Verbs: []string{"attest"}, APIGroups: []string{"authentication.k8s.io"}, Resources: []string{token.APIGroupsAttestation}},
	}}, options)
	made("ClusterRole", role, err)
	binding, err := k.api.RbacV1().ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "attest"}, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "attest"},
		Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: "ci", Name: "robot"}},
	}, options)
	made("ClusterRoleBinding", binding, err)
}

// here makes a token without the cluster, from the files of its control plane.
func (k *saTokens) here(t *testing.T, flags ...string) madeToken {
	t.Helper()
	return decodeMade(t, run(t, "kubepki", append([]string{"sa", "token", "ci/robot", "--root=" + k.path("cp1", ""), "--uid=" + k.uids["ServiceAccount"], "-o=json"}, flags...)...))
}

// there has the cluster make it.
func (k *saTokens) there(t *testing.T, flags ...string) madeToken {
	t.Helper()
	return decodeMade(t, run(t, "kubepki", append([]string{"sa", "token", "ci/robot", "--kubeconfig=" + k.conf, "-o=json"}, flags...)...))
}

// madeToken is the answer of sa token, and what it said.
type madeToken struct {
	Token string
	User  token.User
	talk  string
}

func decodeMade(t *testing.T, out output) madeToken {
	t.Helper()
	made := madeToken{talk: out.stderr}
	if err := json.Unmarshal([]byte(out.stdout), &made); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out.stderr, made.Token) {
		t.Error("the talk holds the token")
	}
	return made
}

// bound are the flags for each kind of object; there are none for a token that is
// bound to nothing.
func (k *saTokens) bound(kind string, uids bool) []string {
	if kind == "" {
		return nil
	}
	flags := []string{"--bound-object-kind=" + kind, "--bound-object-name=a"}
	if uids {
		flags = append(flags, "--bound-object-uid="+k.uids[kind])
	}
	if uids && kind == "Pod" {
		flags = append(flags, "--node-name=a", "--node-uid="+k.uids["Node"])
	}
	if isHook(kind) {
		flags = append(flags, "--audience="+hookURL, "--attestation="+token.APIGroupsAttestation+"=apps")
	}
	return flags
}

func isHook(kind string) bool { return strings.HasSuffix(kind, "WebhookConfiguration") }

var boundKinds = []string{"", "Pod", "Node", "Secret", "ValidatingWebhookConfiguration", "MutatingWebhookConfiguration"}

// bearer is a client that shows a token and nothing else.
func (k *saTokens) bearer(text string) *rest.Config {
	c := rest.AnonymousClientConfig(k.admin)
	c.BearerToken = text
	return c
}

// review has the API server say whose a token is: by the token itself or, for an
// audience of its own, by a TokenReview.
func (k *saTokens) review(t *testing.T, text, audience string) (authenticationv1.UserInfo, error) {
	t.Helper()
	var user authenticationv1.UserInfo
	if audience == "" {
		client, err := kubernetes.NewForConfig(k.bearer(text))
		if err != nil {
			t.Fatal(err)
		}
		self, err := client.AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
		if err != nil {
			return user, err
		}
		user = self.Status.UserInfo
	} else {
		r, err := k.api.AuthenticationV1().TokenReviews().Create(t.Context(), &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: text, Audiences: []string{audience}}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if !r.Status.Authenticated {
			return user, apierrors.NewUnauthorized(r.Status.Error)
		}
		user = r.Status.User
	}
	// What every known caller is in besides.
	i := slices.Index(user.Groups, "system:authenticated")
	if i < 0 {
		t.Fatal("whoever it is, is not authenticated")
	}
	user.Groups = slices.Delete(user.Groups, i, i+1)
	return user, nil
}

// isUser asserts that the API server knows a token as kubepki does.
func (k *saTokens) isUser(t *testing.T, made madeToken, audience string) {
	t.Helper()
	got, err := k.review(t, made.Token, audience)
	if err != nil {
		t.Errorf("refused: %v", err)
		return
	}
	is := token.User{Username: got.Username, UID: got.UID, Groups: got.Groups}
	for key, values := range got.Extra {
		if is.Extra == nil {
			is.Extra = map[string][]string{}
		}
		is.Extra[key] = values
	}
	if d := cmp.Diff(made.User, is); d != "" {
		t.Errorf("(-kubepki +kube-apiserver):\n%s", d)
	}
}

func (k *saTokens) testOffline(t *testing.T) {
	for _, kind := range boundKinds {
		t.Run("bound to "+kind, func(t *testing.T) {
			audience := ""
			if isHook(kind) {
				audience = hookURL
			}
			k.isUser(t, k.here(t, k.bound(kind, true)...), audience)
		})
	}
	t.Run("bound to a pod whose node it does not tell", func(t *testing.T) {
		k.isUser(t, k.here(t, "--bound-object-kind=Pod", "--bound-object-name=a", "--bound-object-uid="+k.uids["Pod"]), "")
	})
	t.Run("for an audience of its own", func(t *testing.T) {
		made := k.here(t, "--audience=vault")
		k.isUser(t, made, "vault")
		k.isRefused(t, "the API server", made.Token, "")
	})
}

func (k *saTokens) isRefused(t *testing.T, what, text, audience string) {
	t.Helper()
	if user, err := k.review(t, text, audience); !apierrors.IsUnauthorized(err) {
		t.Errorf("%s: the API server takes it for %q: %v", what, user.Username, err)
	}
}

func (k *saTokens) testRefused(t *testing.T) {
	other := "00000000-0000-4000-8000-000000000000"
	changed := func(flags []string, flag string) []string {
		all := slices.Clone(flags)
		i := slices.IndexFunc(all, func(f string) bool { return strings.HasPrefix(f, flag) })
		all[i] = flag + "=" + other
		return all
	}
	k.isRefused(t, "another uid", k.here(t, "--uid="+other).Token, "")
	for _, kind := range boundKinds[1:] {
		audience := ""
		if isHook(kind) {
			audience = hookURL
		}
		k.isRefused(t, "another uid of "+kind, k.here(t, changed(k.bound(kind, true), "--bound-object-uid")...).Token, audience)
	}
	k.isRefused(t, "expired", k.here(t, "--at="+time.Now().Add(-2*time.Hour).Format(time.RFC3339)).Token, "")
	stranger, _ := newKey(t)
	file := write(t, filepath.Join(k.dir, "stranger.key"), string(stranger))
	made := k.here(t, "--key="+file)
	k.isRefused(t, "another key", made.Token, "")
	if !strings.Contains(made.talk, "verifies tokens with other keys") {
		t.Errorf("nothing is said of another key: %s", made.talk)
	}
	made = k.here(t, "--issuer=https://issuer.test")
	k.isRefused(t, "another issuer", made.Token, "")
	if !strings.Contains(made.talk, "takes tokens of https://kubernetes.default.svc.cluster.local alone") {
		t.Errorf("nothing is said of another issuer: %s", made.talk)
	}
	// The twin of all of them.
	k.isUser(t, k.here(t), "")
}

// unlike are the claims that differ from one token to the next.
var unlike = regexp.MustCompile(`"(exp|iat|nbf|jti|warnafter)":("[^"]*"|\d+)`)

// parts returns the header of a token and its payload, without what differs.
func parts(t *testing.T, text string) (header, payload string) {
	t.Helper()
	var all []string
	for _, part := range strings.SplitN(text, ".", 3)[:2] {
		data, err := base64.RawURLEncoding.DecodeString(part)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, unlike.ReplaceAllString(string(data), `"$1":…`))
	}
	return all[0], all[1]
}

// life returns how long a token lives, and after what time it warns.
func life(t *testing.T, text string) (whole, warn time.Duration) {
	t.Helper()
	u, err := token.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	if c := u.Claims; !c.WarnAfter.IsZero() {
		warn = c.WarnAfter.Sub(c.IssuedAt)
	}
	return u.Claims.Expires.Sub(u.Claims.IssuedAt), warn
}

func (k *saTokens) testSame(t *testing.T) {
	for _, kind := range boundKinds {
		for _, more := range [][]string{nil, {"--duration=90m", "--audience=vault", "--audience=<&>\u2028"}} {
			if more != nil && isHook(kind) {
				continue // these have one audience, and ten minutes
			}
			t.Run(fmt.Sprintf("bound to %s, %d flags", kind, len(more)), func(t *testing.T) {
				theirs := k.there(t, append(k.bound(kind, false), more...)...)
				ours := k.here(t, append(k.bound(kind, true), more...)...)
				wantHeader, want := parts(t, theirs.Token)
				header, got := parts(t, ours.Token)
				if header != wantHeader || got != want {
					t.Errorf("of kube-apiserver:\n%s %s\nof kubepki:\n%s %s", wantHeader, want, header, got)
				}
				if strings.Contains(theirs.talk, "was asked for") {
					t.Errorf("another life was asked for than the API gives: %s", theirs.talk)
				}
				wantLife, _ := life(t, theirs.Token)
				if got, _ := life(t, ours.Token); got != wantLife {
					t.Errorf("it lives for %s, of kube-apiserver for %s", got, wantLife)
				}
				if !isHook(kind) && more == nil {
					k.isUser(t, theirs, "")
				}
			})
		}
	}
	t.Run("bound to a pod, as kubelets ask for it", func(t *testing.T) {
		theirs := k.there(t, append(k.bound("Pod", false), "--duration=3607s")...)
		whole, warn := life(t, theirs.Token)
		if warn != 3607*time.Second || !strings.Contains(theirs.talk, "the API server gave more than was asked for") {
			t.Fatalf("it lives for %s and warns after %s: %s", whole, warn, theirs.talk)
		}
		ours := k.here(t, append(k.bound("Pod", true), "--warn-after=3607s", "--duration="+whole.String())...)
		_, want := parts(t, theirs.Token)
		if _, got := parts(t, ours.Token); got != want {
			t.Errorf("of kube-apiserver:\n%s\nof kubepki:\n%s", want, got)
		}
		if w, n := life(t, ours.Token); w != whole || n != warn {
			t.Errorf("it lives for %s and warns after %s", w, n)
		}
		k.isUser(t, ours, "")
	})
}

func (k *saTokens) testLives(t *testing.T) {
	made := k.there(t, "--duration=30h")
	if got, _ := life(t, made.Token); got != 4*time.Hour || !strings.Contains(made.talk, "the API server gave less than was asked for: the token ends at ") || strings.Contains(made.talk, "shortened") {
		t.Errorf("it lives for %s: %s", got, made.talk)
	}
	made = k.here(t, "--duration=30h") // the key knows no bounds
	if got, _ := life(t, made.Token); got != 30*time.Hour || !strings.Contains(made.talk, "warning: token of ci/robot: it lives for 30h: ") {
		t.Errorf("it lives for %s: %s", got, made.talk)
	}
	k.isUser(t, made, "")
	eventually(t, "the controller manager makes the service account default", func(ctx context.Context) error {
		_, err := k.api.CoreV1().ServiceAccounts("ci").Get(ctx, "default", metav1.GetOptions{})
		return err
	})
	for _, row := range []struct {
		flags []string
		want  string
	}{
		{[]string{"ci/nobody"}, "token of ci/nobody: there is no such service account"},
		{[]string{"ci/robot", "--bound-object-kind=Pod", "--bound-object-name=gone"}, `token of ci/robot: Pod "gone": there is none to bind the token to`},
		{[]string{"ci/robot", "--bound-object-kind=Node", "--bound-object-name=gone"}, `token of ci/robot: Node "gone": there is none to bind the token to`},
		{[]string{"ci/robot", "--bound-object-kind=Secret", "--bound-object-name=gone"}, `token of ci/robot: Secret "gone": there is none to bind the token to`},
		{[]string{"ci/robot", "--bound-object-kind=Pod", "--bound-object-name=a", "--bound-object-uid=other"}, "does not match the UID in record"},
		{[]string{"ci/robot", "--uid=other"}, "does not match the UID of the service account"},
		{[]string{"ci/default", "--bound-object-kind=Pod", "--bound-object-name=a"}, "cannot bind token for serviceaccount"},
	} {
		out, err := try(t, "kubepki", append([]string{"sa", "token", "--kubeconfig=" + k.conf}, row.flags...)...)
		if err == nil || !strings.Contains(out.stderr, row.want) || strings.Count(out.stderr, "error:") != 1 {
			t.Errorf("%v: want %q, got %s", row.flags, row.want, out.stderr)
		}
	}
	// Whoever may not is told what he lacks.
	limited := filepath.Join(k.dir, "limited.conf")
	run(t, "kubepki", "kubeconfig", "sa", "ci/robot", "--kubeconfig="+k.conf, "--file="+limited)
	out, err := try(t, "kubepki", "sa", "token", "ci/robot", "--kubeconfig="+limited)
	if err == nil || !strings.Contains(out.stderr, "is forbidden") || !strings.Contains(out.stderr, "hint: give yourself the right to create serviceaccounts/token in namespace ci") {
		t.Errorf("got %s", out.stderr)
	}
}

// legacyHere makes the Secret without the cluster.
func (k *saTokens) legacyHere(t *testing.T, name string, flags ...string) (manifest string, text string) {
	t.Helper()
	args := []string{"sa", "token", "ci/robot", "--root=" + k.path("cp1", ""), "--uid=" + k.uids["ServiceAccount"], "--secret-name=" + name}
	out := run(t, "kubepki", append(append(args, "--secret"), flags...)...).stdout
	return out, strings.TrimSpace(run(t, "kubepki", append(append(args, "--legacy"), flags...)...).stdout)
}

func (k *saTokens) apply(t *testing.T, manifest string) {
	t.Helper()
	file := write(t, filepath.Join(k.dir, "secret.yaml"), manifest)
	if out, err := kubectl(t, k.controlPlane, "apply", "--server-side", "-f", file); err != nil {
		t.Fatalf("%v\n%s", err, out.stderr)
	}
}

func (k *saTokens) testLegacy(t *testing.T) {
	secrets := k.api.CoreV1().Secrets("ci")
	manifest, text := k.legacyHere(t, "ours")
	k.isRefused(t, "a token whose Secret is not there", text, "")
	k.apply(t, manifest)
	made := madeToken{Token: text, User: token.User{Username: "system:serviceaccount:ci:robot", UID: k.uids["ServiceAccount"], Groups: []string{"system:serviceaccounts", "system:serviceaccounts:ci"}}}
	eventually(t, "the token is taken", func(context.Context) error {
		_, err := k.review(t, text, "") // its cache of Secrets may be behind
		return err
	})
	k.isUser(t, made, "")

	// The controller makes the same, byte for byte.
	theirs := run(t, "kubepki", "sa", "token", "ci/robot", "--kubeconfig="+k.conf, "--secret", "--secret-name=theirs")
	if !strings.Contains(theirs.stderr, "made Secret ci/theirs") {
		t.Errorf("it says %s", theirs.stderr)
	}
	want, _ := k.legacyHere(t, "theirs")
	if d := cmp.Diff(theirs.stdout, want); d != "" {
		t.Errorf("(-kube-controller-manager +kubepki):\n%s", d)
	}
	again := run(t, "kubepki", "sa", "token", "ci/robot", "--kubeconfig="+k.conf, "--legacy", "--secret-name=theirs")
	made.Token = strings.TrimSpace(again.stdout)
	k.isUser(t, made, "")
	if strings.Contains(again.stderr, "made Secret") {
		t.Errorf("it was made anew: %s", again.stderr)
	}
	// And leaves ours as it is: by now it has seen both.
	got, err := secrets.Get(t.Context(), "ours", metav1.GetOptions{})
	if err != nil || string(got.Data["token"]) != text || string(got.Data["ca.crt"]) != string(read(t, k.pki("ca.crt"))) || string(got.Data["namespace"]) != "ci" {
		t.Errorf("the Secret was changed: %v", err)
	}

	// One of another uid it removes, and another token of the same Secret the
	// API server refuses.
	stranger, _ := k.legacyHere(t, "stranger", "--uid=00000000-0000-4000-8000-000000000000")
	k.apply(t, stranger)
	eventually(t, "the Secret of another uid is removed", func(ctx context.Context) error {
		if _, err := secrets.Get(ctx, "stranger", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			return fmt.Errorf("it is there: %v", err)
		}
		return nil
	})
	if err := secrets.Delete(t.Context(), "ours", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the token dies with its Secret", func(context.Context) error { return k.refusal(t, text) })
}

// refusal is nil when a token is refused.
func (k *saTokens) refusal(t *testing.T, text string) error {
	t.Helper()
	if _, err := k.review(t, text, ""); !apierrors.IsUnauthorized(err) {
		return fmt.Errorf("it is taken: %v", err)
	}
	return nil
}

// inMount is what rest.InClusterConfig makes of a folder.
func (k *saTokens) inMount(t *testing.T, dir string) *rest.Config {
	t.Helper()
	return &rest.Config{
		Host: k.admin.Host, TLSClientConfig: rest.TLSClientConfig{CAFile: filepath.Join(dir, "ca.crt")},
		BearerToken: string(read(t, filepath.Join(dir, "token"))), BearerTokenFile: filepath.Join(dir, "token"), Timeout: k.admin.Timeout,
	}
}

func (k *saTokens) testMount(t *testing.T) {
	who := identity{"system:serviceaccount:ci:robot", []string{"system:authenticated", "system:serviceaccounts", "system:serviceaccounts:ci"}}
	dir, conf := filepath.Join(k.dir, "mount"), filepath.Join(k.dir, "mount.conf")
	sources := map[string][]string{
		"with the key":   {"--root=" + k.path("cp1", ""), "--uid=" + k.uids["ServiceAccount"]},
		"in the cluster": {"--kubeconfig=" + k.conf},
		"of a Secret":    {"--kubeconfig=" + k.conf, "--legacy"},
	}
	run(t, "kubepki", "kubeconfig", "sa", "ci/robot", "--kubeconfig="+k.conf, "--mount="+dir, "--file="+conf)
	for _, source := range slices.Sorted(maps.Keys(sources)) {
		run(t, "kubepki", append([]string{"sa", "token", "ci/robot", "--write-mount=" + dir}, sources[source]...)...)
		isIdentity(t, source, k.inMount(t, dir), who)
		// One kubeconfig for all of them: it names the folder.
		isIdentity(t, source+", by kubeconfig", restConfig(t, conf), who)
		out := run(t, "kubectl", "--kubeconfig="+conf, "auth", "whoami", "-o=jsonpath={.status.userInfo.username}")
		if out.stdout != who.User {
			t.Errorf("%s: kubectl is %s", source, out.stdout)
		}
		if got, want := string(read(t, filepath.Join(dir, "ca.crt"))), string(read(t, k.pki("ca.crt"))); got != want {
			t.Errorf("%s: ca.crt is\n%s", source, got)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 5 {
		t.Errorf("the folder holds %v, %v", entries, err)
	}
	// Whoever may make tokens and nothing else has the authorities of his kubeconfig.
	k.allowTokens(t)
	maker, made := filepath.Join(k.dir, "maker.conf"), filepath.Join(k.dir, "made")
	run(t, "kubepki", "kubeconfig", "sa", "ci/robot", "--kubeconfig="+k.conf, "--file="+maker)
	out := run(t, "kubepki", "sa", "token", "ci/robot", "--kubeconfig="+maker, "--write-mount="+made)
	if !strings.Contains(out.stderr, "warning: ConfigMap ci/kube-root-ca.crt: ") || !strings.Contains(out.stderr, "is forbidden") {
		t.Errorf("it says %s", out.stderr)
	}
	isIdentity(t, "with the authorities of a kubeconfig", k.inMount(t, made), who)
}

// allowTokens lets the service account make tokens of itself.
func (k *saTokens) allowTokens(t *testing.T) {
	t.Helper()
	named := metav1.ObjectMeta{Name: "tokens"}
	_, err := k.api.RbacV1().Roles("ci").Create(t.Context(), &rbacv1.Role{ObjectMeta: named, Rules: []rbacv1.PolicyRule{
		{Verbs: []string{"create"}, APIGroups: []string{""}, Resources: []string{"serviceaccounts/token"}},
	}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = k.api.RbacV1().RoleBindings("ci").Create(t.Context(), &rbacv1.RoleBinding{
		ObjectMeta: named, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "tokens"},
		Subjects: []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: "ci", Name: "robot"}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

func (k *saTokens) testKubeconfig(t *testing.T) {
	who := identity{"system:serviceaccount:ci:robot", []string{"system:authenticated", "system:serviceaccounts", "system:serviceaccounts:ci"}}
	for name, flags := range map[string][]string{
		"here":  {"--root=" + k.path("cp1", ""), "--uid=" + k.uids["ServiceAccount"]},
		"pod":   append(k.bound("Pod", true), "--root="+k.path("cp1", ""), "--uid="+k.uids["ServiceAccount"]),
		"there": {"--kubeconfig=" + k.conf},
		"key":   {"--key=" + k.pki("sa.key"), "--issuer=https://kubernetes.default.svc.cluster.local", "--uid=" + k.uids["ServiceAccount"], "--certificate-authority=" + k.pki("ca.crt"), "--server=https://" + apiEndpoint},
	} {
		conf := filepath.Join(k.dir, name+".conf")
		run(t, "kubepki", append([]string{"kubeconfig", "sa", "ci/robot", "--file=" + conf}, flags...)...)
		isIdentity(t, name, restConfig(t, conf), who)
		out := run(t, "kubectl", "--kubeconfig="+conf, "config", "view", "--minify", "-o=jsonpath={.contexts[0].context.namespace}")
		if out.stdout != "ci" {
			t.Errorf("%s: the namespace is %s", name, out.stdout)
		}
	}
}

// testDeleted is the last: it deletes what the others bind to.
func (k *saTokens) testDeleted(t *testing.T) {
	ctx, now := t.Context(), metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}
	made := map[string]string{}
	for _, kind := range []string{"Pod", "Node", "Secret"} {
		made[kind] = k.here(t, k.bound(kind, true)...).Token
	}
	unbound := k.here(t).Token
	for kind, remove := range map[string]func() error{
		"Pod":    func() error { return k.api.CoreV1().Pods("ci").Delete(ctx, "a", now) },
		"Node":   func() error { return k.api.CoreV1().Nodes().Delete(ctx, "a", now) },
		"Secret": func() error { return k.api.CoreV1().Secrets("ci").Delete(ctx, "a", now) },
	} {
		if err := remove(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "a token dies with its "+kind, func(context.Context) error { return k.refusal(t, made[kind]) })
		// Which cannot be seen without the cluster, as docs/sa-verify.md says.
		k.verified(t, made[kind], "--root="+k.path("cp1", ""))
	}
	if _, err := k.review(t, unbound, ""); err != nil {
		t.Errorf("the token that is bound to nothing: %v", err)
	}
	if err := k.api.CoreV1().ServiceAccounts("ci").Delete(ctx, "robot", now); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it dies with its account", func(context.Context) error { return k.refusal(t, unbound) })
}
