package layout

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/trust"
)

// TestUnitsStartWhatSystemdWould: the flags of a kube-apiserver, or of the
// component that the row names, as systemd would start it. Files are relative to
// /etc/systemd/system unless they are absolute.
func TestUnitsStartWhatSystemdWould(t *testing.T) {
	const unit = "kube-apiserver.service"
	service := func(lines ...string) string { return "[Service]\n" + strings.Join(lines, "\n") + "\n" }
	for name, row := range map[string]struct {
		files     map[string]string
		component string // default kube-apiserver; "-": none
		want      string // flags in order of name
	}{
		"a flag with = and one without":                 {map[string]string{unit: service("ExecStart=/usr/bin/kube-apiserver --a=1 --b 2 -c=3")}, "", "a=1 b=2 c=3"},
		"lines joined by backslashes, comments between": {map[string]string{unit: service("ExecStart=/usr/bin/kube-apiserver \\", "  --a=1 \\", "# --b=2 \\", "  ; no", "  --c=3", "Restart=always")}, "", "a=1 c=3"},
		"a backslash before a blank joins nothing":      {map[string]string{unit: service("ExecStart=/usr/bin/kube-apiserver --a=1 \\ ", "  --b=2")}, "", "a=1"},
		"CRLF":                         {map[string]string{unit: "[Service]\r\nExecStart=/usr/bin/kube-apiserver \\\r\n --a=1\r\n"}, "", "a=1"},
		"a line longer than 2048":      {map[string]string{unit: service("ExecStart=/usr/bin/kube-apiserver --x=" + strings.Repeat("y", 5000) + " --a=1")}, "", "a=1 x=" + strings.Repeat("y", 5000)},
		"quotes of both kinds":         {map[string]string{unit: service(`ExecStart=/usr/bin/kube-apiserver '--a=1 2' "--b=x'y" --c='3 4' --d=a\x20b`)}, "", "a=1 2 b=x'y c=3 4 d=a b"},
		"a quoted program":             {map[string]string{unit: service(`ExecStart="/usr/bin/kube-apiserver" --a=1`)}, "", "a=1"},
		"prefixes of the program":      {map[string]string{unit: service("ExecStart=-+/usr/bin/kube-apiserver --a=1")}, "", "a=1"},
		"@ names the program":          {map[string]string{unit: service("ExecStart=@/usr/bin/kube-apiserver apiserver --a=1")}, "", "a=1"},
		": leaves variables alone":     {map[string]string{unit: service("Environment=V=1", "ExecStart=:/usr/bin/kube-apiserver --a=${V}")}, "", "a=${V}"},
		"two percent signs are one":    {map[string]string{unit: service("ExecStart=/usr/bin/kube-apiserver --a=50%% --b=%N")}, "", "a=50% b=kube-apiserver"},
		"$NAME is several words":       {map[string]string{unit: service(`Environment="ARGS=--a=1 --b='2 3'"`, "ExecStart=/usr/bin/kube-apiserver $ARGS --c=$ARGS")}, "", "a=1 b=2 3 c=$ARGS"},
		"${NAME} is a part of a word":  {map[string]string{unit: service(`Environment=IP=10.0.0.1 "PORT=1 2"`, "ExecStart=/usr/bin/kube-apiserver --a=${IP}:${PORT} --b=$$IP --c=${NONE}")}, "", "a=10.0.0.1:1 2 b=$IP c="},
		"an unset variable is no word": {map[string]string{unit: service("ExecStart=/usr/bin/kube-apiserver --a=1 $NONE --b=2")}, "", "a=1 b=2"},
		"a repeated flag keeps order":  {map[string]string{unit: service("ExecStart=/usr/bin/kube-apiserver --a=1 --a=2")}, "", "a=1,2"},
		"an environment file over Environment": {map[string]string{unit: service("EnvironmentFile=/etc/kube.env", "Environment=V=line", "ExecStart=/usr/bin/kube-apiserver --a=${V} $W"),
			"/etc/kube.env": "# V=no\nV=file\nW=\"--b=1 \\\n--c=2\"\n"}, "", "a=file b=1 c=2"},
		"a later environment file over an earlier": {map[string]string{unit: service("EnvironmentFile=-/etc/a.env", "EnvironmentFile=-/etc/b.env", "EnvironmentFile=-/etc/none.env", "ExecStart=/usr/bin/kube-apiserver --a=${V}"),
			"/etc/a.env": "V=a\n", "/etc/b.env": "V='b c' # no comment\n"}, "", "a=b c# no comment"},
		"environment files by a pattern": {map[string]string{unit: service("EnvironmentFile=/etc/kube.d/*.env", "ExecStart=/usr/bin/kube-apiserver --a=${V}"), "/etc/kube.d/1.env": "V=1", "/etc/kube.d/2.env": "V=2"}, "", "a=2"},
		"an empty Environment resets":    {map[string]string{unit: service("Environment=V=1", "Environment=", "ExecStart=/usr/bin/kube-apiserver --a=${V}")}, "", "a="},
		"UnsetEnvironment":               {map[string]string{unit: service("Environment=V=1 W=2", "UnsetEnvironment=V", "ExecStart=/usr/bin/kube-apiserver --a=${V}${W}")}, "", "a=2"},
		"a drop-in that resets":          {map[string]string{unit: service("ExecStart=/usr/bin/kube-apiserver --a=1"), unit + ".d/10.conf": service("ExecStart=", "ExecStart=/usr/bin/kube-apiserver --b=2")}, "", "b=2"},
		"drop-ins in the order of names, over folders": {map[string]string{unit: service("ExecStart=/usr/bin/kube-apiserver --a=${V}"),
			"/usr/lib/systemd/system/" + unit + ".d/20.conf": service("Environment=V=20"), unit + ".d/10.conf": service("Environment=V=10")}, "", "a=20"},
		"a drop-in hides its namesake of lesser rank": {map[string]string{unit: service("ExecStart=/usr/bin/kube-apiserver --a=${V}"),
			"/usr/lib/systemd/system/" + unit + ".d/20.conf": service("Environment=V=lib"), unit + ".d/20.conf": service("Environment=V=etc")}, "", "a=etc"},
		"drop-ins for all that start so":         {map[string]string{unit: service("ExecStart=/usr/bin/kube-apiserver --a=${V}"), "kube-.service.d/1.conf": service("Environment=V=kube"), "service.d/2.conf": service("Environment=V=all")}, "", "a=all"},
		"a unit of /etc hides that of a package": {map[string]string{unit: service("ExecStart=/usr/bin/kube-apiserver --a=etc"), "/usr/lib/systemd/system/" + unit: service("ExecStart=/usr/bin/kube-apiserver --a=lib")}, "", "a=etc"},
		"a unit of a package":                    {map[string]string{"/lib/systemd/system/" + unit: service("ExecStart=/usr/bin/kube-apiserver --a=lib")}, "", "a=lib"},
		"another section says nothing":           {map[string]string{unit: "[Unit]\nExecStart=/usr/bin/kube-apiserver --a=1\n"}, "-", ""},
		"a unit of any name":                     {map[string]string{"plane.service": service("ExecStart=/opt/k8s/kube-apiserver --a=1")}, "", "a=1"},
		"a shell":                                {map[string]string{unit: service(`Environment=A=--b=2`, `ExecStart=/bin/sh -c 'exec /usr/bin/kube-apiserver --a=1 $$A >/dev/null 2>&1'`)}, "", "a=1 b=2"},
		"bash with -e and two commands":          {map[string]string{unit: service(`ExecStart=/bin/bash -ec "mkdir -p /run/x && kube-apiserver --a='1 2'"`)}, "", "a=1 2"},
		"hyperkube":                              {map[string]string{unit: service("ExecStart=/opt/hyperkube kube-apiserver --a=1")}, "", "a=1"},
		"hyperkube with a short name":            {map[string]string{unit: service("ExecStart=/opt/hyperkube apiserver --a=1")}, "", "a=1"},
		"behind nice":                            {map[string]string{unit: service("ExecStart=/usr/bin/nice -n -5 /usr/bin/kube-apiserver --a=1")}, "", "a=1"},
		"the second of two commands":             {map[string]string{unit: service("ExecStart=/bin/true --x=1 ; /usr/bin/kube-apiserver --a=1")}, "", "a=1"},
		"another program with a component's name in its arguments": {map[string]string{unit: service("ExecStart=/usr/bin/logger kube-apiserver --a=1")}, "-", ""},
		"etcd by variables alone": {map[string]string{"etcd.service": service("EnvironmentFile=/etc/etcd.env", "ExecStart=/usr/bin/etcd --name=a"), "/etc/etcd.env": "ETCD_NAME=b\nETCD_CERT_FILE=/c.pem\nETCD_CLIENT_CERT_AUTH=true\n"},
			catalog.Etcd, "cert-file=/c.pem client-cert-auth=true name=a"},
		"kubeadm's drop-in for the kubelet": {map[string]string{
			"/usr/lib/systemd/system/kubelet.service": service("ExecStart=/usr/bin/kubelet"),
			"/usr/lib/systemd/system/kubelet.service.d/10-kubeadm.conf": service(`Environment="KUBELET_KUBECONFIG_ARGS=--bootstrap-kubeconfig=/b.conf --kubeconfig=/k.conf"`,
				`Environment="KUBELET_CONFIG_ARGS=--config=/c.yaml"`, "EnvironmentFile=-/var/lib/kubelet/kubeadm-flags.env", "EnvironmentFile=-/etc/default/kubelet", "ExecStart=",
				"ExecStart=/usr/bin/kubelet $KUBELET_KUBECONFIG_ARGS $KUBELET_CONFIG_ARGS $KUBELET_KUBEADM_ARGS $KUBELET_EXTRA_ARGS"),
			"/var/lib/kubelet/kubeadm-flags.env": `KUBELET_KUBEADM_ARGS="--node-ip=10.0.0.1 --x=1"`, "/etc/default/kubelet": "KUBELET_EXTRA_ARGS=--x=2\n"},
			catalog.Kubelet, "bootstrap-kubeconfig=/b.conf config=/c.yaml kubeconfig=/k.conf node-ip=10.0.0.1 x=1,2"},
	} {
		t.Run(name, func(t *testing.T) {
			r := unitNode(t, row.files)
			component := row.component
			if component == "" {
				component = catalog.APIServer
			}
			c, ok := find(r.unitComponents(), func(c trust.Component) bool { return c.Name == component })
			if component == "-" && len(r.unitComponents()) > 0 || component != "-" && !ok {
				t.Fatalf("components: %+v", r.unitComponents())
			}
			var got []string
			for flag, values := range c.Flags {
				got = append(got, flag+"="+strings.Join(values, ","))
			}
			slices.Sort(got)
			if d := cmp.Diff(row.want, strings.Join(got, " ")); d != "" {
				t.Error(d)
			}
		})
	}
}

