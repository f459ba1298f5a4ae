package main

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	certificatesv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/report"
	"github.com/kubepki/kubepki/internal/trust"
)

// pendingRequest is what stands beside a kubeconfig until it is made. It is
// written before the cluster is asked, so that no certificate is without its key.
type pendingRequest struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Name       string `json:"name"` // metadata.name
	SignerName string `json:"signerName"`
	// ExpirationSeconds is the life that is asked for.
	ExpirationSeconds int32  `json:"expirationSeconds"`
	Request           string `json:"request"` // PEM
	Key               string `json:"key"`     // PEM

	parsed *x509.CertificateRequest
}

const pendingKind = "PendingRequest"

func (o *createOptions) pendingFile() string { return o.file + ".pending" }

// pending returns the request of an earlier run, or a new one, which it writes.
// It is nil where an earlier run was done but for the cleaning.
func (o *createOptions) pending(ctx context.Context, s streams, expires time.Duration) (*pendingRequest, error) {
	var p *pendingRequest
	if exists(o.pendingFile()) {
		var err error
		if p, err = o.readPending(s); err != nil {
			return nil, advise(err, "to begin anew, remove %s", o.pendingFile())
		}
	}
	if exists(o.file) {
		if p != nil && o.isDone(p) {
			return nil, o.finish(s)
		}
		return nil, advise(fmt.Errorf("%s exists already", o.file), "kubepki never overwrites: choose another name or folder, or move it away")
	}
	if p != nil {
		return p, nil
	}
	p, err := o.newPending(expires)
	if err != nil || o.dryRun {
		return p, err
	}
	data, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encoding the request: %w", err)
	}
	dir, name := filepath.Split(o.pendingFile())
	if dir == "" {
		dir = "."
	}
	return p, writeNew(ctx, dir, []newFile{{name, append(data, '\n'), 0o600}}, false)
}

func (o *createOptions) newPending(expires time.Duration) (*pendingRequest, error) {
	algorithm, err := issue.ParseAlgorithm(o.algorithm)
	if err != nil {
		return nil, usagef("--key-algorithm: %w", err)
	}
	key, err := issue.GenerateKey(algorithm)
	if err != nil {
		return nil, err
	}
	keyPEM, err := issue.EncodePrivateKey(key)
	if err != nil {
		return nil, err
	}
	// As plain as can be: usages are asked for in the object, and policies
	// refuse extensions that nobody needs.
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: o.user, Organization: o.groups}}, key)
	if err != nil {
		return nil, fmt.Errorf("making the request of %q: %w", o.user, err)
	}
	p := &pendingRequest{
		APIVersion: report.APIVersion, Kind: pendingKind, Name: o.requestName(), SignerName: o.signer,
		ExpirationSeconds: int32(expires / time.Second), Key: string(keyPEM),
		Request: string(pem.EncodeToMemory(&pem.Block{Type: trust.RequestType, Bytes: der})),
	}
	p.parsed, err = x509.ParseCertificateRequest(der)
	return p, err
}

// requestName is the user's name, as far as names of objects allow, and
// something random.
func (o *createOptions) requestName() string {
	name := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, strings.ToLower(o.user))
	name = strings.Trim(name[:min(len(name), 40)], "-")
	return strings.TrimPrefix(name+"-"+strings.ToLower(rand.Text()[:10]), "-")
}

// readPending reads the request of an earlier run, which must be the same.
func (o *createOptions) readPending(s streams) (*pendingRequest, error) {
	file := o.pendingFile()
	data, err := readInput(s, file)
	if err != nil {
		return nil, err
	}
	p := &pendingRequest{}
	if err := json.Unmarshal(data, p); err != nil || p.Kind != pendingKind || p.APIVersion != report.APIVersion {
		return nil, fmt.Errorf("%s: is no request of an earlier run", file) // the cause may quote the key
	}
	if p.parsed, err = issue.ParseRequest([]byte(p.Request)); err != nil {
		return nil, fmt.Errorf("%s: request: %w", file, err)
	}
	key, err := issue.ParsePrivateKey([]byte(p.Key))
	if err != nil || !trust.SameKey(key.Public(), p.parsed.PublicKey) {
		return nil, fmt.Errorf("%s: key: is not that of the request", file)
	}
	asked := p.parsed.Subject
	if asked.CommonName != o.user || !sameNames(asked.Organization, o.groups) || p.SignerName != o.signer {
		return nil, fmt.Errorf("%s is of an earlier run for %s by %s", file, report.Plain(p.subject()), p.SignerName)
	}
	return p, nil
}

func sameNames(a, b []string) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(slices.Compact(a), slices.Compact(b))
}

func (p *pendingRequest) subject() string { return trust.SubjectText(p.parsed.RawSubject) }

// object is the request as the API takes it.
func (p *pendingRequest) object() *certificatesv1.CertificateSigningRequest {
	return &certificatesv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{Name: p.Name},
		Spec: certificatesv1.CertificateSigningRequestSpec{
			Request: []byte(p.Request), SignerName: p.SignerName, ExpirationSeconds: &p.ExpirationSeconds,
			Usages: []certificatesv1.KeyUsage{certificatesv1.UsageDigitalSignature, certificatesv1.UsageClientAuth},
		},
	}
}

// answer parses what the signer gave, and compares it with what was asked for.
func (p *pendingRequest) answer(issued []byte) ([]*x509.Certificate, error) {
	chain, err := trust.ParseCertificates(issued)
	if err == nil && len(chain) == 0 {
		err = errors.New("holds none")
	}
	if err != nil {
		return nil, fmt.Errorf("the certificate of request %s: %w", p.Name, err)
	}
	wanted := issue.Template{Subject: p.parsed.Subject, Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	if err := issue.CheckAnswer(wanted, p.parsed.PublicKey, chain[0]); err != nil {
		return nil, fmt.Errorf("what the signer gave for request %s is not what was asked for: %w", p.Name, err)
	}
	return chain, nil
}
