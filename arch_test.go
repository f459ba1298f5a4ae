package kubepki_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/kubepki/kubepki/"

// mayImport is the table of docs/design/0001-shape.md: which of our packages a
// package may import. A package that is not listed is a violation.
var mayImport = map[string][]string{
	"internal/trust":        {},
	"internal/catalog":      {"internal/trust"},
	"internal/check":        {"internal/trust", "internal/catalog"},
	"internal/plan":         {"internal/trust", "internal/catalog", "internal/check"},
	"internal/issue":        {"internal/trust"},
	"internal/renew":        {"internal/trust", "internal/catalog", "internal/check", "internal/issue"},
	"internal/recovery":     {"internal/trust", "internal/catalog", "internal/check", "internal/renew"},
	"internal/restart":      {"internal/trust", "internal/catalog", "internal/check", "internal/bundle", "internal/layout", "internal/probe"},
	"internal/proof":        {"internal/trust", "internal/check"},
	"internal/reach":        {},
	"internal/sshtest":      {},
	"internal/remote":       {"internal/trust", "internal/catalog", "internal/check", "internal/issue", "internal/renew", "internal/apply"},
	"internal/apply":        {"internal/trust", "internal/catalog", "internal/check", "internal/bundle", "internal/issue", "internal/renew", "internal/proof", "internal/layout"},
	"internal/probe":        {"internal/trust"},
	"internal/config":       {"internal/catalog", "internal/issue"},
	"internal/layout":       {"internal/trust", "internal/catalog", "internal/issue"},
	"internal/provision":    {"internal/trust", "internal/catalog", "internal/issue", "internal/layout"},
	"internal/inspect":      {"token", "internal/trust", "internal/catalog", "internal/config", "internal/issue", "internal/layout"},
	"internal/report":       {"token", "internal/trust", "internal/catalog", "internal/check", "internal/explain", "internal/inspect", "internal/csr", "internal/why"},
	"internal/testpki":      {"internal/trust", "internal/catalog", "internal/check", "internal/issue", "internal/proof", "internal/probe", "internal/config", "internal/layout", "internal/provision"},
	"internal/csr":          {"internal/trust", "internal/issue"},
	"internal/yamldoc":      {},
	"internal/policy":       {"internal/csr", "internal/workload", "internal/yamldoc"},
	"internal/kmsproto":     {},
	"deploy":                {},
	"internal/reload":       {"internal/trust"},
	"internal/connlimit":    {},
	"internal/unixsocket":   {"internal/connlimit"},
	"internal/jwtsigner":    {"internal/trust", "internal/issue", "internal/reload", "token"},
	"internal/signer":       {"internal/trust", "internal/issue", "internal/kmsproto", "internal/reload"},
	"token":                 {"internal/trust", "internal/issue"},
	"token/tokenfile":       {"internal/reload", "token"},
	"mtls":                  {"internal/trust", "internal/issue", "internal/reload", "internal/layout"},
	"mtls/mtlsgrpc":         {"internal/remember", "mtls"},
	"internal/saserver":     {"mtls", "token", "internal/remember", "internal/connlimit"},
	"token/internal/bearer": {"token"},
	"token/tokenhttp":       {"token", "token/internal/bearer"},
	"token/tokengrpc":       {"token", "token/internal/bearer"},
	"internal/tokentest":    {"token"},
	"internal/tlstest":      {"internal/trust", "internal/issue", "mtls"},
	"internal/bootstrap":    {"internal/trust"},
	"internal/kube":         {"token", "internal/yamldoc", "internal/trust", "internal/issue", "internal/csr", "internal/bootstrap", "internal/handover", "internal/workload", "internal/why", "internal/shim"},
	"internal/workload":     {"internal/trust", "internal/issue", "internal/keystore"},
	"internal/keystore":     {},
	"internal/rollover":     {},
	"internal/why":          {"internal/trust", "internal/workload", "internal/shim"},
	"internal/acmeissuer":   {"internal/trust", "internal/issue", "internal/workload", "internal/connlimit"},
	"internal/certmanager":  {"internal/trust", "internal/issue", "internal/workload", "internal/acmeissuer", "internal/policy", "internal/csr", "internal/cainjector", "internal/shim", "internal/rollover"},
	"internal/cainjector":   {"internal/trust"},
	"internal/shim":         {},
	"internal/handover":     {"internal/trust", "internal/issue", "internal/bootstrap"},
	"internal/join":         {"internal/trust", "internal/issue", "internal/layout", "internal/bootstrap"},
	"internal/apitest":      {"internal/trust", "internal/issue", "internal/bootstrap"},
	"internal/podcert":      {"internal/trust", "internal/issue"},
	"internal/controller":   {"internal/trust", "internal/issue", "internal/csr", "internal/policy", "internal/signer", "internal/podcert", "internal/kube"},
	"cmd/kubepki":           {"internal/workload", "internal/certmanager", "internal/acmeissuer", "internal/jwtsigner", "internal/unixsocket", "token", "token/tokenfile", "token/tokenhttp", "mtls", "internal/saserver", "internal/csr", "internal/policy", "internal/signer", "internal/bootstrap", "internal/kube", "internal/join", "internal/podcert", "internal/controller", "internal/trust", "internal/catalog", "internal/check", "internal/issue", "internal/proof", "internal/probe", "internal/config", "internal/layout", "internal/provision", "internal/inspect", "internal/report", "internal/bundle", "internal/diagram", "internal/picture", "internal/explain", "internal/renew", "internal/recovery", "internal/apply", "internal/agent", "internal/brief", "internal/kubewatch", "internal/kubeevents", "internal/reach", "internal/remote", "internal/restart", "internal/handover", "internal/resident", "internal/kubesign", "internal/shim", "internal/why", "internal/reload"},

	"examples/grpc-mtls/plain/server":    {},
	"examples/grpc-mtls/plain/client":    {},
	"examples/grpc-mtls/rotating/server": {"mtls", "mtls/mtlsgrpc"},
	"examples/grpc-mtls/rotating/client": {"mtls", "mtls/mtlsgrpc"},
	"internal/remember":                  {"mtls"},
	"mtls/mtlshttp":                      {"internal/remember", "mtls"},
	"examples/http-mtls/server":          {"mtls", "mtls/mtlshttp"},
	"examples/http-mtls/client":          {"mtls", "mtls/mtlshttp"},
	"mtls/kubesource":                    {"internal/trust", "mtls"},
	"mtls/mtlsmetrics":                   {"mtls"},
	"mtls/frontproxy":                    {"mtls", "internal/remember"},
	"mtls/frontproxy/live":               {"mtls/frontproxy"},
	"examples/extension-apiserver":       {"mtls", "mtls/frontproxy", "mtls/frontproxy/live"},
	"internal/graphviz":                  {},
	"internal/diagram":                   {"internal/trust", "internal/catalog", "internal/check"},
	"internal/picture":                   {"internal/check", "internal/diagram", "internal/graphviz", "internal/report"},
	"internal/bundle":                    {"internal/trust", "internal/catalog", "internal/check"},
	"internal/explain/saidtext":          {},
	"internal/brief":                     {"internal/trust"},
	"internal/agent":                     {"internal/brief", "internal/check", "internal/picture", "internal/report", "internal/trust", "internal/catalog", "internal/layout", "internal/renew", "internal/apply", "internal/resident", "internal/connlimit"},
	"internal/resident":                  {},
	"internal/kubesign":                  {"internal/trust", "internal/catalog", "internal/csr", "internal/issue", "internal/layout", "internal/renew", "internal/kube"},
	"internal/kubewatch":                 {"internal/agent", "internal/brief", "internal/trust", "internal/resident"},
	"internal/kubeevents":                {"internal/agent", "internal/brief", "internal/report"},
	"internal/explain":                   {"internal/trust", "internal/catalog", "internal/check"},
}

