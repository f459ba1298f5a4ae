package join

import (
	"context"
	"crypto/x509/pkix"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/client-go/util/certificate"

	"github.com/kubepki/kubepki/internal/apitest"
)

const token = "abcdef.0123456789abcdef"

func startServer(t *testing.T) *apitest.Server {
	t.Helper()
	s, err := apitest.Start(token)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// talk keeps what a run says.
type talk struct {
	mu    sync.Mutex
	lines []string
}

func (k *talk) say(line string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.lines = append(k.lines, line)
}

func (k *talk) String() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return strings.Join(k.lines, "\n")
}

// node is a node's root with a bootstrap kubeconfig, and how to join with it.
func node(t *testing.T, s *apitest.Server) (Options, *talk) {
	t.Helper()
	id, err := Node("w1")
	if err != nil {
		t.Fatal(err)
	}
	k := &talk{}
	o := Options{
		Root: t.TempDir(), Kubeconfig: Kubeconfig, CertDir: CertDir, Prefix: Prefix, AuthorityFile: AuthorityFile,
		Identity: id, BootstrapKubeconfig: BootstrapKubeconfig, Timeout: 10 * time.Second, Say: k.say,
	}
	writeBootstrap(t, o, s, func(*clientcmdapi.Config) {})
	return o, k
}

func writeBootstrap(t *testing.T, o Options, s *apitest.Server, change func(*clientcmdapi.Config)) {
	t.Helper()
	config := bootstrapConfig(s)
	change(config)
	if err := clientcmd.WriteToFile(*config, filepath.Join(o.Root, o.BootstrapKubeconfig)); err != nil {
		t.Fatal(err)
	}
}

func bootstrapConfig(s *apitest.Server) *clientcmdapi.Config {
	return &clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{"kubernetes": {Server: s.URL, CertificateAuthorityData: s.CA}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{"tls-bootstrap-token-user": {Token: s.Token}},
		Contexts:       map[string]*clientcmdapi.Context{"tls-bootstrap-token-user@kubernetes": {Cluster: "kubernetes", AuthInfo: "tls-bootstrap-token-user"}},
		CurrentContext: "tls-bootstrap-token-user@kubernetes",
	}
}

