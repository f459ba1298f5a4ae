package main

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/report"
	"github.com/kubepki/kubepki/internal/trust"
)

// What is looked at of what came back.
const (
	maxReturnedFiles        = 2000
	maxReturnedBytes        = 16 << 20
	maxReturnedCertificates = 5000
)

// returned is what came back from who signs elsewhere.
type returned struct {
	certificates []*x509.Certificate // each once
	// keys are those that stand in a folder beside the certificates: kubeadm certs
	// generate-csr leaves them there, in kubeconfigs too.
	keys  []returnedKey
	byKey map[string][]*x509.Certificate // once all are read
	bytes int
	files int
}

type returnedKey struct {
	file string // as the user knows it
	key  crypto.Signer
}

// readReturned reads files, folders and standard input. What is named itself must hold
// certificates; in a folder other files are passed over, and broken ones told of.
func readReturned(s streams, sources []string) (*returned, error) {
	r := &returned{}
	for _, source := range sources {
		if source != "-" && isFolder(source) {
			if err := r.folder(s, source); err != nil {
				return nil, err
			}
			continue
		}
		data, err := readInput(s, source)
		if err != nil {
			return nil, err
		}
		before := len(r.certificates)
		if err := r.add(source, data); err != nil {
			return nil, fmt.Errorf("--certificates %s: %w", source, err)
		}
		if before == 0 && len(r.certificates) == 0 {
			return nil, fmt.Errorf("--certificates %s: no certificate is in it", source)
		}
	}
	if len(r.certificates) == 0 {
		return nil, fmt.Errorf("--certificates %s: no certificate is there", strings.Join(sources, ", "))
	}
	return r, nil
}

func (r *returned) folder(s streams, folder string) error {
	return filepath.WalkDir(folder, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("--certificates %s: %w", file, layout.Cause(err))
		}
		if d.IsDir() || !d.Type().IsRegular() && d.Type()&fs.ModeSymlink == 0 {
			return nil
		}
		if r.files++; r.files > maxReturnedFiles {
			return advise(fmt.Errorf("--certificates %s: more than %d files", folder, maxReturnedFiles), "give a folder that holds what came back and nothing else")
		}
		data, err := readInput(s, file)
		if err != nil {
			fmt.Fprintf(s.err, "kubepki: warning: %s is passed over: %s\n", report.Plain(file), report.Plain(err.Error()))
			return nil
		}
		if err := r.add(file, data); errors.As(err, new(tooMuchError)) {
			return fmt.Errorf("--certificates %s: %w", folder, err)
		} else if err != nil {
			fmt.Fprintf(s.err, "kubepki: warning: %s is passed over: %s\n", report.Plain(file), report.Plain(err.Error()))
			return nil
		}
		r.addKey(s, file, data)
		return nil
	})
}

// tooMuchError tells that more came back than any cluster has.
type tooMuchError struct{ error }

// add takes the certificates of a text: PEM in any order with whatever else is around,
// or one in DER.
func (r *returned) add(file string, data []byte) error {
	if r.bytes += len(data); r.bytes > maxReturnedBytes {
		return tooMuchError{fmt.Errorf("more than %d MiB", maxReturnedBytes>>20)}
	}
	if c, err := x509.ParseCertificate(data); err == nil {
		return r.take(c)
	}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf")) // as editors of Windows begin a text
	blocks, err := trust.Blocks(data)
	if err != nil {
		return err
	}
	for _, b := range blocks {
		switch b.Type {
		case trust.CertificateType, "X509 CERTIFICATE", "TRUSTED CERTIFICATE":
		case "PKCS7", "CMS":
			return advise(fmt.Errorf("line %d: a %s block, which is no certificate but a container of some", b.Line, b.Type), "openssl pkcs7 -print_certs -in %s takes them out", file)
		default:
			continue
		}
		c, err := x509.ParseCertificate(b.DER)
		if err != nil {
			return fmt.Errorf("line %d: %w", b.Line, err)
		}
		if err := r.take(c); err != nil {
			return err
		}
	}
	if len(blocks) == 0 && len(data) > 0 && data[0] == 0x30 {
		return advise(errors.New("is in DER, and no certificate"), "of a .p7b openssl pkcs7 -inform DER -print_certs -in %s takes the certificates out", file)
	}
	return nil
}

func (r *returned) take(c *x509.Certificate) error {
	if slices.ContainsFunc(r.certificates, c.Equal) {
		return nil
	}
	if r.certificates = append(r.certificates, c); len(r.certificates) > maxReturnedCertificates {
		return tooMuchError{fmt.Errorf("more than %d certificates", maxReturnedCertificates)}
	}
	return nil
}

// addKey takes the key that stands in a file, alone or in a kubeconfig.
func (r *returned) addKey(s streams, file string, data []byte) {
	key, err := issue.ParsePrivateKey(data)
	if errors.Is(err, issue.ErrNoPrivateKey) || err != nil && !bytes.Contains(data, []byte("PRIVATE KEY")) {
		err = nil
		_, _, keys := layout.ParseKubeconfig(trust.Place{Path: file}, data)
		for _, k := range keys {
			key = k
		}
	}
	switch {
	case err != nil:
		fmt.Fprintf(s.err, "kubepki: warning: the key in %s is passed over: %s\n", report.Plain(file), report.Plain(err.Error()))
	case key == nil:
	case openToOthers(file):
		fmt.Fprintf(s.err, "kubepki: warning: the key in %s is passed over: others than its owner may read the file, so it is no secret\n", report.Plain(file))
	default:
		r.keys = append(r.keys, returnedKey{file, key})
	}
}

func openToOthers(file string) bool {
	at, err := filepath.Abs(file)
	if err != nil {
		return true
	}
	content, err := layout.ReadFile("/", at)
	return err != nil || content.Mode&0o077 != 0
}

// of returns the certificates of a public key, in their order.
func (r *returned) of(public crypto.PublicKey) []*x509.Certificate {
	if r.byKey == nil {
		r.byKey = map[string][]*x509.Certificate{}
		for _, c := range r.certificates {
			if id := keyID(c.PublicKey); id != "" {
				r.byKey[id] = append(r.byKey[id], c)
			}
		}
	}
	return r.byKey[keyID(public)]
}

// keyID tells public keys apart; empty for one that no component could use.
func keyID(public crypto.PublicKey) string {
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return ""
	}
	return string(der)
}

// subjects are those of the leaves that came, for people.
func (r *returned) subjects() string {
	var all []string
	for _, c := range r.certificates {
		if !c.IsCA && len(all) < 5 {
			all = append(all, trust.SubjectText(c.RawSubject))
		}
	}
	return strings.Join(all, "; ")
}
