package bootstrap

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"strings"

	"k8s.io/cluster-bootstrap/token/api"
	"k8s.io/cluster-bootstrap/token/util"
)

// Token is a bootstrap token: a public id of 6 and a secret of 16 characters
// of a-z and 0-9, written ID.SECRET (k8s.io/cluster-bootstrap/token/api
// BootstrapTokenPattern). Formatting it in any way shows the id alone.
type Token struct {
	id, secret string
}

// errTokenForm does not repeat the text: it may be a token with a typing error.
var errTokenForm = errors.New("is not of the form [a-z0-9]{6}.[a-z0-9]{16}")

// ParseToken reads ID.SECRET. The error does not repeat the text.
func ParseToken(text string) (Token, error) {
	if !util.IsValidBootstrapToken(text) {
		return Token{}, errTokenForm
	}
	id, secret, _ := strings.Cut(text, ".")
	return Token{id, secret}, nil
}

// GenerateToken makes a token from crypto/rand, as kubeadm does.
func GenerateToken() (Token, error) {
	text, err := util.GenerateBootstrapToken()
	if err != nil {
		return Token{}, fmt.Errorf("making a bootstrap token: %w", err)
	}
	return ParseToken(text)
}

// IsTokenID tells whether a text is the id of a token, which is no secret.
func IsTokenID(text string) bool { return util.IsValidBootstrapTokenID(text) }

// SecretName is the name of the Secret in kube-system that holds the token of
// an id.
func SecretName(id string) string { return util.BootstrapTokenSecretName(id) }

// ID is the public part.
func (t Token) ID() string { return t.id }

// IsZero tells whether there is no token.
func (t Token) IsZero() bool { return t.id == "" }

// Reveal returns ID.SECRET. It is for the answer of a command, the wire and
// the file that the token is for, never for an error or a log.
func (t Token) Reveal() string { return util.TokenFromIDAndSecret(t.id, t.secret) }

// Equal compares in a time that does not depend on the secrets.
func (t Token) Equal(other Token) bool {
	return t.id == other.id && subtle.ConstantTimeCompare([]byte(t.secret), []byte(other.secret)) == 1
}

// Published tells whether the token is one that documentation uses as its
// example, so that everybody knows it.
func (t Token) Published() bool {
	return t.id == "abcdef" && (t.secret == "0123456789abcdef" || t.secret == "abcdef0123456789")
}

// KubeconfigUser is the name that kubeadm join gives to the token's user in
// bootstrap-kubelet.conf (cmd/kubeadm/app/discovery).
const KubeconfigUser = "tls-bootstrap-token-user"

// User is the name that the API server knows the token's bearer by.
func (t Token) User() string { return api.BootstrapUserPrefix + t.id }

// String returns the id with the secret struck out.
func (t Token) String() string {
	return t.id + "." + strings.Repeat("*", api.BootstrapTokenSecretBytes)
}

// Format keeps the secret out of every verb of package fmt, %#v among them.
func (t Token) Format(s fmt.State, _ rune) { _, _ = io.WriteString(s, t.String()) }
