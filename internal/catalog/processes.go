package catalog

import (
	"path"
	"slices"
	"strings"
)

// decisiveFlags are those that name no file and yet decide who is let in.
var decisiveFlags = map[string][]string{
	APIServer: {"anonymous-auth", "authentication-config", "authorization-config", "authorization-mode", "etcd-servers", "requestheader-allowed-names",
		"service-account-issuer", "token-auth-file"},
	Etcd:    {"client-cert-auth", "peer-client-cert-auth", "listen-client-urls", "listen-peer-urls", "config-file"},
	Kubelet: {"anonymous-auth", "authorization-mode", "config"},
}

// CredentialFlags are the flags of a component that name files of credentials or
// trust, or decide who is let in: those in which a process must not differ from
// what is written.
func CredentialFlags(component string) []string {
	var flags []string
	for _, u := range flagUses[component] {
		flags = append(flags, u.Flag)
	}
	flags = append(flags, decisiveFlags[component]...)
	slices.Sort(flags)
	return slices.Compact(flags)
}

// ServingFlags are the flags that name the pair that a component serves.
func ServingFlags(component string) []string {
	if component == Etcd {
		return []string{"cert-file", "key-file", "peer-cert-file", "peer-key-file"}
	}
	return []string{"tls-cert-file", "tls-private-key-file"}
}

// UnitOf is the systemd unit that a file is of, itself or as a drop-in; empty when
// it is of none.
func UnitOf(file string) string {
	name := path.Base(file)
	if dir := path.Base(path.Dir(file)); strings.HasSuffix(dir, ".service.d") {
		return strings.TrimSuffix(dir, ".d")
	}
	if strings.HasSuffix(name, ".service") {
		return name
	}
	return ""
}
