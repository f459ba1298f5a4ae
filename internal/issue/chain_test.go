package issue_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"testing"

	"github.com/kubepki/kubepki/internal/issue"
)

func TestChainOfAFile(t *testing.T) {
	top := root(t)
	below := func(name string, a issue.Authority) issue.Authority {
		key := generate(t, issue.ECDSAP256)
		c, err := issue.Sign(issue.Template{Subject: pkix.Name{CommonName: name}, Authority: true, NotBefore: now, NotAfter: top.Certificate.NotAfter}, key.Public(), a)
		if err != nil {
			t.Fatal(err)
		}
		return issue.Authority{Certificate: c, Key: key}
	}
	upper := below("upper", top)
	lower := below("lower", upper)
	r, u, l := top.Certificate, upper.Certificate, lower.Certificate
	rows := map[string]struct {
		file []*x509.Certificate
		want int
	}{
		"nothing":                             {nil, 0},
		"a root":                              {[]*x509.Certificate{r}, 0},
		"an intermediate alone":               {[]*x509.Certificate{u}, 1},
		"an intermediate and its root":        {[]*x509.Certificate{u, r}, 1},
		"two intermediates and their root":    {[]*x509.Certificate{l, u, r}, 2},
		"one of them is missing":              {[]*x509.Certificate{l, r}, 1},
		"what follows did not sign the first": {[]*x509.Certificate{u, l}, 1},
		"a root before what hangs below it":   {[]*x509.Certificate{r, u}, 0},
	}
	for name, row := range rows {
		t.Run(name, func(t *testing.T) {
			got := issue.ChainOf(row.file)
			if len(got) != row.want {
				t.Fatalf("%d certificates, want %d", len(got), row.want)
			}
			for i, c := range got {
				if c != row.file[i] {
					t.Errorf("certificate %d is not that of the file", i)
				}
			}
		})
	}
}
