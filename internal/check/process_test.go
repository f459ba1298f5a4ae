package check_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/testpki"
	"github.com/kubepki/kubepki/internal/trust"
)

// TestProcessesThatWereNotStartedAgain: one finding for a component that runs
// with other flags than its unit has now.
func TestProcessesThatWereNotStartedAgain(t *testing.T) {
	unit := trust.Place{Path: "/etc/systemd/system/kube-apiserver.service"}
	flags := func(pairs ...string) map[string][]string {
		m := map[string][]string{}
		for _, p := range pairs {
			name, value, _ := strings.Cut(p, "=")
			m[name] = append(m[name], value)
		}
		return m
	}
	written := flags("tls-cert-file=/a.crt", "client-ca-file=/ca.crt", "authorization-mode=Node,RBAC")
	run := func(pid int, flags map[string][]string) trust.Process {
		return trust.Process{PID: pid, Component: catalog.APIServer, Flags: flags, Written: written, Environment: true}
	}
	for name, row := range map[string]struct {
		running []trust.Process
		want    string
	}{
		"as it is written":                  {[]trust.Process{run(7, written)}, ""},
		"more flags of no account":          {[]trust.Process{run(7, flags("tls-cert-file=/a.crt", "client-ca-file=/ca.crt", "authorization-mode=Node,RBAC", "v=4"))}, ""},
		"another serving certificate":       {[]trust.Process{run(7, flags("tls-cert-file=/old.crt", "client-ca-file=/ca.crt", "authorization-mode=Node,RBAC"))}, "serving-stale --tls-cert-file"},
		"another authority of clients":      {[]trust.Process{run(7, flags("tls-cert-file=/a.crt", "client-ca-file=/old.crt", "authorization-mode=Node,RBAC"))}, "trust-stale --client-ca-file"},
		"all is let in":                     {[]trust.Process{run(7, flags("tls-cert-file=/a.crt", "client-ca-file=/ca.crt"))}, "trust-stale --authorization-mode"},
		"two differ, which is one fault":    {[]trust.Process{run(7, flags("tls-cert-file=/old.crt", "client-ca-file=/old.crt", "authorization-mode=Node,RBAC"))}, "trust-stale --client-ca-file"},
		"one of two is as it is written":    {[]trust.Process{run(7, flags("tls-cert-file=/x.crt")), run(8, written)}, ""},
		"a value that the unit cannot tell": {[]trust.Process{{PID: 7, Component: catalog.APIServer, Flags: written, Written: flags("tls-cert-file=/a.crt", "client-ca-file=${UNKNOWN}", "authorization-mode=Node,RBAC")}}, ""},
		"a file that it has mounted alone":  {[]trust.Process{{PID: 7, Component: catalog.APIServer, Flags: written, Written: written, OtherFiles: []string{"tls-cert-file"}}}, "serving-stale --tls-cert-file"},
	} {
		t.Run(name, func(t *testing.T) {
			n := trust.Node{Live: true, Layout: catalog.LayoutHardway, Components: []trust.Component{{Name: catalog.APIServer, Source: unit, Flags: written}}, Processes: row.running}
			r := check.Run(catalog.Wire([]trust.Node{n}), check.Options{At: testpki.At})
			var got []string
			for _, f := range r.Findings {
				if strings.HasSuffix(f.ID, "-stale") {
					got = append(got, f.ID+" "+f.Field)
					if f.Path != unit.Path || !strings.Contains(f.Cause, "process 7") || !strings.Contains(f.Fix, "systemctl restart kube-apiserver.service") {
						t.Errorf("%+v", f)
					}
				}
			}
			if want := slices.DeleteFunc([]string{row.want}, func(s string) bool { return s == "" }); !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}
