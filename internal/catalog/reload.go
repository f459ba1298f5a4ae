package catalog

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// Manner says how a component takes up a file that was replaced.
type Manner string

// The manners of [Takeup].
const (
	// AtHandshake: read anew for each new connection.
	AtHandshake Manner = "handshake"
	// ByItself: taken up without a restart and without a new connection, at the
	// latest after Takeup.Within, if it is noticed at all (Takeup.Notified).
	ByItself Manner = "by itself"
	// AtRestart: read once, when the component starts.
	AtRestart Manner = "restart"
	// WrittenByItself: the component asks for the credential and writes the
	// file; what somebody else writes there is not meant to be.
	WrittenByItself Manner = "own"
)

// Live says what becomes of connections that were made before the take-up.
type Live string

// The fates of live connections.
const (
	// LiveKeep: they go on with what they were made with, as long as they live.
	LiveKeep Live = "keep the old"
	// LiveJudged: each further request on them is judged by what was taken up.
	LiveJudged Live = "judged anew"
	// LiveClosed: the component closes them and connects again.
	LiveClosed Live = "closed"
)

// Takeup is how one setting of a component takes up a change of what it names.
type Takeup struct {
	Manner Manner
	// Within bounds the time until a change is in use, where Manner is
	// ByItself; else 0. It is the interval of the upstream source; what was
	// seen stands in docs/reload.md.
	Within time.Duration
	// Notified tells that the component learns of the change by a notification
	// of the kernel alone: mostly within a second. Where none comes it never
	// does: on network file systems, and when a symbolic link is switched to
	// another file while the old one stays. Within then bounds only how often
	// it tries again to watch a file that it could not watch.
	Notified bool
	Live     Live // empty where the Manner leaves no such connection: AtRestart
	// Source is the upstream file that says so.
	Source string
}

// ReloadRow is one row of the reload matrix: a setting of a component, in a
// range of versions.
type ReloadRow struct {
	Component string
	// Setting is a flag without dashes, as in [FlagUses]; or a field of the
	// kubeconfig that the component dials with, by its own name
	// (client-certificate is a path, client-certificate-data is embedded); of
	// a [Pod], a file of its service-account volume. The fields of a kubelet's
	// configuration file have the names of their flags.
	Setting string
	// From and To are minor versions of the component, "1.36" or, of etcd,
	// "3.6": From is the first, To the first for which the row holds no more.
	// An empty To is open.
	From, To string
	Takeup
}

// Pod stands for a program in a pod that uses client-go with the service
// account's volume (rest.InClusterConfig).
const Pod = "pod"

// Reload returns how a component of a version, as v1.37.2 or, of etcd,
// 3.6.5-0, takes up a change of what a setting names: see [ReloadRow] for how
// settings are named. It tells false where nothing was measured: for settings
// that are not listed and for versions before the first row. What is not known
// to reload has to be restarted.
func Reload(component, setting, version string) (Takeup, bool) {
	at, ok := minorOf(version)
	if !ok {
		return Takeup{}, false
	}
	for _, r := range Reloads() {
		if r.Component == component && r.Setting == setting && r.holds(at) {
			return r.Takeup, true
		}
	}
	return Takeup{}, false
}

func (r ReloadRow) holds(at minor) bool {
	from, _ := minorOf(r.From)
	to, bounded := minorOf(r.To)
	return !at.before(from) && (!bounded || at.before(to))
}

// minor is a version without its patch.
type minor struct{ major, minor int }

func (m minor) before(o minor) bool {
	return m.major < o.major || m.major == o.major && m.minor < o.minor
}

func minorOf(version string) (minor, bool) {
	parts := strings.SplitN(strings.TrimPrefix(version, "v"), ".", 3)
	if len(parts) < 2 {
		return minor{}, false
	}
	x, err := strconv.Atoi(parts[0])
	y, err2 := strconv.Atoi(parts[1])
	return minor{x, y}, err == nil && err2 == nil
}

// Reloads returns the whole matrix, ordered by component. Every row was
// measured on the real components in the lab, but for those that
// docs/reload.md marks: they run the same code as a row that was.
func Reloads() []ReloadRow {
	return slices.Concat(apiserverReloads(), controllerManagerReloads(), schedulerReloads(),
		kubeletReloads(), clientReloads(KubeProxy), podReloads(), etcdReloads())
}

// The first versions that were measured.
const (
	firstKubernetes = "1.35"
	firstEtcd       = "3.6"
)

