package main

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/handover"
	"github.com/kubepki/kubepki/internal/kube"
	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/report"
	"github.com/kubepki/kubepki/internal/trust"
)

type nodeDownloadOptions struct {
	access        kube.Access
	key           certificateKeyFlags
	join          nodeJoinOptions // server, token and pins alone
	from          string
	root, certDir string
	etcd          map[string]*string // of an etcd elsewhere: where its files go
	timeout       time.Duration
	output        string
	dryRun        bool
}

func newNodeDownloadCertsCommand(s streams) *cobra.Command {
	o := nodeDownloadOptions{etcd: map[string]*string{handover.ExternalEtcdCA: new(string), handover.ExternalEtcdCert: new(string), handover.ExternalEtcdKey: new(string)}}
	c := &cobra.Command{
		Use:   "download-certs",
		Short: "Take over what control planes share, on a node that becomes one",
		Long: `Take what kubepki node upload-certs or kubeadm init phase upload-certs has put
into the Secret kube-system/kubeadm-certs, decrypt it with the certificate key,
and write it to this node: the authorities and the keys of service accounts.

The cluster is found as node join finds it (--server with --token-file and
--discovery-token-ca-cert-hash), or by a kubeconfig, such as the one that the
node joins with. --from reads the Secret from a file and asks nobody.

Nothing is written unless all of it can be decrypted, is what its name says, and
belongs together. A file that is there with the same content stays as it is; with
another content it is refused. Then kubepki init makes the node's own
certificates (docs/join-control-plane.md).`,
		Example: `  # As kubeadm join --control-plane does
  sudo kubepki node download-certs --certificate-key-file key --server 10.0.0.11:6443 --token-file token --discovery-token-ca-cert-hash sha256:...

  # With the kubeconfig that the node joins with
  sudo kubepki node download-certs --certificate-key-file key --kubeconfig /etc/kubernetes/bootstrap-kubelet.conf

  # Without an API server: from the manifests of upload-certs -o yaml
  kubepki node download-certs --root ./cp2 --certificate-key-file key --from kubeadm-certs.yaml`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return o.run(c.Context(), s) },
	}
	f := c.Flags()
	o.key.add(f)
	f.StringVar(&o.join.server, "server", "", "HOST:PORT or URL of the API server, to be found by token")
	o.join.token.add(f)
	f.StringSliceVar(&o.join.pins, "discovery-token-ca-cert-hash", nil, "sha256:HEX of the public key of the cluster's authority, with --server (repeatable)")
	f.BoolVar(&o.join.unpinned, "discovery-token-unsafe-skip-ca-verification", false, "without one: whoever knows the token can pose as the cluster")
	f.StringVar(&o.access.Kubeconfig, "kubeconfig", "", "kubeconfig of the cluster, instead of --server")
	f.StringVar(&o.access.Context, "context", "", "context of the kubeconfig (default: the current one)")
	f.StringVar(&o.from, "from", "", "file with the Secret, in YAML or JSON, instead of a cluster; -: standard input")
	f.StringVar(&o.root, "root", "/", "folder that stands for / of the new control plane")
	f.StringVar(&o.certDir, "cert-dir", catalog.DefaultCertificatesDir, "certificates folder on the node")
	f.StringVar(o.etcd[handover.ExternalEtcdCA], "etcd-cafile", path.Join(catalog.DefaultCertificatesDir, "etcd/ca.crt"), "of an etcd elsewhere: where its authority goes on the node")
	f.StringVar(o.etcd[handover.ExternalEtcdCert], "etcd-certfile", path.Join(catalog.DefaultCertificatesDir, "apiserver-etcd-client.crt"), "of an etcd elsewhere: where kube-apiserver's certificate goes on the node")
	f.StringVar(o.etcd[handover.ExternalEtcdKey], "etcd-keyfile", path.Join(catalog.DefaultCertificatesDir, "apiserver-etcd-client.key"), "of an etcd elsewhere: where its key goes on the node")
	f.DurationVar(&o.timeout, "timeout", 5*time.Minute, "how long to wait for the API server")
	f.StringVarP(&o.output, "output", "o", "table", "table, json or yaml")
	f.BoolVar(&o.dryRun, "dry-run", false, "tell what would be written, and write nothing")
	return c
}