// pure packages touch nothing: what they may not import from the standard
// library, and what they may not call.
var (
	pure          = []string{"internal/trust", "internal/brief", "internal/catalog", "internal/check", "internal/plan", "internal/bundle", "internal/diagram", "internal/explain", "internal/rollover"}
	notPure       = []string{"os", "os/exec", "net", "net/http", "log", "log/slog", "math/rand", "math/rand/v2", "crypto/rand", "io/fs", "syscall", "path/filepath"}
	notPureCalls  = []string{"time.Now", "time.Since", "time.Until", "time.Sleep", "time.After"}
	noDisk        = []string{"internal/workload", "internal/keystore", "token", "internal/issue", "internal/csr", "internal/policy", "internal/podcert", "internal/bootstrap", "internal/handover", "internal/config", "internal/report", "internal/proof", "internal/picture", "internal/graphviz", "internal/renew", "internal/recovery", "internal/cainjector", "internal/shim", "internal/why"}
	notWithoutFor = []string{"os", "os/exec", "net/http"}
)

// mayLink are the public packages, which are for other people's programs, and
// the foreign modules that each, and all of ours below it, may bring along:
// neither client-go nor, but where it is what they are for, grpc is among them.
var mayLink = map[string][]string{
	"token":            {"github.com/go-jose/go-jose/v4", "github.com/go-json-experiment/json", "github.com/hashicorp/golang-lru/v2"},
	"token/tokenfile":  {"github.com/go-jose/go-jose/v4", "github.com/go-json-experiment/json", "github.com/hashicorp/golang-lru/v2"},
	"token/tokenhttp":  {"github.com/go-jose/go-jose/v4", "github.com/go-json-experiment/json", "github.com/hashicorp/golang-lru/v2"},
	"mtls":             {"github.com/spiffe/go-spiffe/v2", "github.com/hashicorp/golang-lru/v2", "sigs.k8s.io/yaml", "sigs.k8s.io/json"},
	"mtls/mtlsgrpc":    {"github.com/spiffe/go-spiffe/v2", "github.com/hashicorp/golang-lru/v2", "google.golang.org/grpc", "sigs.k8s.io/yaml", "sigs.k8s.io/json"},
	"mtls/mtlshttp":    {"github.com/spiffe/go-spiffe/v2", "github.com/hashicorp/golang-lru/v2", "sigs.k8s.io/yaml", "sigs.k8s.io/json"},
	"mtls/kubesource":  {"github.com/spiffe/go-spiffe/v2", "github.com/hashicorp/golang-lru/v2", "sigs.k8s.io/yaml", "sigs.k8s.io/json", "k8s.io/api", "k8s.io/apimachinery", "k8s.io/client-go"},
	"mtls/mtlsmetrics": {"github.com/spiffe/go-spiffe/v2", "github.com/hashicorp/golang-lru/v2", "sigs.k8s.io/yaml", "sigs.k8s.io/json", "github.com/prometheus/client_golang"},
	"mtls/frontproxy":  {"github.com/spiffe/go-spiffe/v2", "github.com/hashicorp/golang-lru/v2", "sigs.k8s.io/yaml", "sigs.k8s.io/json"},
}