func mustJoin(t *testing.T, o Options) *Result {
	t.Helper()
	r, err := Join(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// files lists the files below a root: mode, path and, for links, the target.
// Dates are written as DATE.
func files(t *testing.T, root string) []string {
	t.Helper()
	var all []string
	dates := regexp.MustCompile(`\d{4}(-\d\d){5}`)
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		line := info.Mode().String() + " " + strings.TrimPrefix(p, root)
		if target, err := os.Readlink(p); err == nil {
			line = "link " + strings.TrimPrefix(p, root) + " -> " + target
		}
		all = append(all, dates.ReplaceAllString(line, "DATE"))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// joinedFiles are those of a node that has joined.
var joinedFiles = []string{
	"-rw------- /etc/kubernetes/kubelet.conf",
	"-rw-r--r-- /etc/kubernetes/pki/ca.crt",
	"-rw------- /var/lib/kubelet/pki/kubelet-client-DATE.pem",
	"link /var/lib/kubelet/pki/kubelet-client-current.pem -> /var/lib/kubelet/pki/kubelet-client-DATE.pem",
}

func TestANodeJoinsByToken(t *testing.T) {
	s := startServer(t)
	o, k := node(t, s)
	r := mustJoin(t, o)
	if r.Outcome != Joined || r.Identity.CommonName != "system:node:w1" || !r.BootstrapRemoved || r.Server != s.URL {
		t.Errorf("the result is %+v", r)
	}
	if diff := cmp.Diff(joinedFiles, files(t, o.Root)); diff != "" {
		t.Error(diff)
	}
	requests := s.Requests()
	if len(requests) != 1 || requests[0].Name != r.Request || requests[0].Spec.SignerName != "kubernetes.io/kube-apiserver-client-kubelet" ||
		!cmp.Equal([]string{"digital signature", "client auth"}, texts(requests[0].Spec.Usages)) {
		t.Errorf("the requests are %+v", requests)
	}
	if strings.Contains(k.String(), token) || strings.Contains(k.String(), "0123456789abcdef") {
		t.Errorf("the token is told:\n%s", k)
	}
	t.Run("again it is left as it is, without a call", func(t *testing.T) {
		s.Down(true)
		defer s.Down(false)
		again := mustJoin(t, o)
		if again.Outcome != AlreadyJoined || !again.Leaf.Equal(r.Leaf) || len(s.Requests()) != 1 {
			t.Errorf("%+v", again)
		}
	})
	t.Run("a bootstrap kubeconfig that is brought back is removed again", func(t *testing.T) {
		writeBootstrap(t, o, s, func(*clientcmdapi.Config) {})
		if again := mustJoin(t, o); again.Outcome != AlreadyJoined || !again.BootstrapRemoved || len(s.Requests()) != 1 {
			t.Errorf("%+v", again)
		}
		if diff := cmp.Diff(joinedFiles, files(t, o.Root)); diff != "" {
			t.Error(diff)
		}
	})
}

// awaitRequest returns when there is a request, or after ten seconds.
func awaitRequest(s *apitest.Server) {
	for range 10000 {
		if len(s.Requests()) > 0 {
			return
		}
		time.Sleep(time.Millisecond)
	}
}

func texts[T ~string](list []T) []string {
	var all []string
	for _, e := range list {
		all = append(all, string(e))
	}
	return all
}

func TestTheKubeletsOwnStoreReadsWhatWasWritten(t *testing.T) {
	s := startServer(t)
	o, _ := node(t, s)
	r := mustJoin(t, o)
	// The link is the node's: here it must lead below the root.
	link := filepath.Join(o.Root, CertDir, "kubelet-client-current.pem")
	target, err := os.Readlink(link)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Remove(link), os.Symlink(filepath.Join(o.Root, target), link)); err != nil {
		t.Fatal(err)
	}
	fileStore, err := certificate.NewFileStoreWithLogger(logr.Discard(), "kubelet-client", filepath.Join(o.Root, CertDir), filepath.Join(o.Root, CertDir), "", "")
	if err != nil {
		t.Fatal(err)
	}
	current, err := fileStore.Current()
	if err != nil || !current.Leaf.Equal(r.Leaf) {
		t.Errorf("it holds %v, %v", current, err)
	}
}

func TestTheKubeconfigIsTheKubelets(t *testing.T) {
	s := startServer(t)
	o, _ := node(t, s)
	writeBootstrap(t, o, s, func(c *clientcmdapi.Config) { c.Clusters["kubernetes"].TLSServerName = "127.0.0.1" })
	mustJoin(t, o)
	got, err := clientcmd.LoadFromFile(filepath.Join(o.Root, Kubeconfig))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range got.Clusters {
		c.LocationOfOrigin = ""
	}
	const current = "/var/lib/kubelet/pki/kubelet-client-current.pem"
	want := clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{"default-cluster": {Server: s.URL, CertificateAuthorityData: s.CA, TLSServerName: "127.0.0.1", Extensions: got.Clusters["default-cluster"].Extensions}},
		CurrentContext: "default-context",
	}
	if diff := cmp.Diff(want.Clusters, got.Clusters); diff != "" {
		t.Error(diff)
	}
	if user := got.AuthInfos["default-auth"]; user == nil || user.ClientCertificate != current || user.ClientKey != current || len(user.ClientKeyData) > 0 {
		t.Errorf("the user is %+v", user)
	}
	if context := got.Contexts["default-context"]; context == nil || context.Namespace != "default" || got.CurrentContext != "default-context" {
		t.Errorf("the context is %+v", context)
	}
}

func TestJoinIsRefused(t *testing.T) {
	s, other := startServer(t), startServer(t)
	for name, row := range map[string]struct {
		change    func(*clientcmdapi.Config)
		answer    apitest.Answer
		want      string
		hint      string
		noRequest bool
	}{
		"a token that the server does not know": {
			change: func(c *clientcmdapi.Config) {
				c.AuthInfos["tls-bootstrap-token-user"].Token = "abcdef.ffffffffffffffff"
			},
			want: "does not accept the token of .*bootstrap-kubelet.conf .401", hint: "kubepki token create", noRequest: true,
		},
		"no token at all": {
			change: func(c *clientcmdapi.Config) { c.AuthInfos["tls-bootstrap-token-user"].Token = "" },
			want:   "401", noRequest: true,
		},
		"the authority of another cluster": {
			change: func(c *clientcmdapi.Config) { c.Clusters["kubernetes"].CertificateAuthorityData = other.CA },
			want:   "its certificate is not trusted: x509", hint: "kubepki show 127.0.0.1", noRequest: true,
		},
		"a server that is not verified": {
			change: func(c *clientcmdapi.Config) {
				c.Clusters["kubernetes"].InsecureSkipTLSVerify, c.Clusters["kubernetes"].CertificateAuthorityData = true, nil
			},
			want: "insecure-skip-tls-verify is set", noRequest: true,
		},
		"a server without TLS": {
			change: func(c *clientcmdapi.Config) { c.Clusters["kubernetes"].Server = "http://127.0.0.1:1" },
			want:   "is not a URL like https", noRequest: true,
		},
		"a context that is not there": {
			change: func(c *clientcmdapi.Config) { c.CurrentContext = "other" }, want: `no context "other"`, noRequest: true,
		},
		"a request that is denied": {answer: apitest.Deny, want: "was denied: ByTest: not this one$", hint: "kubectl delete csr node-csr-"},
		"a signer that fails":      {answer: apitest.Fail, want: "failed: its signer says ByTest: the signer is ill$", hint: "kubectl delete csr"},
		"nobody approves":          {answer: apitest.Wait, want: "no certificate after .*: request node-csr-.* is still waiting for approval", hint: "kubepki csr approve node-csr-"},
		"nobody signs":             {answer: apitest.Approve, want: "approved, and waiting for its signer", hint: "kube-controller-manager"},
		"a certificate of another": {answer: apitest.Swap, want: "cannot be used: it is for CN=system:node:somebody-else"},
	} {
		t.Run(name, func(t *testing.T) {
			s.Delete()
			s.Answer(row.answer)
			o, _ := node(t, s)
			o.Timeout = 1500 * time.Millisecond
			if row.change != nil {
				writeBootstrap(t, o, s, row.change)
			}
			_, err := Join(t.Context(), o)
			if err == nil || !regexp.MustCompile(row.want).MatchString(err.Error()) || strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "ffffffffffffffff") {
				t.Fatalf("the error is %v", err)
			}
			var h interface{ Hint() string }
			if row.hint != "" && (!errors.As(err, &h) || !strings.Contains(h.Hint(), row.hint)) {
				t.Errorf("the hint is %v", h)
			}
			if (len(s.Requests()) == 0) != row.noRequest {
				t.Errorf("there are %d requests", len(s.Requests()))
			}
			if _, err := os.Lstat(filepath.Join(o.Root, BootstrapKubeconfig)); err != nil {
				t.Error("the bootstrap kubeconfig is gone")
			}
			if _, err := os.Lstat(filepath.Join(o.Root, Kubeconfig)); err == nil {
				t.Error("there is a kubelet.conf")
			}
		})
	}
}