// unitNode is a node with some files; names that are not absolute are below
// /etc/systemd/system.
func unitNode(t testing.TB, files map[string]string) *nodeReader {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		if !strings.HasPrefix(name, "/") {
			name = "/etc/systemd/system/" + name
		}
		at := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	dir, err := os.OpenRoot(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	return newNodeReader(dir, "")
}

// TestAFlagStandsWhereItsVariableIsSet, so that a finding names the file to mend.
func TestAFlagStandsWhereItsVariableIsSet(t *testing.T) {
	r := unitNode(t, map[string]string{
		"etcd.service":           "[Service]\nEnvironmentFile=/etc/etcd.env\nExecStart=/usr/bin/etcd --name=a $MORE\n",
		"etcd.service.d/10.conf": "[Service]\nEnvironment=MORE=--key-file=/k\n",
		"/etc/etcd.env":          "ETCD_CERT_FILE=/c.pem\n",
	})
	c := r.unitComponents()[0]
	for flag, want := range map[string]string{
		"name": "/etc/systemd/system/etcd.service --name", "key-file": "/etc/systemd/system/etcd.service.d/10.conf --key-file", "cert-file": "/etc/etcd.env ETCD_CERT_FILE",
	} {
		if p := c.Setting(flag); p.Path+" "+p.Field != want {
			t.Errorf("%s stands at %s (%s), want %s", flag, p.Path, p.Field, want)
		}
	}
}

// TestMaskedUnits run nothing, whatever a package has.
func TestMaskedUnits(t *testing.T) {
	r := unitNode(t, map[string]string{"/usr/lib/systemd/system/etcd.service": "[Service]\nExecStart=/usr/bin/etcd --name=a\n", "/etc/systemd/system/x": ""})
	if err := r.dir.Symlink("/dev/null", "etc/systemd/system/etcd.service"); err != nil {
		t.Fatal(err)
	}
	if got := r.unitComponents(); len(got) != 0 {
		t.Errorf("a masked unit runs %+v", got)
	}
}

// FuzzUnit: whatever stands in a unit and its environment file, reading ends, and
// no word comes from nowhere.
func FuzzUnit(f *testing.F) {
	f.Add("[Service]\nExecStart=/usr/bin/kube-apiserver \\\n --a='b c' $X ${Y}\n", "X=\"1 \\\n2\"\nY='")
	f.Add("[Service]\nExecStart=@-:x y \\; ; z \\x41 \\101 \\\n", "#\\\nA=\\")
	f.Add("\ufeff[Service\n[Service]\r\nExecStart=sh -c 'exec etcd --a'", "=\n==\n A = b ")
	f.Fuzz(func(t *testing.T, unit, environment string) {
		if len(unit)+len(environment) > 1<<16 {
			t.Skip("longer than a unit is")
		}
		variables := map[string]string{}
		for _, v := range parseEnvironment(environment) {
			if !isVariableName(v.name) || len(v.value) > len(environment) {
				t.Fatalf("variable %q=%q of %q", v.name, v.value, environment)
			}
			variables[v.name] = v.value
		}
		var starts []string
		for _, s := range parseUnit(unit) {
			if len(s.value) > len(unit) {
				t.Fatalf("%q is longer than the unit", s.value)
			}
			if s.name == "ExecStart" {
				starts = append(starts, s.value)
			}
		}
		for _, c := range execStart(starts, variables, unitSpecifiers("a@b.service")) {
			if len(c.words) == 0 {
				t.Fatal("a command without a program")
			}
			if name, words := c.component(variables); name != "" {
				parseFlags(words)
			}
		}
	})
}