func (o *nodeDownloadOptions) run(ctx context.Context, s streams) error {
	if err := o.check(); err != nil {
		return err
	}
	key, err := o.key.read(s)
	if err != nil {
		return err
	}
	if key.IsZero() {
		return usagef("no certificate key is given: name its file with --certificate-key-file, or set %s", certificateKeyVariable)
	}
	data, anchors, err := o.fetch(ctx, s)
	if err != nil {
		return err
	}
	sealed, err := handover.Open(key, data)
	if err == nil && anchors != nil {
		err = handover.OfCluster(sealed.Contents, anchors)
	}
	if err != nil {
		return advise(fmt.Errorf("secret kube-system/%s: %w", handover.SecretName, err), "on a control plane, kubepki node upload-certs makes it anew, and prints the key that belongs to it")
	}
	files, err := o.plan(sealed)
	if err != nil {
		return err
	}
	if err := o.write(ctx, files); err != nil {
		return err
	}
	return o.answer(s, sealed, files)
}

func (o *nodeDownloadOptions) check() error {
	sources := 0
	for _, given := range []bool{o.join.server != "", o.access.Kubeconfig != "", o.from != ""} {
		if given {
			sources++
		}
	}
	switch {
	case sources == 0:
		return usagef("where the Secret is, is not said: give --server with a token, --kubeconfig, or --from a file")
	case sources > 1:
		return usagef("--server, --kubeconfig and --from contradict each other: give one of them")
	case o.from == "-" && o.key.file == "-":
		return usagef("--from - and --certificate-key-file - both read standard input")
	case o.root == "":
		return usagef("--root names no folder")
	case !slices.Contains([]string{"table", "json", "yaml"}, o.output):
		return usagef("--output: unknown format %q: use table, json or yaml", o.output)
	case o.timeout <= 0:
		return usagef("--timeout: %s is no time to wait: use 5m", o.timeout)
	}
	for flag, place := range map[string]string{"cert-dir": o.certDir, "etcd-cafile": *o.etcd[handover.ExternalEtcdCA], "etcd-certfile": *o.etcd[handover.ExternalEtcdCert], "etcd-keyfile": *o.etcd[handover.ExternalEtcdKey]} {
		if !path.IsAbs(place) {
			return usagef("--%s %s is not an absolute path: it is the node's", flag, place)
		}
	}
	return nil
}