func TestAnotherRunGoesOnWithTheSameRequest(t *testing.T) {
	s := startServer(t)
	o, k := node(t, s)
	s.Answer(apitest.Wait)
	o.Timeout = time.Second
	for range 3 {
		if _, err := Join(t.Context(), o); err == nil {
			t.Fatal("it joined")
		}
	}
	if n := len(s.Requests()); n != 1 {
		t.Fatalf("there are %d requests", n)
	}
	info, err := os.Stat(filepath.Join(o.Root, CertDir, "kubelet-client.key.tmp"))
	if err != nil || info.Mode() != 0o600 {
		t.Fatalf("the key: %v, %v", info, err)
	}
	s.Answer(apitest.Issue)
	if r := mustJoin(t, o); r.Request != s.Requests()[0].Name || !strings.Contains(k.String(), "going on with request "+r.Request) {
		t.Errorf("%+v\n%s", r, k)
	}
	if diff := cmp.Diff(joinedFiles, files(t, o.Root)); diff != "" {
		t.Error(diff)
	}
}

func TestAServerThatIsNotThereYetIsWaitedFor(t *testing.T) {
	s := startServer(t)
	o, k := node(t, s)
	s.Down(true)
	time.AfterFunc(300*time.Millisecond, func() { s.Down(false) })
	mustJoin(t, o)
	if !strings.Contains(k.String(), "trying again") {
		t.Errorf("it said\n%s", k)
	}
}

