package frontproxy_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/kubepki/kubepki/mtls/frontproxy"
)

func TestParseSettings(t *testing.T) {
	w := newWorld()
	good := func() map[string]string {
		return map[string]string{
			"client-ca-file": pemOf(w.cluster), "requestheader-client-ca-file": pemOf(w.proxies, authority("next")),
			"requestheader-allowed-names": `["front-proxy-client"]`, "requestheader-username-headers": `["X-Remote-User"]`, "requestheader-uid-headers": `["X-Remote-Uid"]`,
			"requestheader-group-headers": `["X-Remote-Group"]`, "requestheader-extra-headers-prefix": `["X-Remote-Extra-"]`, "another-key": "{",
		}
	}
	s, err := frontproxy.ParseSettings(good())
	if err != nil {
		t.Fatal(err)
	}
	if len(s.Bundle.Anchors()) != 2 || len(s.ClientBundle.Anchors()) != 1 || !slices.Equal(s.AllowedNames, []string{"front-proxy-client"}) ||
		!slices.Equal(s.UserHeaders, []string{"X-Remote-User"}) || !slices.Equal(s.UIDHeaders, []string{"X-Remote-Uid"}) ||
		!slices.Equal(s.GroupHeaders, []string{"X-Remote-Group"}) || !slices.Equal(s.ExtraPrefixes, []string{"X-Remote-Extra-"}) {
		t.Errorf("%+v", s)
	}
	for name, c := range map[string]struct {
		key, value string
		err        string // empty: it is taken
	}{
		"kube-apiserver of before 1.32":     {key: "requestheader-uid-headers"},
		"no users' authority":               {key: "client-ca-file"},
		"all names":                         {key: "requestheader-allowed-names", value: "[]"},
		"no list":                           {key: "requestheader-allowed-names", value: `"front-proxy-client"`, err: "requestheader-allowed-names: a list of texts"},
		"half a list":                       {key: "requestheader-group-headers", value: `["X-Remote-Group"`, err: "requestheader-group-headers: a list of texts"},
		"a bundle that is none":             {key: "requestheader-client-ca-file", value: "none", err: "requestheader-client-ca-file: "},
		"half a bundle":                     {key: "client-ca-file", value: pemOf(w.cluster)[:300], err: "client-ca-file: "},
		"a prefix that all headers have":    {key: "requestheader-extra-headers-prefix", value: `[""]`, err: "requestheader-extra-headers-prefix: "},
		"more than a ConfigMap can hold":    {key: "another-key", value: strings.Repeat("x", 1<<20), err: "may have 1048576"},
		"a header that no request has":      {key: "requestheader-username-headers", value: `["X Remote User"]`, err: "no name that a header can have"},
		"one authority for all, unnamed":    {key: "all", err: "each client could say that it is anybody"},
		"neither proxies' nor users'":       {key: "none", err: "nobody to believe"},
		"a name that nobody can have, \"\"": {key: "requestheader-allowed-names", value: `[""]`},
	} {
		t.Run(name, func(t *testing.T) {
			data := good()
			switch c.key {
			case "all":
				data["client-ca-file"], data["requestheader-allowed-names"] = data["requestheader-client-ca-file"], "[]"
			case "none":
				delete(data, "client-ca-file")
				delete(data, "requestheader-client-ca-file")
			default:
				data[c.key] = c.value
			}
			s, err := frontproxy.ParseSettings(data)
			if c.err == "" && (err != nil || s == nil) || c.err != "" && (err == nil || s != nil || !strings.Contains(err.Error(), c.err)) {
				t.Errorf("%v, %v", s, err)
			}
		})
	}
}
