package layout_test

import (
	"bytes"
	"crypto"
	"slices"
	"strings"
	"testing"

	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/trust"
)

type equaler interface{ Equal(crypto.PublicKey) bool }

func TestParseMaterialAcceptsWhatComponentsRead(t *testing.T) {
	ec, rsa, ed := ecPair(t), rsaPair(t), edPair(t)
	crlf := func(data []byte) []byte { return bytes.ReplaceAll(data, []byte("\n"), []byte("\r\n")) }
	parameters := block("EC PARAMETERS", []byte{6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7})
	for name, c := range map[string]struct {
		role               trust.Role
		data               []byte
		certificates, keys int
		private            crypto.Signer
	}{
		"a certificate":                          {trust.RoleCertificate, ec.certificate, 1, 0, nil},
		"a chain":                                {trust.RoleCertificate, slices.Concat(ec.certificate, rsa.certificate), 2, 0, nil},
		"a certificate with its key":             {trust.RoleCertificate, slices.Concat(ec.certificate, ec.sec1), 1, 1, ec.key},
		"text before a certificate":              {trust.RoleCertificate, slices.Concat([]byte("Certificate:\n  Data: x\n"), ec.certificate, []byte("end\n")), 1, 0, nil},
		"CRLF":                                   {trust.RoleAuthority, crlf(ec.certificate), 1, 0, nil},
		"an RSA key as PKCS#1":                   {trust.RoleKey, rsa.pkcs1, 0, 1, rsa.key},
		"an RSA key as PKCS#8":                   {trust.RoleKey, rsa.pkcs8, 0, 1, rsa.key},
		"an ECDSA key as SEC1":                   {trust.RoleKey, ec.sec1, 0, 1, ec.key},
		"an ECDSA key as PKCS#8":                 {trust.RoleKey, ec.pkcs8, 0, 1, ec.key},
		"an ECDSA key after its parameters":      {trust.RoleKey, slices.Concat(parameters, ec.sec1), 0, 1, ec.key},
		"an Ed25519 key":                         {trust.RoleKey, ed.pkcs8, 0, 1, ed.key},
		"a key with CRLF":                        {trust.RoleKey, crlf(ec.sec1), 0, 1, ec.key},
		"a bundle":                               {trust.RoleBundle, slices.Concat(ec.certificate, rsa.certificate), 2, 0, nil},
		"certificate and key in one file":        {trust.RoleCombined, slices.Concat(ec.certificate, ec.sec1), 1, 1, ec.key},
		"key before certificate":                 {trust.RoleCombined, slices.Concat(ec.sec1, ec.certificate), 1, 1, ec.key},
		"a public key":                           {trust.RoleVerifyKeys, ec.public, 0, 1, nil},
		"an RSA public key":                      {trust.RoleVerifyKeys, rsa.rsaPublic, 0, 1, nil},
		"a private key that verifies":            {trust.RoleVerifyKeys, rsa.pkcs1, 0, 1, rsa.key},
		"a certificate that verifies":            {trust.RoleVerifyKeys, ec.certificate, 1, 1, nil},
		"several keys that verify, of all kinds": {trust.RoleVerifyKeys, slices.Concat(rsa.public, ec.public, rsa.pkcs1, ec.sec1), 0, 4, rsa.key},
	} {
		t.Run(name, func(t *testing.T) {
			at := trust.Place{Node: "cp1", Path: "/x"}
			m, key := layout.ParseMaterial(at, c.role, c.data)
			if m.State != trust.Present || m.Place != at || m.Role != c.role {
				t.Fatalf("%s %s: %s", m.Role, m.State, m.Reason)
			}
			if len(m.Certificates) != c.certificates || len(m.Keys) != c.keys || m.HasPrivateKey != (c.private != nil) {
				t.Errorf("%d certificates, %d keys, private: %v", len(m.Certificates), len(m.Keys), m.HasPrivateKey)
			}
			if (key != nil) != (c.private != nil) || key != nil && !key.Public().(equaler).Equal(c.private.Public()) {
				t.Error("another private key")
			}
			for _, k := range m.Keys {
				if _, private := k.(crypto.Signer); private {
					t.Error("a private key is in the material")
				}
			}
		})
	}
}

