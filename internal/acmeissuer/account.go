package acmeissuer

import (
	"cmp"
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"time"

	cmacme "github.com/cert-manager/cert-manager/pkg/apis/acme/v1"
	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	"github.com/mholt/acmez/v3/acme"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"github.com/kubepki/kubepki/internal/issue"
)

// The reasons of the condition Ready, as cert-manager has them.
const (
	registered         = "ACMEAccountRegistered"
	registrationFailed = "ErrRegisterACMEAccount"
	verificationFailed = "ErrVerifyACMEAccount"
	updateFailed       = "ErrUpdateACMEAccount"
	invalidConfig      = "InvalidConfig"
	invalidURL         = "InvalidURL"
	invalidSolver      = "InvalidSolver"
)

// reopenAfter is how long a session lives, after which the directory is read again.
const reopenAfter = time.Hour

// Accounts registers the accounts of issuers, and speaks for them. It is safe for
// concurrent use.
type Accounts struct {
	Kube kubernetes.Interface
	// ClusterNamespace is where the Secrets of ClusterIssuers are.
	ClusterNamespace string
	// UserAgent stands before the library's own.
	UserAgent string
	Log       *slog.Logger
	Now       func() time.Time

	mu       sync.Mutex
	sessions map[types.UID]*session
	// doubted are issuers whose account the server has disowned.
	doubted map[types.UID]bool
}

// Standing is how an issuer stands with its server: what its status shall hold.
type Standing struct {
	Status cmacme.ACMEIssuerStatus
	// Condition is Ready, without the time of its last change.
	Condition cmapi.IssuerCondition
	// Warnings tell what of the issuer this controller does otherwise, or not at all.
	Warnings []string
}

// refusal is why an issuer is not ready. One with again passes by itself.
type refusal struct {
	reason, message string
	again           bool
}

// Verify registers the account of an issuer, or finds that it is registered: without
// a word to the server where the issuer is as it was when its Ready condition was
// written. Call it when an issuer changes, and when a Secret changes that it names.
// An error says that the same call may succeed later; the standing is to be written
// all the same. The issuer is not changed.
func (a *Accounts) Verify(ctx context.Context, issuer cmapi.GenericIssuer) (Standing, error) {
	config := issuer.GetSpec().ACME
	if config == nil {
		return Standing{}, errors.New("the issuer has no spec.acme")
	}
	s := Standing{Warnings: warningsOf(config), Condition: cmapi.IssuerCondition{
		Type: cmapi.IssuerConditionReady, Status: cmmeta.ConditionTrue, Reason: registered,
		Message: "The ACME account was registered with the ACME server", ObservedGeneration: issuer.GetGeneration(),
	}}
	if old := issuer.GetStatus().ACME; old != nil {
		s.Status = *old
	}
	r := a.verify(ctx, issuer, &s.Status)
	if r == nil {
		if config.SkipTLSVerify {
			s.Condition.Message += ". INSECURE: spec.acme.skipTLSVerify is set, so that anybody on the way may stand in for the server: use spec.acme.caBundle"
		}
		return s, nil
	}
	s.Condition.Status, s.Condition.Reason, s.Condition.Message = cmmeta.ConditionFalse, r.reason, bounded(r.message)
	a.forget(issuer.GetUID())
	if r.again {
		return s, errors.New(r.message)
	}
	return s, nil
}

func (a *Accounts) verify(ctx context.Context, issuer cmapi.GenericIssuer, status *cmacme.ACMEIssuerStatus) *refusal {
	config := issuer.GetSpec().ACME
	if r := checkConfig(config); r != nil {
		return r
	}
	key, made, r := a.key(ctx, issuer)
	if r != nil {
		return r
	}
	if made {
		status.URI = ""
	}
	if r := a.checkSolverSecrets(ctx, issuer); r != nil {
		return r
	}
	hash := hashOf(key)
	if status.URI != "" && isReady(issuer) && !a.doubts(issuer.GetUID()) && status.LastPrivateKeyHash == hash && status.LastRegisteredEmail == config.Email && sameHost(status.URI, config.Server) {
		return nil
	}
	a.forget(issuer.GetUID())
	opened, err := open(ctx, config, key, a.UserAgent, a.Now())
	if err != nil {
		a.log("ACME server", issuer, err)
		return &refusal{registrationFailed, "Failed to register ACME account: " + say(err), !lasting(err)}
	}
	if r := a.register(ctx, opened, issuer); r != nil {
		return r
	}
	status.URI, status.LastRegisteredEmail, status.LastPrivateKeyHash = opened.account.Location, config.Email, hash
	a.remember(issuer.GetUID(), opened)
	return nil
}

