package main

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"

	"go.step.sm/crypto/kms/apiv1"
	// The libraries of the schemes register themselves; those of clouds are in
	// cloud.go.
	_ "go.step.sm/crypto/kms/pkcs11"
	_ "go.step.sm/crypto/kms/softkms"
	"go.step.sm/crypto/kms/uri"
)

// pinVariable is the environment variable that gives the PIN where a URI names
// no file.
const pinVariable = "KUBEPKI_KMS_PIN"

// schemes are those that URIs may have.
var schemes = []apiv1.Type{apiv1.PKCS11, apiv1.AmazonKMS, apiv1.CloudKMS, apiv1.AzureKMS, apiv1.SoftKMS}

// usageError is an error of the command line, which trying again does not mend.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// key is a key that may sign. It may be used by several goroutines.
type key struct {
	name   string
	scheme apiv1.Type
	signer crypto.Signer
	public []byte // SubjectPublicKeyInfo in DER
}

// keyring holds the keys, by name, and what they were opened with.
type keyring struct {
	keys     map[string]*key
	managers map[string]apiv1.KeyManager // by URI without the key
}

// openKeys opens every key, so that what is wrong shows at the start. Keys of
// one device share a session pool, and its PIN is tried once.
func openKeys(ctx context.Context, uris map[string]string) (*keyring, error) {
	r := &keyring{map[string]*key{}, map[string]apiv1.KeyManager{}}
	for name, raw := range uris {
		k, err := r.open(ctx, name, raw)
		if err != nil {
			r.close()
			return nil, fmt.Errorf("key %q: %w", name, err)
		}
		r.keys[name] = k
	}
	return r, nil
}

func (r *keyring) open(ctx context.Context, name, raw string) (*key, error) {
	u, err := parseURI(raw)
	if err != nil {
		return nil, err
	}
	pin, err := takePIN(u)
	if err != nil {
		return nil, err
	}
	scheme := apiv1.Type(strings.ToLower(u.Scheme))
	manager, err := r.manager(ctx, scheme, u, pin)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", u, err)
	}
	signer, err := manager.CreateSigner(&apiv1.CreateSignerRequest{SigningKey: u.String()})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", u, err)
	}
	public, err := x509.MarshalPKIXPublicKey(signer.Public())
	if err != nil {
		return nil, err
	}
	return &key{name, scheme, signer, public}, nil
}

func (r *keyring) manager(ctx context.Context, scheme apiv1.Type, u *uri.URI, pin string) (apiv1.KeyManager, error) {
	open, ok := apiv1.LoadKeyManagerNewFunc(scheme)
	if !ok {
		return nil, usagef("scheme %q is not built into this program", scheme)
	}
	device := withoutKey(scheme, u)
	if m, ok := r.managers[device]; ok {
		return m, nil
	}
	m, err := open(ctx, apiv1.Options{Type: scheme, URI: device, Pin: pin})
	if err != nil {
		return nil, err
	}
	r.managers[device] = m
	return m, nil
}

func (r *keyring) close() {
	for _, m := range r.managers {
		_ = m.Close() // the process ends
	}
}

// parseURI refuses secrets in a URI, which is an argument.
func parseURI(raw string) (*uri.URI, error) {
	u, err := uri.Parse(raw)
	if err != nil {
		return nil, usageError{errors.New("the URI does not parse")} // and may hold a secret
	}
	if !slices.Contains(schemes, apiv1.Type(strings.ToLower(u.Scheme))) {
		return nil, usagef("scheme %q is none of %s", u.Scheme, schemes)
	}
	for _, secret := range []string{"pin-value", "pin-prompt", "client-secret"} {
		if u.Has(secret) {
			return nil, usagef("the URI holds %s, which every user of the machine could read: name a file with pin-source, or use the environment", secret)
		}
	}
	return u, nil
}

// takePIN reads the PIN and removes from the URI where it is from.
func takePIN(u *uri.URI) (string, error) {
	path := u.Get("pin-source")
	if path == "" {
		return os.Getenv(pinVariable), nil
	}
	u.Values.Del("pin-source")
	q := u.Query()
	q.Del("pin-source")
	u.RawQuery = q.Encode()

	path = strings.TrimPrefix(path, "file:")
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("pin-source: %w", err)
	}
	if info.Mode().Perm()&0o007 != 0 || !info.Mode().IsRegular() || info.Size() > 4096 {
		return "", usagef("pin-source: %s: must be a small file that others cannot read (mode %s)", path, info.Mode().Perm())
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("pin-source: %w", err)
	}
	pin := strings.TrimSpace(string(data))
	if pin == "" {
		return "", usagef("pin-source: %s: is empty", path)
	}
	return pin, nil
}

// withoutKey returns the URI of the device alone, without what names a key in
// it. The other schemes take the whole.
func withoutKey(scheme apiv1.Type, u *uri.URI) string {
	if scheme != apiv1.PKCS11 {
		return u.String()
	}
	values := url.Values{}
	for k, v := range uri.Values(u) {
		if k != "id" && k != "object" && k != "type" {
			values[k] = v
		}
	}
	return uri.New(u.Scheme, values).String()
}

// isWrongPIN tells whether a device refused the PIN (CKR_PIN_INCORRECT and its
// kin, PKCS#11 section 5.1.6).
func isWrongPIN(err error) bool { return strings.Contains(err.Error(), "CKR_PIN_") }

// isLost tells whether the session with a device has ended or the device is
// gone (PKCS#11 sections 5.1.2 to 5.1.4). A module is only sure to work again
// in a new process.
func isLost(err error) bool {
	for _, code := range []string{
		"CKR_CRYPTOKI_NOT_INITIALIZED", "CKR_DEVICE_ERROR", "CKR_DEVICE_REMOVED", "CKR_FUNCTION_FAILED", "CKR_GENERAL_ERROR", "CKR_KEY_HANDLE_INVALID",
		"CKR_OBJECT_HANDLE_INVALID", "CKR_SESSION_CLOSED", "CKR_SESSION_HANDLE_INVALID", "CKR_TOKEN_NOT_PRESENT", "CKR_USER_NOT_LOGGED_IN",
	} {
		if strings.Contains(err.Error(), code) {
			return true
		}
	}
	return false
}