func TestARequestThatIsDeletedWhileItWaits(t *testing.T) {
	s := startServer(t)
	o, _ := node(t, s)
	s.Answer(apitest.Wait)
	go func() {
		awaitRequest(s)
		time.Sleep(200 * time.Millisecond)
		s.Delete()
	}()
	_, err := Join(t.Context(), o)
	var e *RequestError
	if !errors.As(err, &e) || e.State != stateDeleted {
		t.Fatalf("the error is %v", err)
	}
	s.Answer(apitest.Issue)
	mustJoin(t, o)
}

func TestAnInterruptedWaitSaysHowToGoOn(t *testing.T) {
	s := startServer(t)
	o, _ := node(t, s)
	s.Answer(apitest.Wait)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		awaitRequest(s)
		cancel()
	}()
	if _, err := Join(ctx, o); err == nil || !strings.Contains(err.Error(), "run this again to go on") {
		t.Errorf("the error is %v", err)
	}
}

func TestACertificateThatNobodyTakesReplacesNothing(t *testing.T) {
	s := startServer(t)
	o, _ := node(t, s)
	s.Distrust(true)
	_, err := Join(t.Context(), o)
	if err == nil || !strings.Contains(err.Error(), "proving the new certificate") {
		t.Fatalf("the error is %v", err)
	}
	if got := strings.Join(files(t, o.Root), "\n"); strings.Contains(got, ".pem") || strings.Contains(got, "kubelet.conf\n") && !strings.Contains(got, "bootstrap-kubelet.conf") {
		t.Errorf("there are\n%s", got)
	}
	s.Distrust(false)
	mustJoin(t, o)
	if n := len(s.Requests()); n != 1 {
		t.Errorf("there are %d requests", n)
	}
}