// Intervals of the upstream sources.
const (
	// How often DynamicFileCAContent and DynamicCertKeyPairContent (dynamicFiles)
	// try to watch their files again when they could not. Nothing else makes
	// them look: FileRefreshDuration is not used for files.
	fileInterval = time.Minute
	// CertCallbackRefreshDuration and caRefreshDuration of client-go.
	clientInterval = 5 * time.Minute
	// The period of client-go's cachingTokenSource.
	tokenInterval = time.Minute
)

// Upstream sources.
const (
	dynamicFiles   = "k8s.io/apiserver/pkg/server/dynamiccertificates"
	clientRotation = "k8s.io/client-go/transport/cert_rotation.go"
	clientCA       = "k8s.io/client-go/transport/ca_rotation.go"
	clientTLS      = "k8s.io/client-go/transport/transport.go"
	clientToken    = "k8s.io/client-go/transport/token_source.go"
	clientCmd      = "k8s.io/client-go/tools/clientcmd"
	etcdListener   = "go.etcd.io/etcd/client/pkg/v3/transport/listener.go"
)

// notified is the manner of everything that is built on dynamicFiles.
func notified(live Live, source string) Takeup {
	return Takeup{Manner: ByItself, Within: fileInterval, Notified: true, Live: live, Source: source}
}

// polled is the manner of what is read again after a time.
func polled(within time.Duration, live Live, source string) Takeup {
	return Takeup{Manner: ByItself, Within: within, Live: live, Source: source}
}

// rows makes one row for each setting, from the first version on.
func rows(component string, t Takeup, settings ...string) []ReloadRow {
	from := firstKubernetes
	if component == Etcd {
		from = firstEtcd
	}
	var out []ReloadRow
	for _, s := range settings {
		out = append(out, ReloadRow{Component: component, Setting: s, From: from, Takeup: t})
	}
	return out
}

func apiserverReloads() []ReloadRow {
	proxied := notified(LiveKeep, "k8s.io/kube-aggregator/pkg/apiserver/apiserver.go (aggregator-proxy-cert)")
	storage := "k8s.io/apiserver/pkg/storage/storagebackend/factory/etcd3.go, " + etcdListener
	keys := "k8s.io/kubernetes/pkg/serviceaccount/jwt.go (StaticPublicKeysGetter)"
	return slices.Concat(
		servingReloads(APIServer),
		rows(APIServer, notified(LiveKeep, dynamicFiles), "tls-sni-cert-key"),
		rows(APIServer, proxied, "proxy-client-cert-file", "proxy-client-key-file"),
		rows(APIServer, polled(clientInterval, LiveClosed, clientRotation), "kubelet-client-certificate", "kubelet-client-key"),
		clientCAReloads(APIServer, "kubelet-certificate-authority"),
		rows(APIServer, Takeup{Manner: AtHandshake, Live: LiveKeep, Source: storage}, "etcd-certfile", "etcd-keyfile"),
		rows(APIServer, Takeup{Manner: AtRestart, Source: storage}, "etcd-cafile"),
		rows(APIServer, Takeup{Manner: AtRestart, Source: keys}, "service-account-key-file"),
		rows(APIServer, Takeup{Manner: AtRestart, Source: "k8s.io/kubernetes/pkg/controlplane/apiserver/options/options.go"}, "service-account-signing-key-file"),
	)
}

func controllerManagerReloads() []ReloadRow {
	signing := notified(LiveKeep, "k8s.io/kubernetes/pkg/controller/certificates/signer/ca_provider.go")
	var signers []string
	for _, u := range signingFlags() {
		signers = append(signers, u.Flag)
	}
	return slices.Concat(
		servingReloads(ControllerManager),
		rows(ControllerManager, signing, signers...),
		rows(ControllerManager, Takeup{Manner: AtRestart, Source: "k8s.io/kubernetes/cmd/kube-controller-manager/app/certificates.go (readCA)"}, "root-ca-file"),
		rows(ControllerManager, Takeup{Manner: AtRestart, Source: "k8s.io/kubernetes/cmd/kube-controller-manager/app/service_accounts.go"}, "service-account-private-key-file"),
		clientReloads(ControllerManager),
		delegateReloads(ControllerManager),
	)
}

func schedulerReloads() []ReloadRow {
	return slices.Concat(servingReloads(Scheduler), clientReloads(Scheduler), delegateReloads(Scheduler))
}

