package plan

import (
	"slices"
	"strings"
	"time"

	"github.com/kubepki/kubepki/internal/catalog"
)

// Uptake says how a process takes up what was written.
type Uptake string

// The ways in which a process takes up a change.
const (
	AtOnce        Uptake = "at once"        // at its next handshake, call or look-up
	Within        Uptake = "within"         // by itself, after Reload.Within at the latest
	Restart       Uptake = "restart"        // never by itself
	Published     Uptake = "published"      // an object of the API: by the component that publishes it
	NotApplicable Uptake = "not applicable" // the process does not use it
)

// Reload tells how a running process takes up a file that was replaced.
type Reload struct {
	Uptake Uptake
	Within time.Duration // of Within: the longest time that it takes
}

// Reloads tells how a component of a name takes up what a setting names. A
// setting is a flag without dashes, or one of the fields of a kubeconfig
// ([SettingEmbeddedCA] and its like), or an object of the API. The version of
// the component is the caller's business. [Measured] makes one.
type Reloads func(component, setting string) Reload

// Settings that are no flags.
const (
	SettingEmbeddedCA          = "certificate-authority-data"
	SettingCAPath              = "certificate-authority"
	SettingEmbeddedCertificate = "client-certificate-data"
	SettingCertificatePath     = "client-certificate"
	SettingRootCA              = "kube-root-ca.crt"                   // of pods
	SettingAuthentication      = "extension-apiserver-authentication" // of extension apiservers
	SettingTokens              = "token"                              // of whoever bears service-account tokens
)

// Callers and callees of the graph that are no components of a node.
const (
	anyClient          = "any client"
	pods               = "pod"
	extensionAPIServer = "extension apiserver"
	tokenBearers       = "bearers of service-account tokens"
)

// reload asks the table. People and probes read their files at each call. A
// process of which nothing is known must be restarted.
func (r *Rotation) reload(c *copyOf) Reload {
	name := componentName(c.component)
	switch {
	case slices.Contains([]string{catalog.Admin, catalog.SuperAdmin, catalog.Etcdctl, anyClient}, name), strings.HasPrefix(name, "user "):
		return Reload{Uptake: AtOnce}
	case c.component == publisher:
		return Reload{Uptake: Published}
	case c.role == roleSigner && c.setting == "":
		return Reload{Uptake: AtOnce} // an authority's own key: whoever signs reads it
	case c.moved:
		return Reload{Uptake: Restart} // a flag is read at the start alone
	case r.Reloads == nil:
		return Reload{Uptake: Restart}
	}
	return r.Reloads(name, c.setting)
}

func componentName(id string) string { return id[strings.LastIndexByte(id, '/')+1:] }