func TestParseMaterialRefusesWithTheLine(t *testing.T) {
	ec := ecPair(t)
	trailing := func(kind string, text []byte) []byte { return block(kind, append(derOf(text), 0, 0, 0)) }
	encrypted := bytes.Replace(ec.sec1, []byte("KEY-----\n"), []byte("KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\n"), 1)
	for name, c := range map[string]struct {
		role trust.Role
		data []byte
		want string
	}{
		"an empty file":                       {trust.RoleKey, nil, "no PEM block"},
		"junk":                                {trust.RoleBundle, []byte("hello\n\x00\xff"), "no PEM block"},
		"a certificate as key":                {trust.RoleKey, ec.certificate, "no private key"},
		"a key as certificate":                {trust.RoleCertificate, ec.sec1, "no certificate"},
		"a public key as key":                 {trust.RoleKey, ec.public, "line 1: PUBLIC KEY block"},
		"a request as certificate":            {trust.RoleCertificate, block("CERTIFICATE REQUEST", derOf(ec.certificate)), "line 1: CERTIFICATE REQUEST block"},
		"a key in a bundle":                   {trust.RoleBundle, slices.Concat(ec.sec1, ec.certificate), "line 1: EC PRIVATE KEY block"},
		"a block without end":                 {trust.RoleCertificate, ec.certificate[:len(ec.certificate)-30], "line 1: CERTIFICATE block"},
		"base64 that is none":                 {trust.RoleCertificate, bytes.Replace(ec.certificate, []byte("MII"), []byte("M!!"), 1), "line 1: CERTIFICATE block"},
		"a certificate that is none":          {trust.RoleCertificate, block("CERTIFICATE", []byte{0x30, 0}), "line 1: the certificate does not parse"},
		"data after a certificate's DER":      {trust.RoleCertificate, trailing("CERTIFICATE", ec.certificate), "line 1: CERTIFICATE block has 3 bytes after its DER"},
		"data after a SEC1 key's DER":         {trust.RoleKey, trailing("EC PRIVATE KEY", ec.sec1), "line 1: EC PRIVATE KEY block has 3 bytes after its DER"},
		"data after a PKCS#8 key's DER":       {trust.RoleKey, trailing("PRIVATE KEY", ec.pkcs8), "line 1: PRIVATE KEY block has 3 bytes after its DER"},
		"an encrypted key":                    {trust.RoleKey, encrypted, "encrypted"},
		"a combined file without certificate": {trust.RoleCombined, ec.sec1, "no certificate and private key"},
		"a combined file without key":         {trust.RoleCombined, ec.certificate, "no certificate and private key"},
		"a DSA key":                           {trust.RoleKey, block("DSA PRIVATE KEY", derOf(ec.sec1)), "line 1"},
		"a role without PEM":                  {"kubeconfig", ec.certificate, "holds no PEM"},
		"more than a mebibyte":                {trust.RoleBundle, bytes.Repeat([]byte("x"), layout.MaxFile+1), "larger than"},
	} {
		t.Run(name, func(t *testing.T) {
			m, key := layout.ParseMaterial(trust.Place{Path: "/x"}, c.role, c.data)
			if m.State != trust.Malformed || !strings.Contains(m.Reason, c.want) {
				t.Errorf("%s: %q, want %q", m.State, m.Reason, c.want)
			}
			if key != nil || m.HasPrivateKey || m.Certificates != nil || m.Keys != nil {
				t.Error("a malformed material holds something")
			}
			if strings.Contains(m.Reason, "\n") {
				t.Error("the reason has several lines")
			}
		})
	}
}

func FuzzParseMaterial(f *testing.F) {
	ec := ecPair(f)
	roles := []trust.Role{trust.RoleCertificate, trust.RoleKey, trust.RoleBundle, trust.RoleAuthority, trust.RoleVerifyKeys, trust.RoleCombined}
	for i, data := range [][]byte{ec.certificate, ec.sec1, ec.certificate, ec.certificate, ec.public, slices.Concat(ec.certificate, ec.pkcs8)} {
		f.Add(data, uint8(i))
	}
	f.Fuzz(func(t *testing.T, data []byte, n uint8) {
		role := roles[int(n)%len(roles)]
		m, key := layout.ParseMaterial(trust.Place{Path: "/x"}, role, data)
		if m.State != trust.Present {
			if m.Reason == "" || key != nil {
				t.Fatalf("%s without a reason, or with a key", m.State)
			}
			return
		}
		// What was read, encoded again, must read the same.
		text := trust.EncodeCertificates(m.Certificates...)
		again, _ := layout.ParseMaterial(m.Place, trust.RoleCertificate, text)
		if len(m.Certificates) > 0 && (again.State != trust.Present || len(again.Certificates) != len(m.Certificates)) {
			t.Fatalf("%d certificates read back as %d: %s", len(m.Certificates), len(again.Certificates), again.Reason)
		}
		for i := range m.Certificates {
			if !bytes.Equal(m.Certificates[i].Raw, again.Certificates[i].Raw) {
				t.Fatal("another certificate was read back")
			}
		}
		if (key != nil) != m.HasPrivateKey {
			t.Fatalf("HasPrivateKey is %v", m.HasPrivateKey)
		}
	})
}
