package join

import (
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"github.com/kubepki/kubepki/internal/apitest"
	"github.com/kubepki/kubepki/internal/trust"
)

func TestARotationHasANewKeyAndKeepsTheOldFile(t *testing.T) {
	s := startServer(t)
	o, _ := node(t, s)
	first := mustJoin(t, o)
	if r, err := Rotate(t.Context(), o, false); err != nil || r.Outcome != NotDue || len(s.Requests()) != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	r, err := Rotate(t.Context(), o, true)
	if err != nil {
		t.Fatal(err)
	}
	if r.Outcome != Rotated || trust.SameKey(r.Leaf.PublicKey, first.Leaf.PublicKey) || r.Identity.CommonName != "system:node:w1" {
		t.Errorf("%+v", r)
	}
	if got := strings.Count(strings.Join(files(t, o.Root), "\n"), "-rw------- /var/lib/kubelet/pki/kubelet-client-DATE.pem"); got != 2 {
		t.Errorf("there are %d dated files", got)
	}
	requests := s.Requests()
	if len(requests) != 2 || requests[0].Spec.Username != "system:bootstrap:abcdef" || requests[1].Spec.Username != "system:node:w1" {
		t.Errorf("there are %d requests", len(requests))
	}
}

func TestARotationThatIsDueNeedsNoForce(t *testing.T) {
	s := startServer(t)
	o, _ := node(t, s)
	s.Lifetime(2 * time.Second) // it began five minutes ago: it is due
	mustJoin(t, o)
	s.Lifetime(time.Hour)
	if r, err := Rotate(t.Context(), o, false); err != nil || r.Outcome != Rotated {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestACertificateThatNobodyTakesIsNotRotatedTo(t *testing.T) {
	s := startServer(t)
	o, _ := node(t, s)
	mustJoin(t, o)
	link := filepath.Join(o.Root, CertDir, "kubelet-client-current.pem")
	before, err := os.Readlink(link)
	if err != nil {
		t.Fatal(err)
	}
	for _, answer := range []apitest.Answer{apitest.Swap, apitest.Deny, apitest.Fail} {
		s.Delete()
		s.Answer(answer)
		if _, err := Rotate(t.Context(), o, true); err == nil {
			t.Errorf("%s: it rotated", answer)
		}
		if after, err := os.Readlink(link); err != nil || after != before {
			t.Errorf("%s: the link leads to %s, %v", answer, after, err)
		}
	}
}

func TestAKubeconfigThatHoldsItsCertificateNamesTheLinkAfterwards(t *testing.T) {
	s := startServer(t)
	o, _ := node(t, s)
	certificate, key, err := s.Issue(pkix.Name{CommonName: "system:node:cp1", Organization: []string{"system:nodes"}}, time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	config := bootstrapConfig(s)
	config.AuthInfos["tls-bootstrap-token-user"] = &clientcmdapi.AuthInfo{ClientCertificateData: certificate, ClientKeyData: key}
	file := filepath.Join(o.Root, Kubeconfig)
	if err := clientcmd.WriteToFile(*config, file); err != nil {
		t.Fatal(err)
	}
	r, err := Rotate(t.Context(), o, true)
	if err != nil || r.Identity.CommonName != "system:node:cp1" {
		t.Fatalf("%+v, %v", r, err)
	}
	got, err := clientcmd.LoadFromFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if user := got.AuthInfos["tls-bootstrap-token-user"]; user.ClientCertificate != CertDir+"/kubelet-client-current.pem" || len(user.ClientKeyData) > 0 || len(user.ClientCertificateData) > 0 {
		t.Errorf("the user is %+v", user)
	}
}

func TestDueIsWithinSevenToNineTenthsAndAlwaysTheSame(t *testing.T) {
	begin := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	least, most := 1.0, 0.0
	for i := range 2000 {
		leaf := &x509.Certificate{Raw: []byte{byte(i), byte(i >> 8)}, NotBefore: begin, NotAfter: begin.Add(1000 * time.Hour)}
		due := Due(leaf)
		if due != Due(leaf) {
			t.Fatal("it changes")
		}
		f := float64(due.Sub(begin)) / float64(1000*time.Hour)
		least, most = min(least, f), max(most, f)
	}
	if least < 0.7 || least > 0.701 || most > 0.9 || most < 0.899 {
		t.Errorf("they lie between %f and %f", least, most)
	}
}

// lines keeps log lines.
type lines struct{ strings.Builder }

func (l *lines) count(text string) int { return strings.Count(l.String(), text) }

// loop is an agent over steps of a test, with the leaf that is there.
func loop(l *lines, leaf **x509.Certificate) *agent {
	issue := func(context.Context) (*Result, error) {
		now := time.Now()
		*leaf = &x509.Certificate{Raw: []byte(now.String()), NotBefore: now, NotAfter: now.Add(24 * time.Hour), Subject: pkix.Name{CommonName: "system:node:w1"}}
		return &Result{Outcome: Rotated, Leaf: *leaf}, nil
	}
	return &agent{
		log: slog.New(slog.NewTextHandler(l, nil)),
		look: func() (*x509.Certificate, error) {
			if *leaf == nil || time.Now().After((*leaf).NotAfter) {
				return nil, errors.New("there is none")
			}
			return *leaf, nil
		},
		canJoin: func() bool { return true },
		join:    issue, rotate: issue,
		advice: func(err error) error { return err },
	}
}

func TestTheAgentJoinsAndRotatesWhenItIsDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var leaf *x509.Certificate
		l := &lines{}
		a := loop(l, &leaf)
		ctx, cancel := context.WithTimeout(t.Context(), 30*24*time.Hour)
		defer cancel()
		rotations := 0
		rotate := a.rotate
		a.rotate = func(ctx context.Context) (*Result, error) {
			age := time.Since(leaf.NotBefore)
			if age < 24*time.Hour*7/10 || age > 24*time.Hour*9/10 {
				t.Errorf("rotated at the age of %s", age)
			}
			rotations++
			return rotate(ctx)
		}
		a.run(ctx)
		if rotations < 33 || rotations > 43 {
			t.Errorf("%d rotations in 30 days", rotations)
		}
		if n := l.count("\n"); n > 4*rotations+5 {
			t.Errorf("%d lines for %d rotations", n, rotations)
		}
		if n := l.count(`msg=""`); n > 0 {
			t.Errorf("%d lines say nothing", n)
		}
	})
}

