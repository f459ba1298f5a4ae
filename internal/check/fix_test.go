package check

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/kubepki/kubepki/internal/trust"
)

// TestCommandsTakeNamesAsTheyAre: names and paths of files that anybody may have
// written are words for sh, whatever is in them.
func TestCommandsTakeNamesAsTheyAre(t *testing.T) {
	for _, name := range []string{"plain", "with blanks", "a'b", `a"b`, "$(touch pwned)", "`touch pwned`", "a;b|c&d", "a\nb", "", "*", "~", "ä", "-n", `back\slash`, "#"} {
		out, err := exec.Command("sh", "-c", sh("printf", "%s|", name, "end")).Output()
		if err != nil || string(out) != name+"|end|" {
			t.Errorf("%q became %q (%v)", name, out, err)
		}
	}
}

func TestKindsOfFixes(t *testing.T) {
	for fix, want := range map[string]FixKind{
		"kubepki renew apiserver --yes":                           FixCommand,
		"chmod 600 /etc/kubernetes/PKI/FILES.key":                 FixCommand,
		"cp -p BACKUP/etc/a /etc/a":                               FixFillIn,
		"install -m 600 FILE /etc/a":                              FixFillIn,
		"kubectl config set-cluster c --server=https://HOST:PORT": FixFillIn,
		"restart etcd":   FixWords,
		"set --a to b":   FixWords,
		"":               "",
		"catalogue of x": FixWords,
	} {
		if got := fixKindOf(fix); got != want {
			t.Errorf("%q is %q, want %q", fix, got, want)
		}
	}
}

// TestFlagsAreSetOnlyWhereTheyStand: the edit of a manifest changes the value of one
// flag, twice the same, and what it cannot write safely is words.
func TestFlagsAreSetOnlyWhereTheyStand(t *testing.T) {
	at := trust.Place{Path: "/m.yaml"}
	rows := []struct{ name, in, want string }{
		{"the usual form", "    - --etcd-cafile=/a # why\n    - --etcd-cafile-x=/a\n", "    - --etcd-cafile=/new # why\n    - --etcd-cafile-x=/a\n"},
		{"in quotes", "    - \"--etcd-cafile=/a\"\n    - '--etcd-cafile=/a'\n", "    - \"--etcd-cafile=/new\"\n    - '--etcd-cafile=/new'\n"},
		{"an empty value", "    - --etcd-cafile=\n", "    - --etcd-cafile=/new\n"},
		{"the name of another flag", "    - --x--etcd-cafile=/a\n", "    - --x--etcd-cafile=/a\n"},
		{"in a unit", "ExecStart=/usr/bin/x \\\n  --etcd-cafile=/a \\\n  --b=c\n", "ExecStart=/usr/bin/x \\\n  --etcd-cafile=/new \\\n  --b=c\n"},
	}
	for _, r := range rows {
		text := r.in
		for range 2 {
			c := exec.Command("sh", "-c", strings.Replace(strings.TrimSuffix(setFlag(at, "--etcd-cafile", "/new"), " /m.yaml"), " -i", "", 1))
			c.Stdin = strings.NewReader(text)
			out, err := c.Output()
			if err != nil || string(out) != r.want {
				t.Errorf("%s: %v\n%s", r.name, err, out)
			}
			text = string(out)
		}
	}
	for _, value := range []string{"a b", "a#b", "a&b", `a\1`, "a'b", "a\nb"} {
		if fix := setFlag(at, "--x", value); fixKindOf(fix) != FixWords {
			t.Errorf("%q is written by %s", value, fix)
		}
	}
	if fix := setFlag(trust.Place{Path: "/proc/1/cmdline"}, "--x", "y"); fixKindOf(fix) != FixWords {
		t.Errorf("a process is edited: %s", fix)
	}
}

// TestRestartsAreInTheNodesOwnTerms: kubepki's where static pods and units are, the
// distribution's where all of a node is one process.
func TestRestartsAreInTheNodesOwnTerms(t *testing.T) {
	for layout, want := range map[string]string{
		"kubeadm": "kubepki node restart kube-apiserver --yes  # why", "k3s": "systemctl restart k3s  # why", "microk8s": "microk8s stop && microk8s start  # why",
	} {
		g := &trust.Graph{Nodes: []trust.Node{{Name: "a", Layout: layout, Components: []trust.Component{{Node: "a", Name: "kube-apiserver"}}}}}
		f := (&Case{Graph: g}).inItsTerms(Finding{ID: "trust-stale", Node: "a", Fix: know(restartCommand("a/kube-apiserver"), "why")})
		if f.Fix != want {
			t.Errorf("%s: %q", layout, f.Fix)
		}
	}
}