// fetch returns the Secret's data, and the authorities that the cluster shows to nodes
// that join; nil where nobody was asked.
func (o *nodeDownloadOptions) fetch(ctx context.Context, s streams) (map[string][]byte, []*x509.Certificate, error) {
	if o.from != "" {
		text, err := readInput(s, o.from)
		if err != nil {
			return nil, nil, fmt.Errorf("--from: %w", err)
		}
		data, err := kube.ReadHandedOver(text)
		if err != nil {
			return nil, nil, fmt.Errorf("--from %s: %w", o.from, err)
		}
		return data, nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	var config *rest.Config
	var anchors []*x509.Certificate
	var err error
	if o.join.server == "" {
		config, err = o.configure()
	} else {
		config, anchors, err = o.discover(ctx, s)
	}
	if err != nil {
		return nil, nil, err
	}
	secret, err := kube.NewHandedOver(config)
	if err != nil {
		return nil, nil, err
	}
	data, err := secret.Get(ctx)
	switch {
	case errors.Is(err, kube.ErrNothingHandedOver):
		err = advise(err, "on a control plane, kubepki node upload-certs makes it, and prints the key")
	case errors.Is(err, kube.ErrMayNotRead):
		err = advise(err, "a bootstrap token of the group %s may, for as long as it lives: kubepki token create", "system:bootstrappers:kubeadm:default-node-token")
	}
	return data, anchors, err
}

// configure refuses a kubeconfig by which its token would go to whoever answers.
func (o *nodeDownloadOptions) configure() (*rest.Config, error) {
	config, err := configure(o.access)
	if err != nil {
		return nil, err
	}
	if at, _, err := rest.DefaultServerUrlFor(config); err != nil || config.Insecure || at.Scheme != "https" {
		return nil, advise(fmt.Errorf("kubeconfig %s: it does not verify the API server, so that its credential would go to whoever answers", o.access.Kubeconfig),
			"use --server with --token-file and --discovery-token-ca-cert-hash")
	}
	return config, nil
}

// discover finds the cluster by token.
func (o *nodeDownloadOptions) discover(ctx context.Context, s streams) (*rest.Config, []*x509.Certificate, error) {
	d, err := o.join.discovery(s)
	if err != nil {
		return nil, nil, err
	}
	info, err := kube.Discover(ctx, d)
	if err != nil {
		return nil, nil, err
	}
	return &rest.Config{Host: info.Server, BearerToken: d.Token.Reveal(), TLSClientConfig: rest.TLSClientConfig{CAData: info.CA}, UserAgent: "kubepki"}, info.Anchors, nil
}

// handedFile is one file that was handed over.
type handedFile struct {
	handover.Entry
	path string // on the node
	data []byte
	same bool // it is there already
}

// plan tells what is to be written. All files that hold something else are named at
// once.
func (o *nodeDownloadOptions) plan(sealed *handover.Sealed) ([]handedFile, error) {
	var external map[string]string
	if sealed.ExternalEtcd {
		external = map[string]string{}
		for name, place := range o.etcd {
			external[name] = path.Clean(*place)
		}
	}
	paths, err := handover.Paths(path.Clean(o.certDir), external)
	if err != nil {
		return nil, err
	}
	var files []handedFile
	var others []string
	for _, e := range handover.Entries(sealed.ExternalEtcd) {
		data, there := sealed.Contents[e.Name]
		if !there {
			continue
		}
		f := handedFile{Entry: e, path: paths[e.Name], data: data}
		have, err := layout.ReadFile(o.root, f.path)
		var failed *layout.ReadError
		switch {
		case errors.As(err, &failed) && failed.State == trust.Missing && !failed.Dangling():
		case errors.Is(err, fs.ErrNotExist): // the root itself is not there
		case errors.As(err, &failed) && failed.State == trust.Denied:
			return nil, advise(err, "run it again with sudo")
		case err != nil:
			return nil, advise(err, "move it away first")
		case e.Same(have.Data, data):
			f.same = true
		default:
			others = append(others, filepath.Join(o.root, f.path))
		}
		files = append(files, f)
	}
	if len(others) > 0 {
		return nil, advise(fmt.Errorf("nothing is written, for these are there with another content: %s", strings.Join(others, ", ")), "if this node is to belong to that cluster, move them away, with all that they signed: kubepki show --root %s tells what", cmp.Or(o.root, "/"))
	}
	return files, nil
}

func (o *nodeDownloadOptions) write(ctx context.Context, files []handedFile) error {
	if o.dryRun || !slices.ContainsFunc(files, func(f handedFile) bool { return !f.same }) {
		return nil
	}
	t, err := begin(ctx, o.root)
	if err != nil {
		return err
	}
	for _, f := range files {
		mode := fs.FileMode(0o644)
		if f.Private() {
			mode = 0o600
		}
		if f.same {
			continue
		}
		if err := t.Write(f.path, f.data, mode); err != nil {
			return errors.Join(err, t.Rollback())
		}
	}
	return t.Commit()
}

// handedDocument is the answer in machine output.
type handedDocument struct {
	APIVersion string             `json:"apiVersion"`
	Kind       string             `json:"kind"`
	DryRun     bool               `json:"dryRun"`
	Files      []handedFileOutput `json:"files"`
	Elsewhere  []string           `json:"elsewhere"` // whose content nobody handed over
	Unknown    []string           `json:"unknown"`   // entries that were not looked at
}

type handedFileOutput struct {
	Path   string `json:"path"`
	Action string `json:"action"` // written or unchanged
}

func (o *nodeDownloadOptions) answer(s streams, sealed *handover.Sealed, files []handedFile) error {
	d := handedDocument{APIVersion: report.APIVersion, Kind: "ControlPlaneFiles", DryRun: o.dryRun, Files: []handedFileOutput{}, Elsewhere: append([]string{}, sealed.Empty...), Unknown: append([]string{}, sealed.Unknown...)}
	for _, f := range files {
		action := "written"
		switch {
		case f.same:
			action = "unchanged"
		case o.dryRun:
			action = "to be written"
		}
		d.Files = append(d.Files, handedFileOutput{f.path, action})
	}
	for _, name := range d.Elsewhere {
		fmt.Fprintf(s.err, "kubepki: warning: %s was not handed over: what it signs must be signed elsewhere\n", name)
	}
	for _, name := range d.Unknown {
		fmt.Fprintf(s.err, "kubepki: warning: entry %s of the Secret is not known, and was left there\n", report.Plain(name))
	}
	if o.output != "table" {
		return report.Document(s.out, o.output, d)
	}
	var rows [][]string
	for _, f := range d.Files {
		rows = append(rows, []string{f.Path, f.Action})
	}
	if err := report.Table(s.out, []string{"PATH", "ACTION"}, rows); err != nil {
		return err
	}
	fmt.Fprintln(s.err, "next: make the node's own certificates with kubepki init, see docs/join-control-plane.md")
	return nil
}