func TestTheAgentTriesAgainAfterFiveMinutesAtMost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var leaf *x509.Certificate
		l := &lines{}
		a := loop(l, &leaf)
		join, attempts, last := a.join, 0, time.Now()
		a.join = func(ctx context.Context) (*Result, error) {
			if pause := time.Since(last); pause > 5*time.Minute || attempts > 0 && pause < time.Second {
				t.Errorf("attempt %d comes after %s", attempts, pause)
			}
			last = time.Now()
			if attempts++; attempts < 40 {
				return nil, &RequestError{Name: "node-csr-x", State: stateDenied}
			}
			return join(ctx)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Hour)
		defer cancel()
		a.run(ctx)
		if attempts != 40 || leaf == nil {
			t.Errorf("%d attempts", attempts)
		}
		if l.count("kubectl delete csr node-csr-x") != 39 {
			t.Errorf("it does not say what to do:\n%s", l)
		}
	})
}

func TestTheAgentTakesUpABootstrapKubeconfigThatIsBroughtLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var leaf *x509.Certificate
		l := &lines{}
		a := loop(l, &leaf)
		begin := time.Now()
		a.canJoin = func() bool { return time.Since(begin) > time.Hour }
		a.advice = func(error) error { return &ExpiredError{Why: "it expired", Bootstrap: "b.conf"} }
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Hour)
		defer cancel()
		a.run(ctx)
		if leaf == nil || l.count("kubepki kubeconfig bootstrap") == 0 {
			t.Errorf("it says\n%s", l)
		}
	})
}

func TestTheAgentOnARealServer(t *testing.T) {
	s := startServer(t)
	o, _ := node(t, s)
	s.Lifetime(4 * time.Second) // due at once, as it began five minutes ago
	l := &lines{}
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	if err := Run(ctx, o, slog.New(slog.NewTextHandler(l, nil))); err != nil {
		t.Fatal(err)
	}
	if n := len(s.Requests()); n < 2 || l.count("msg=joined") != 1 || l.count("msg=rotated") < 1 || l.count("msg=stopped") != 1 {
		t.Errorf("%d requests, and it says\n%s", n, l)
	}
	if strings.Contains(l.String(), "0123456789abcdef") {
		t.Error("the token is in the log")
	}
}