// register makes the account, or finds it by its key, and brings its contact up to
// date.
func (a *Accounts) register(ctx context.Context, s *session, issuer cmapi.GenericIssuer) *refusal {
	config := issuer.GetSpec().ACME
	asked := acme.Account{PrivateKey: s.account.PrivateKey, TermsOfServiceAgreed: true, Contact: contactOf(config.Email)}
	if eab := config.ExternalAccountBinding; eab != nil {
		mac, err := a.macKey(ctx, a.namespaceOf(issuer), eab.Key)
		if err != nil {
			return &refusal{registrationFailed, "Failed to register ACME account: " + err.Error(), !isTold(err)}
		}
		if err := asked.SetExternalAccountBinding(ctx, s.client, acme.EAB{KeyID: eab.KeyID, MACKey: mac}); err != nil {
			return &refusal{registrationFailed, "Failed to register ACME account: externalAccountBinding: " + say(err), true}
		}
	}
	got, err := s.client.NewAccount(ctx, asked)
	if err != nil {
		a.log("registration", issuer, err)
		return &refusal{registrationFailed, "Failed to register ACME account: " + say(err), !lasting(err)}
	}
	if u, err := url.Parse(got.Location); err != nil || u.Scheme != "https" {
		return &refusal{registrationFailed, "Failed to register ACME account: the server gave no URL of the account", true}
	}
	if got.Status != "" && got.Status != acme.StatusValid {
		return &refusal{verificationFailed, fmt.Sprintf("Failed to verify ACME account: it is %.40q: remove the Secret %s for a new one", got.Status, config.PrivateKey.Name), false}
	}
	s.account.Location = got.Location
	if contact := contactOf(config.Email); len(contact) > 0 && (len(got.Contact) != 1 || got.Contact[0] != contact[0]) {
		if _, err := s.client.UpdateAccount(ctx, acme.Account{PrivateKey: s.account.PrivateKey, Location: got.Location, Contact: contact}); err != nil {
			a.log("contact", issuer, err)
			return &refusal{updateFailed, "Failed to update ACME account: " + say(err), !lasting(err)}
		}
	}
	return nil
}

// sessionFor returns what speaks for a ready issuer.
func (a *Accounts) sessionFor(ctx context.Context, issuer cmapi.GenericIssuer) (*session, error) {
	config, status := issuer.GetSpec().ACME, issuer.GetStatus().ACME
	if !isReady(issuer) || status == nil || status.URI == "" || a.doubts(issuer.GetUID()) {
		return nil, errNotReady
	}
	a.mu.Lock()
	s := a.sessions[issuer.GetUID()]
	a.mu.Unlock()
	if s != nil && s.account.Location == status.URI && s.settings == settingsOf(config) && a.Now().Sub(s.opened) < reopenAfter {
		return s, nil
	}
	key, err := a.readKey(ctx, a.namespaceOf(issuer), config.PrivateKey)
	if err != nil {
		return nil, err
	}
	if hashOf(key) != status.LastPrivateKeyHash {
		return nil, errNotReady
	}
	if s, err = open(ctx, config, key, a.UserAgent, a.Now()); err != nil {
		return nil, err
	}
	s.account.Location = status.URI
	a.remember(issuer.GetUID(), s)
	return s, nil
}

// errNotReady says that an issuer has to be verified before it is asked.
var errNotReady = told("the account of the issuer is not registered yet")

// Forget drops what is kept of an issuer that is gone.
func (a *Accounts) Forget(issuer types.UID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.sessions, issuer)
	delete(a.doubted, issuer)
}

func (a *Accounts) forget(uid types.UID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.sessions, uid)
}

// distrust makes the next Verify ask the server, whatever the issuer's status says.
func (a *Accounts) distrust(uid types.UID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.sessions, uid)
	if a.doubted == nil {
		a.doubted = make(map[types.UID]bool)
	}
	a.doubted[uid] = true
}

func (a *Accounts) doubts(uid types.UID) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.doubted[uid]
}

func (a *Accounts) remember(uid types.UID, s *session) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.sessions == nil {
		a.sessions = make(map[types.UID]*session)
	}
	a.sessions[uid] = s
	delete(a.doubted, uid)
}

func (a *Accounts) log(what string, issuer cmapi.GenericIssuer, err error) {
	if a.Log != nil {
		a.Log.Warn("acme: "+what, "issuer", issuer.GetName(), "namespace", issuer.GetNamespace(), "error", bounded(err.Error()))
	}
}

// namespaceOf is where the Secrets are that an issuer names.
func (a *Accounts) namespaceOf(issuer cmapi.GenericIssuer) string {
	return cmp.Or(issuer.GetNamespace(), a.ClusterNamespace)
}

// secretNamespace is the same, for the issuer that an object in a namespace refers to.
func (a *Accounts) secretNamespace(ref cmmeta.IssuerReference, namespace string) string {
	if kindOf(ref) == cmapi.ClusterIssuerKind {
		return a.ClusterNamespace
	}
	return namespace
}