// violations parses the files of the tree in process, so that the test cache
// sees what is read, and returns each breach of the tables.
func violations(t *testing.T, root string) []string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() {
			if file != root && (strings.HasPrefix(name, ".") || name == "lab" || name == "kms" || name == "testdata" || name == "quickstart") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		rel, err := filepath.Rel(root, filepath.Dir(file))
		if err != nil {
			return err
		}
		found, err := fileViolations(file, filepath.ToSlash(rel))
		all = append(all, found...)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func fileViolations(file, pkg string) ([]string, error) {
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
	if err != nil {
		return nil, err
	}
	say := func(format string, args ...any) string {
		return path.Join(pkg, filepath.Base(file)) + ": " + fmt.Sprintf(format, args...)
	}
	var all []string
	allowed, listed := mayImport[pkg]
	if !listed && pkg != "." {
		all = append(all, say("package is not in the table of docs/design/0001-shape.md"))
	}
	for _, i := range parsed.Imports {
		name := strings.Trim(i.Path.Value, `"`)
		own, isOwn := strings.CutPrefix(name, module)
		switch {
		case isOwn && !slices.Contains(allowed, own):
			all = append(all, say("may not import %s", own))
		case slices.Contains(pure, pkg) && slices.Contains(notPure, name):
			all = append(all, say("is pure and may not import %s", name))
		case slices.Contains(pure, pkg) && strings.Contains(strings.Split(name, "/")[0], ".") && !isOwn:
			all = append(all, say("is pure and may not import %s", name))
		case slices.Contains(noDisk, pkg) && slices.Contains(notWithoutFor, name):
			all = append(all, say("may not import %s", name))
		}
	}
	if slices.Contains(pure, pkg) {
		ast.Inspect(parsed, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok {
				if x, ok := s.X.(*ast.Ident); ok && slices.Contains(notPureCalls, x.Name+"."+s.Sel.Name) {
					all = append(all, say("is pure and may not call %s.%s", x.Name, s.Sel.Name))
				}
			}
			return true
		})
	}
	return all, nil
}