func TestAnExpiredCredentialIsReplacedByJoiningAnew(t *testing.T) {
	s := startServer(t)
	o, k := node(t, s)
	certificate, key, err := s.Issue(pkix.Name{CommonName: "system:node:w1", Organization: []string{"system:nodes"}}, time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	config := bootstrapConfig(s)
	config.AuthInfos["tls-bootstrap-token-user"] = &clientcmdapi.AuthInfo{ClientCertificateData: certificate, ClientKeyData: key}
	if err := clientcmd.WriteToFile(*config, filepath.Join(o.Root, Kubeconfig)); err != nil {
		t.Fatal(err)
	}
	_, err = Rotate(t.Context(), o, true)
	var expired *ExpiredError
	if !errors.As(err, &expired) || !expired.Waiting || !strings.Contains(expired.Hint(), "kubepki node join") {
		t.Errorf("rotate says %v", err)
	}
	if r := mustJoin(t, o); r.Outcome != Joined || !strings.Contains(k.String(), "joining anew") {
		t.Errorf("%+v\n%s", r, k)
	}
}

func TestWhoJoinsAnewWithoutANameStaysWhoItWas(t *testing.T) {
	s := startServer(t)
	for former, want := range map[string]string{"system:node:renamed": "", "backup": "which is no node: join it with --user"} {
		o, _ := node(t, s)
		certificate, key, err := s.Issue(pkix.Name{CommonName: former, Organization: []string{"system:nodes"}}, time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		config := bootstrapConfig(s)
		config.AuthInfos["tls-bootstrap-token-user"] = &clientcmdapi.AuthInfo{ClientCertificateData: certificate, ClientKeyData: key}
		if err := clientcmd.WriteToFile(*config, filepath.Join(o.Root, Kubeconfig)); err != nil {
			t.Fatal(err)
		}
		o.AnyIdentity = true
		r, err := Join(t.Context(), o)
		if want == "" && (err != nil || r.Identity.CommonName != former) || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %+v, %v", former, r, err)
		}
	}
}

func TestACredentialThatIsThereIsNotTakenForAnother(t *testing.T) {
	s, other := startServer(t), startServer(t)
	o, _ := node(t, s)
	mustJoin(t, o)
	t.Run("of another node", func(t *testing.T) {
		o := o
		o.Identity, _ = Node("w2")
		if _, err := Join(t.Context(), o); err == nil || !strings.Contains(err.Error(), "not of CN=system:node:w2") {
			t.Errorf("the error is %v", err)
		}
		o.AnyIdentity = true
		mustJoin(t, o)
	})
	t.Run("for another cluster", func(t *testing.T) {
		writeBootstrap(t, o, other, func(*clientcmdapi.Config) {})
		if _, err := Join(t.Context(), o); err == nil || !strings.Contains(err.Error(), "another authority") {
			t.Errorf("the error is %v", err)
		}
		if _, err := os.Stat(filepath.Join(o.Root, BootstrapKubeconfig)); err != nil {
			t.Error(err)
		}
	})
}

func TestAnotherClientGetsFilesOfItsOwn(t *testing.T) {
	s := startServer(t)
	o, _ := node(t, s)
	o.Identity = Identity{CommonName: "backup", Organization: []string{"ops", "dev"}}
	o.Kubeconfig, o.CertDir, o.Prefix, o.AuthorityFile, o.KeepBootstrap = "/srv/backup/backup.conf", "/srv/backup", "backup-client", "", true
	r := mustJoin(t, o)
	if got := s.Requests()[0].Spec.SignerName; got != "kubernetes.io/kube-apiserver-client" || r.Identity.CommonName != "backup" || r.BootstrapRemoved {
		t.Errorf("signer %s, result %+v", got, r)
	}
	want := []string{
		"-rw------- /etc/kubernetes/bootstrap-kubelet.conf",
		"-rw------- /srv/backup/backup-client-DATE.pem",
		"link /srv/backup/backup-client-current.pem -> /srv/backup/backup-client-DATE.pem",
		"-rw------- /srv/backup/backup.conf",
	}
	if diff := cmp.Diff(want, files(t, o.Root)); diff != "" {
		t.Error(diff)
	}
	// What rotates it need not be told where its files are.
	o.CertDir, o.Prefix = CertDir, Prefix
	if _, err := Rotate(t.Context(), o, true); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(files(t, o.Root), "\n"); strings.Count(got, "-rw------- /srv/backup/backup-client-DATE.pem") != 2 || strings.Contains(got, "kubelet-client") {
		t.Errorf("there are\n%s", got)
	}
}

func TestFoldersThatAreLinksAreFollowedBelowTheRoot(t *testing.T) {
	s := startServer(t)
	o, _ := node(t, s)
	if err := errors.Join(os.MkdirAll(filepath.Join(o.Root, "data/kubelet"), 0o700), os.MkdirAll(filepath.Join(o.Root, "var/lib"), 0o755),
		os.Symlink("/data/kubelet", filepath.Join(o.Root, "var/lib/kubelet"))); err != nil {
		t.Fatal(err)
	}
	mustJoin(t, o)
	if _, err := os.Stat(filepath.Join(o.Root, "data/kubelet/pki")); err != nil {
		t.Error(err)
	}
}

func TestTwoRunsAtOnceDoNotMix(t *testing.T) {
	s := startServer(t)
	o, _ := node(t, s)
	s.Answer(apitest.Wait)
	o.Timeout = 2 * time.Second
	first := make(chan error, 1)
	go func() { _, err := Join(t.Context(), o); first <- err }()
	awaitRequest(s)
	if _, err := Join(t.Context(), o); err == nil || !strings.Contains(err.Error(), "another kubepki is at work") {
		t.Errorf("the error is %v", err)
	}
	s.Answer(apitest.Issue)
	if err := <-first; err != nil {
		t.Error(err)
	}
}

func TestNodeNames(t *testing.T) {
	for name, ok := range map[string]bool{"w1": true, "w1.example.test": true, "": false, "W1": false, "a_b": false, "*": false, "a b": false, strings.Repeat("a", 254): false} {
		if _, err := Node(name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
}
