package token_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/tokentest"
	"github.com/kubepki/kubepki/token"
)

func publicOf(t testing.TB, name string) token.Key {
	t.Helper()
	k, err := token.NewKey(tokentest.Key(name).Public())
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func pemOf(t testing.TB, name string) []byte {
	t.Helper()
	data, err := issue.EncodePublicKey(tokentest.Key(name).Public())
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func jwk(t testing.TB, j jose.JSONWebKey) string {
	t.Helper()
	data, err := json.Marshal(j)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// What files of keys look like in the field, and what is in them.
func TestParseKeys(t *testing.T) {
	rsaPEM, ecPEM := pemOf(t, tokentest.RSA), pemOf(t, tokentest.P256)
	private, err := issue.EncodePrivateKey(tokentest.Key(tokentest.P384))
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(tokentest.Key(tokentest.P521))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, tokentest.Key(tokentest.RSA).Public(), tokentest.Key(tokentest.RSA))
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string, der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}) }
	set := func(all ...string) []byte { return []byte(`{"keys":[` + strings.Join(all, ",") + `]}`) }
	good := jwk(t, jose.JSONWebKey{Key: tokentest.Key(tokentest.RSA).Public(), KeyID: "own-id", Algorithm: "RS256", Use: "sig"})
	for name, row := range map[string]struct {
		data []byte
		want []string // algorithms; none: an error
		id   string   // of the first
		err  string
	}{
		"one public key":                   {rsaPEM, []string{"RS256"}, publicOf(t, tokentest.RSA).ID, ""},
		"several":                          {bytes.Join([][]byte{rsaPEM, ecPEM}, nil), []string{"RS256", "ES256"}, "", ""},
		"text around them, and CRLF":       {append([]byte("# keys\r\n"), bytes.ReplaceAll(rsaPEM, []byte("\n"), []byte("\r\n"))...), []string{"RS256"}, "", ""},
		"a private key of SEC 1":           {private, []string{"ES384"}, publicOf(t, tokentest.P384).ID, ""},
		"a private key of PKCS #8":         {block("PRIVATE KEY", pkcs8), []string{"ES512"}, "", ""},
		"a public key of PKCS #1":          {block("RSA PUBLIC KEY", x509.MarshalPKCS1PublicKey(tokentest.Key(tokentest.RSA).Public().(*rsa.PublicKey))), []string{"RS256"}, "", ""},
		"a certificate":                    {block("CERTIFICATE", certificate), []string{"RS256"}, publicOf(t, tokentest.RSA).ID, ""},
		"parameters before an EC key":      {append(block("EC PARAMETERS", []byte{6, 8, 42, 134, 72, 206, 61, 3, 1, 7}), ecPEM...), []string{"ES256"}, "", ""},
		"nothing":                          {nil, nil, "", "no PEM block"},
		"no PEM":                           {[]byte("hello"), nil, "", "no PEM block"},
		"a block without an end":           {rsaPEM[:len(rsaPEM)-20], nil, "", "no end"},
		"a weak key":                       {pemOf(t, tokentest.Weak), nil, "", "line 1: an RSA key of 1024 bits: use 2048 to 4096"},
		"a weak key after a good one":      {append(append([]byte{}, rsaPEM...), pemOf(t, tokentest.Weak)...), nil, "", "1024"},
		"a key of another kind":            {pemOf(t, tokentest.Ed25519), nil, "", "RSA or ECDSA"},
		"a request for a certificate":      {block("CERTIFICATE REQUEST", []byte("x")), nil, "", "where a PUBLIC KEY is expected"},
		"a set":                            {set(good), []string{"RS256"}, "own-id", ""},
		"a single key of a set":            {[]byte(good), []string{"RS256"}, "own-id", ""},
		"a set with a key without id":      {set(jwk(t, jose.JSONWebKey{Key: tokentest.Key(tokentest.P256).Public()})), []string{"ES256"}, publicOf(t, tokentest.P256).ID, ""},
		"a set of private keys":            {set(jwk(t, jose.JSONWebKey{Key: tokentest.Key(tokentest.P256), KeyID: "p"})), []string{"ES256"}, "p", ""},
		"a set with a key for encryption":  {set(jwk(t, jose.JSONWebKey{Key: tokentest.Key(tokentest.P256).Public(), Use: "enc"}), good), []string{"RS256"}, "own-id", ""},
		"a set with a key for PS256":       {set(jwk(t, jose.JSONWebKey{Key: tokentest.Key(tokentest.RSA).Public(), Algorithm: "PS256"}), good), []string{"RS256"}, "own-id", ""},
		"a set with a key of another kind": {set(jwk(t, jose.JSONWebKey{Key: tokentest.Key(tokentest.Ed25519).Public()}), `{"kty":"new"}`, `{"kty":"oct","k":"c2VjcmV0"}`, good), []string{"RS256"}, "own-id", ""},
		"a set with a broken key":          {set(`{"kty":"EC","crv":"P-256","x":"AA","y":"AA"}`, good), []string{"RS256"}, "own-id", ""},
		"a set with none of use":           {set(`{"kty":"oct","k":"c2VjcmV0"}`), nil, "", "none of the 1 keys"},
		"an empty set":                     {[]byte(`{"keys":[]}`), nil, "", "none of the 0 keys"},
		"a set and a key at once":          {[]byte(`{"kty":"RSA","keys":[]}`), nil, "", "at once"},
		"a key for other operations":       {set(strings.Replace(good, "{", `{"key_ops":["sign"],`, 1)), nil, "", "none of the 1 keys"},
		"a key for this operation too":     {set(strings.Replace(good, "{", `{"key_ops":["sign","verify"],`, 1)), []string{"RS256"}, "own-id", ""},
		"another JSON":                     {[]byte(`{"a":1}`), nil, "", "no keys"},
		"a set with keys twice":            {[]byte(`{"keys":[],"keys":[` + good + `]}`), nil, "", "twice"},
		"a set that ends too early":        {[]byte(`{"keys":[`), nil, "", "syntax"},
		"a set that is nested deeply":      {[]byte(`{"keys":` + strings.Repeat("[", 100)), nil, "", "nested deeper"},
		"a set of more than a megabyte":    {[]byte(`{"keys":[],"x":"` + strings.Repeat("x", 1<<20) + `"}`), nil, "", "larger than"},
		"an id of more than 1024 bytes":    {set(jwk(t, jose.JSONWebKey{Key: tokentest.Key(tokentest.RSA).Public(), KeyID: strings.Repeat("x", 1025)})), nil, "", "none of the 1 keys"},
	} {
		t.Run(name, func(t *testing.T) {
			keys, err := token.ParseKeys(row.data)
			if len(row.want) == 0 {
				if err == nil || !strings.Contains(err.Error(), row.err) {
					t.Fatalf("%v, want %q", err, row.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, k := range keys {
				got = append(got, k.Algorithm())
			}
			if strings.Join(got, " ") != strings.Join(row.want, " ") || row.id != "" && keys[0].ID != row.id {
				t.Errorf("%q, first %q; want %q, first %q", got, keys[0].ID, row.want, row.id)
			}
		})
	}
}

// What is published can be read again, however many keys it has.
func TestManyKeys(t *testing.T) {
	var keys []token.Key
	for i := range 1000 {
		k := publicOf(t, tokentest.P256)
		k.ID = fmt.Sprint("key-", i)
		keys = append(keys, k)
	}
	set, err := token.NewKeySet(keys...)
	if err != nil {
		t.Fatal(err)
	}
	data, err := set.JWKS()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := token.ParseKeys(data); err != nil || len(again) != 1000 {
		t.Errorf("%d keys, %v", len(again), err)
	}
}

func TestKeySets(t *testing.T) {
	a, b := publicOf(t, tokentest.RSA), publicOf(t, tokentest.P256)
	set, err := token.NewKeySet(a, b, a)
	if err != nil || len(set.All()) != 2 || !set.Has(a.ID) || set.Has("x") {
		t.Errorf("%v, %v", set.All(), err)
	}
	if _, err := token.NewKeySet(); !errors.Is(err, token.ErrNoKeys) {
		t.Errorf("an empty set: %v", err)
	}
	for name, bad := range map[string]token.Key{
		"no id":        {Public: a.Public},
		"a long id":    {ID: strings.Repeat("x", 1025), Public: a.Public},
		"no key":       {ID: "x"},
		"a small key":  {ID: "x", Public: tokentest.Key(tokentest.Weak).Public()},
		"a low one":    {ID: "x", Public: &rsa.PublicKey{N: tokentest.Key(tokentest.RSA).Public().(*rsa.PublicKey).N, E: 3}},
		"an even one":  {ID: "x", Public: &rsa.PublicKey{N: tokentest.Key(tokentest.RSA).Public().(*rsa.PublicKey).N, E: 65538}},
		"a large one":  {ID: "x", Public: &rsa.PublicKey{N: tokentest.Key(tokentest.RSA).Public().(*rsa.PublicKey).N, E: 1<<31 + 1}},
		"another kind": {ID: "x", Public: tokentest.Key(tokentest.Ed25519).Public()},
	} {
		if _, err := token.NewKeySet(a, bad); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := token.NewKey(p224.Public()); err == nil || !strings.Contains(err.Error(), "P-224") {
		t.Errorf("P-224: %v", err)
	}
}