// linkViolations returns what public packages bring along that they may not.
func linkViolations(root string) ([]string, error) {
	var all []string
	for pkg, modules := range mayLink {
		seen := map[string]bool{pkg: true}
		for queue := []string{pkg}; len(queue) > 0; queue = queue[1:] {
			imports, err := importsOf(filepath.Join(root, filepath.FromSlash(queue[0])))
			if err != nil {
				return nil, err
			}
			for _, name := range imports {
				own, isOwn := strings.CutPrefix(name, module)
				within := func(m string) bool { return name == m || strings.HasPrefix(name, m+"/") }
				switch {
				case isOwn && !seen[own]:
					seen[own], queue = true, append(queue, own)
				case !isOwn && strings.Contains(strings.Split(name, "/")[0], ".") && !slices.ContainsFunc(modules, within):
					all = append(all, fmt.Sprintf("%s: brings %s along, by %s", pkg, name, queue[0]))
				}
			}
		}
	}
	return all, nil
}

// importsOf are the imports of the files of one folder, without tests; none
// where there is no folder.
func importsOf(dir string) ([]string, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		return nil, err
	}
	var all []string
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			return nil, err
		}
		for _, i := range parsed.Imports {
			all = append(all, strings.Trim(i.Path.Value, `"`))
		}
	}
	return all, nil
}

func TestPublicPackagesBringLittleAlong(t *testing.T) {
	found, err := linkViolations(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range found {
		t.Error(v)
	}
	for pkg := range mayLink {
		if imports, err := importsOf(pkg); err != nil || len(imports) == 0 {
			t.Errorf("%s: there is nothing to look at: %v", pkg, err)
		}
	}
}

func TestPlantedLinksAreFound(t *testing.T) {
	for foreign, want := range map[string]bool{
		"k8s.io/client-go/rest": true, "google.golang.org/grpc": true, "github.com/go-jose/go-jose/v4x": true,
		"crypto/tls": false, "github.com/go-jose/go-jose/v4/cryptosigner": false,
	} {
		root := t.TempDir()
		plant(t, root, "token", `import _ "`+module+`internal/below"`)
		plant(t, root, "internal/below", `import _ "`+foreign+`"`)
		found, err := linkViolations(root)
		if err != nil || (len(found) == 1) != want {
			t.Errorf("%s: %q, %v", foreign, found, err)
		}
	}
}

func TestImportsFollowTheTable(t *testing.T) {
	for _, v := range violations(t, ".") {
		t.Error(v)
	}
}

func TestPlantedViolationsAreFound(t *testing.T) {
	plants := map[string]struct{ pkg, source, want string }{
		"an import against the direction":        {"internal/trust", `import _ "github.com/kubepki/kubepki/internal/layout"`, "may not import internal/layout"},
		"a disk in a pure package":               {"internal/check", `import _ "os"`, "is pure and may not import os"},
		"a foreign module in a pure package":     {"internal/catalog", `import _ "sigs.k8s.io/yaml"`, "is pure and may not import sigs.k8s.io/yaml"},
		"a clock in a pure package":              {"internal/trust", "import \"time\"\nvar _ = time.Now()", "may not call time.Now"},
		"a package that nobody listed":           {"internal/util", "", "not in the table"},
		"tests' own package in the program":      {"cmd/kubepki", `import _ "github.com/kubepki/kubepki/internal/testpki"`, "may not import internal/testpki"},
		"a disk in a package that only computes": {"internal/issue", `import _ "os"`, "may not import os"},
	}
	for name, p := range plants {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			plant(t, root, p.pkg, p.source)
			found := violations(t, root)
			if len(found) != 1 || !strings.Contains(found[0], p.want) {
				t.Errorf("want one violation with %q, got %q", p.want, found)
			}
		})
	}
}

func plant(t *testing.T, root, pkg, source string) {
	t.Helper()
	dir := filepath.Join(root, filepath.FromSlash(pkg))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "planted.go"), []byte("package planted\n"+source+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}