// key returns the key of an issuer's account, which is made where it may be.
func (a *Accounts) key(ctx context.Context, issuer cmapi.GenericIssuer) (key crypto.Signer, made bool, r *refusal) {
	config, namespace := issuer.GetSpec().ACME, a.namespaceOf(issuer)
	key, err := a.readKey(ctx, namespace, config.PrivateKey)
	switch {
	case err == nil:
		return key, false, nil
	case isTold(err):
		return nil, false, &refusal{verificationFailed, "Account private key is invalid: " + err.Error(), false}
	case !apierrors.IsNotFound(err):
		return nil, false, &refusal{verificationFailed, "Failed to verify ACME account: " + err.Error(), true}
	case config.DisableAccountKeyGeneration:
		return nil, false, &refusal{verificationFailed, "Failed to verify ACME account: the ACME issuer config has 'disableAccountKeyGeneration' set to true, but the secret was not found: " + err.Error(), true}
	}
	if key, err = a.makeKey(ctx, namespace, config.PrivateKey); err != nil {
		return nil, false, &refusal{registrationFailed, "Failed to register ACME account: " + err.Error(), true}
	}
	return key, true, nil
}

func (a *Accounts) readKey(ctx context.Context, namespace string, ref cmmeta.SecretKeySelector) (crypto.Signer, error) {
	data, err := a.secret(ctx, namespace, ref.Name, keyField(ref))
	if err != nil {
		return nil, err
	}
	key, err := issue.ParsePrivateKey(data)
	if err != nil {
		return nil, told(fmt.Sprintf("Secret %s/%s: %s: %v", namespace, ref.Name, keyField(ref), err))
	}
	return key, nil
}

// makeKey makes an account's key and its Secret. cert-manager takes RSA alone, and
// may have to read it.
func (a *Accounts) makeKey(ctx context.Context, namespace string, ref cmmeta.SecretKeySelector) (crypto.Signer, error) {
	key, err := issue.GenerateKey(issue.RSA2048)
	if err != nil {
		return nil, err
	}
	text, err := issue.EncodePrivateKey(key)
	if err != nil {
		return nil, err
	}
	_, err = a.Kube.CoreV1().Secrets(namespace).Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: ref.Name, Namespace: namespace, Labels: map[string]string{"app.kubernetes.io/managed-by": "cert-manager"}},
		Data:       map[string][]byte{keyField(ref): text},
	}, metav1.CreateOptions{FieldManager: fieldManager})
	if err != nil {
		return nil, err
	}
	return key, nil
}

func keyField(ref cmmeta.SecretKeySelector) string { return cmp.Or(ref.Key, corev1.TLSPrivateKeyKey) }

// macKey reads the key of an external account, in the form in which RFC 8555 section
// 7.3.4 has it. Servers hand it out in other forms of base64 too.
func (a *Accounts) macKey(ctx context.Context, namespace string, ref cmmeta.SecretKeySelector) (string, error) {
	data, err := a.secret(ctx, namespace, ref.Name, ref.Key)
	if apierrors.IsNotFound(err) {
		return "", told(err.Error())
	}
	if err != nil {
		return "", err
	}
	text := strings.TrimRight(strings.NewReplacer("+", "-", "/", "_").Replace(strings.TrimSpace(string(data))), "=")
	if decoded, err := base64.RawURLEncoding.DecodeString(text); err != nil || len(decoded) == 0 {
		return "", told(fmt.Sprintf("Secret %s/%s: %s: the key of the external account is not base64", namespace, ref.Name, ref.Key))
	}
	return text, nil
}

// secret reads one entry of a Secret.
func (a *Accounts) secret(ctx context.Context, namespace, name, field string) ([]byte, error) {
	s, err := a.Kube.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	data, ok := s.Data[field]
	if !ok {
		return nil, told(fmt.Sprintf("Secret %s/%s has no entry %q", namespace, name, field))
	}
	return data, nil
}

func isTold(err error) bool {
	var t told
	return errors.As(err, &t)
}

// hashOf sums up a key as status.acme.lastPrivateKeyHash does.
func hashOf(key crypto.Signer) string {
	var der []byte
	if k, ok := key.(*rsa.PrivateKey); ok {
		der = x509.MarshalPKCS1PrivateKey(k)
	} else if der, _ = x509.MarshalPKCS8PrivateKey(key); der == nil {
		return ""
	}
	sum := sha256.Sum256(der)
	return base64.StdEncoding.EncodeToString(sum[:])
}

func contactOf(email string) []string {
	if email == "" {
		return nil
	}
	return []string{"mailto:" + strings.ToLower(email)}
}

// isReady tells whether an issuer is ready as it stands. cert-manager compares the
// hosts of server and account instead, and so misses a new path on the same host.
func isReady(issuer cmapi.GenericIssuer) bool {
	for _, c := range issuer.GetStatus().Conditions {
		if c.Type == cmapi.IssuerConditionReady {
			return c.Status == cmmeta.ConditionTrue && c.ObservedGeneration == issuer.GetGeneration()
		}
	}
	return false
}

// sameHost tells whether two URLs are of one server.
func sameHost(a, b string) bool {
	x, err := url.Parse(a)
	y, err2 := url.Parse(b)
	return err == nil && err2 == nil && x.Host == y.Host
}