// delegateReloads: the kubeconfigs that a component asks the API server with
// who its own callers are. Their fields are taken up as those of clientReloads.
func delegateReloads(component string) []ReloadRow {
	return rows(component, Takeup{Manner: AtRestart, Source: clientCmd}, "authentication-kubeconfig", "authorization-kubeconfig")
}

// servingReloads are the rows of every server that is built on k8s.io/apiserver.
func servingReloads(component string) []ReloadRow {
	return slices.Concat(
		rows(component, notified(LiveKeep, dynamicFiles+"/dynamic_serving_content.go"), "tls-cert-file", "tls-private-key-file"),
		rows(component, notified(LiveJudged, dynamicFiles+"/dynamic_cafile_content.go"), "client-ca-file", "requestheader-client-ca-file"),
	)
}

// clientReloads are the rows of the kubeconfig that a component dials with. The
// file itself is read once, and so is all that is embedded in it.
func clientReloads(component string) []ReloadRow {
	once := Takeup{Manner: AtRestart, Source: clientCmd}
	return slices.Concat(
		rows(component, once, "kubeconfig"),
		rows(component, Takeup{Manner: AtRestart, Source: clientTLS}, "client-certificate-data", "client-key-data", "certificate-authority-data"),
		rows(component, once, "token"),
		rows(component, polled(clientInterval, LiveClosed, clientRotation), "client-certificate", "client-key"),
		clientCAReloads(component, "certificate-authority"),
		rows(component, polled(tokenInterval, LiveJudged, clientToken), "tokenFile"),
	)
}

// clientCAReloads: client-go takes up a CA file since 1.36, by the feature
// ClientsAllowCARotation, on by default.
func clientCAReloads(component, setting string) []ReloadRow {
	return []ReloadRow{
		{component, setting, firstKubernetes, "1.36", Takeup{Manner: AtRestart, Source: clientTLS}},
		{component, setting, "1.36", "", polled(clientInterval, LiveKeep, clientCA)},
	}
}

func kubeletReloads() []ReloadRow {
	manager := "k8s.io/client-go/util/certificate/certificate_manager.go"
	return slices.Concat(
		kubeletServingReloads("tls-cert-file"),
		kubeletServingReloads("tls-private-key-file"),
		rows(Kubelet, notified(LiveJudged, dynamicFiles+"/dynamic_cafile_content.go"), "client-ca-file"),
		// A kubelet that has no client certificate for five minutes ends by itself.
		rows(Kubelet, Takeup{Manner: AtRestart, Source: "k8s.io/kubernetes/pkg/kubelet/certificate/bootstrap/bootstrap.go"}, "bootstrap-kubeconfig"),
		rows(Kubelet, Takeup{Manner: WrittenByItself, Live: LiveClosed, Source: "k8s.io/kubernetes/pkg/kubelet/certificate/transport.go"}, "rotate-certificates"),
		rows(Kubelet, Takeup{Manner: WrittenByItself, Live: LiveKeep, Source: manager}, "rotate-server-certificates"),
		clientReloads(Kubelet),
	)
}

// kubeletServingReloads: before 1.36 the kubelet hands its pair to Go's TLS
// server too, which presents that one to every client that names no server in
// its handshake: whoever dials an address, as kube-apiserver does. To others it
// presents what it has read since.
func kubeletServingReloads(setting string) []ReloadRow {
	return []ReloadRow{
		{Kubelet, setting, firstKubernetes, "1.36", Takeup{Manner: AtRestart, Source: "k8s.io/kubernetes/pkg/kubelet/server/server.go (ListenAndServeTLS)"}},
		{Kubelet, setting, "1.36", "", notified(LiveKeep, "k8s.io/kubernetes/pkg/kubelet/certificate/kubelet.go")},
	}
}

func podReloads() []ReloadRow {
	return slices.Concat(
		clientCAReloads(Pod, "ca.crt"),
		rows(Pod, polled(tokenInterval, LiveJudged, clientToken), "token"),
	)
}

func etcdReloads() []ReloadRow {
	return slices.Concat(
		rows(Etcd, Takeup{Manner: AtHandshake, Live: LiveKeep, Source: etcdListener}, "cert-file", "key-file", "peer-cert-file", "peer-key-file"),
		rows(Etcd, Takeup{Manner: AtRestart, Source: etcdListener}, "trusted-ca-file", "peer-trusted-ca-file"),
	)
}
