package main

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kubepki/kubepki/internal/bootstrap"
	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/handover"
	"github.com/kubepki/kubepki/internal/kube"
	"github.com/kubepki/kubepki/internal/layout"
	"github.com/kubepki/kubepki/internal/report"
	"github.com/kubepki/kubepki/internal/trust"
)

type nodeUploadOptions struct {
	access        kube.Access
	key           certificateKeyFlags
	root, certDir string
	output        string
	skipPrint     bool
	dryRun        bool
}

func newNodeUploadCertsCommand(s streams) *cobra.Command {
	var o nodeUploadOptions
	c := &cobra.Command{
		Use:   "upload-certs",
		Short: "Hand over what control planes share, encrypted, in a Secret of the cluster",
		Long: `Encrypt what all control planes share (the authorities with their keys, the keys
of service accounts, of an etcd elsewhere the client certificate) and put it into
the Secret kube-system/kubeadm-certs, from where a new control plane takes it: by
kubepki node download-certs, or by kubeadm join --certificate-key. Those that
join by token may read it, and it is removed after two hours.

The key is made here and printed, unless one is given. It is a secret. What is
there of an earlier run is replaced.

With -o yaml or json nothing is asked of the cluster: the manifests are printed,
for a key that is given. Nothing removes that Secret: do it when the node has it.`,
		Example: `  # On a control plane
  sudo kubepki node upload-certs

  # With a key that no terminal shows
  (umask 077; kubepki node certificate-key > key) && sudo kubepki node upload-certs --certificate-key-file key

  # From a copy of a control plane, to apply later
  kubepki node upload-certs --root ./cp1 --certificate-key-file key -o yaml > kubeadm-certs.yaml`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return o.run(c.Context(), s) },
	}
	f := c.Flags()
	addAccess(f, &o.access)
	o.key.add(f)
	f.StringVar(&o.root, "root", "/", "folder that stands for / of the control plane")
	f.StringVar(&o.certDir, "cert-dir", catalog.DefaultCertificatesDir, "certificates folder on the node")
	f.StringVarP(&o.output, "output", "o", "", "yaml or json: print the manifests instead of asking the cluster")
	f.BoolVar(&o.skipPrint, "skip-certificate-key-print", false, "as of kubeadm: fail where no key is given, for one that is made must be printed")
	f.BoolVar(&o.dryRun, "dry-run", false, "have everything checked, and change nothing")
	return c
}

func (o *nodeUploadOptions) run(ctx context.Context, s streams) error {
	key, err := o.key.read(s)
	if err != nil {
		return err
	}
	made := key.IsZero()
	switch {
	case !slices.Contains([]string{"", "yaml", "json"}, o.output):
		return usagef("--output: unknown format %q: use yaml or json, or leave it out", o.output)
	case o.output != "" && made:
		return advise(usagef("-o %s prints the manifests: the key must be given", o.output), "make one: (umask 077; kubepki node certificate-key > key), and name it with --certificate-key-file key")
	case o.skipPrint && made:
		return usagef("--skip-certificate-key-print: a key that is made and not printed is lost: give one with --certificate-key-file")
	case !path.IsAbs(o.certDir):
		return usagef("--cert-dir %s is not an absolute path: it is the node's", o.certDir)
	}
	if made {
		key = handover.GenerateKey()
	}
	data, err := o.sealed(s, key)
	if err != nil {
		return err
	}
	if o.output != "" {
		return o.print(s, data)
	}
	config, err := configure(o.access)
	if err != nil {
		return err
	}
	secret, err := kube.NewHandedOver(config)
	if err != nil {
		return err
	}
	end, err := secret.Put(ctx, data, time.Now(), o.dryRun)
	if err != nil {
		return err
	}
	did := "stored"
	if o.dryRun {
		did = "would store"
	}
	fmt.Fprintf(s.err, "%s %d files in Secret kube-system/%s, until %s\n", did, countFilled(data), handover.SecretName, end.Format(time.RFC3339))
	if !made || o.dryRun {
		return nil // whoever gave it has it
	}
	fmt.Fprintln(s.err, "the certificate key follows: it is a secret")
	_, err = fmt.Fprintln(s.out, key.Reveal())
	return err
}

func countFilled(data map[string][]byte) (n int) {
	for _, content := range data {
		if len(content) > 0 {
			n++
		}
	}
	return n
}

// sealed reads what the node shares, judges it, and encrypts it.
func (o *nodeUploadOptions) sealed(s streams, key handover.Key) (map[string][]byte, error) {
	external := o.externalEtcd()
	paths, err := handover.Paths(o.certDir, external)
	if err != nil {
		return nil, err
	}
	contents := map[string][]byte{}
	var empty []string
	for _, e := range handover.Entries(external != nil) {
		content, err := layout.ReadFile(o.root, paths[e.Name])
		var failed *layout.ReadError
		switch {
		case errors.As(err, &failed) && failed.State == trust.Missing:
			if !e.Ours {
				empty = append(empty, paths[e.Name])
			}
		case errors.As(err, &failed) && failed.State == trust.Denied:
			return nil, advise(err, "run it again with sudo")
		case err != nil:
			return nil, err
		default:
			contents[e.Name] = content.Data
		}
	}
	data, err := handover.Seal(key, contents, external != nil)
	if err != nil {
		return nil, advise(fmt.Errorf("%s: %w", o.certDir, err), "kubepki verify tells what is wrong on this node, and how to mend it; --root and --cert-dir say where it is looked for")
	}
	if len(empty) > 0 {
		fmt.Fprintf(s.err, "kubepki: warning: not on this node, so not handed over: %s: what they sign must be signed elsewhere\n", report.Plain(strings.Join(empty, ", ")))
	}
	return data, nil
}

// externalEtcd tells where the files of an etcd elsewhere stand, as the flags of
// kube-apiserver say; nil where etcd is this node's own.
func (o *nodeUploadOptions) externalEtcd() map[string]string {
	_, err := layout.ReadFile(o.root, path.Join(o.certDir, "etcd/ca.key"))
	if err == nil {
		return nil
	}
	nodes, _, err := readCluster(cluster{nodes: []nodeRoot{{dir: o.root}}})
	if err != nil || len(nodes) != 1 {
		return nil // Seal tells what is missing
	}
	var apiserver *trust.Component
	for i := range nodes[0].Components {
		switch c := &nodes[0].Components[i]; c.Name {
		case "etcd":
			return nil
		case "kube-apiserver":
			apiserver = c
		}
	}
	if apiserver == nil {
		return nil
	}
	all := map[string]string{}
	for name, flag := range map[string]string{handover.ExternalEtcdCA: "etcd-cafile", handover.ExternalEtcdCert: "etcd-certfile", handover.ExternalEtcdKey: "etcd-keyfile"} {
		if values := apiserver.Flags[flag]; len(values) == 1 {
			all[name] = values[0]
		}
	}
	if len(all) < 3 {
		return nil
	}
	return all
}

// print prints the manifests. Nobody can own a Secret before it is in a cluster.
func (o *nodeUploadOptions) print(s streams, data map[string][]byte) error {
	objects := []any{handover.Secret(data, nil), handover.Role(), handover.RoleBinding()}
	fmt.Fprintf(s.err, "kubepki: warning: nothing removes this Secret: kubectl delete secret -n kube-system %s when the node has it\n", handover.SecretName)
	if o.output == "json" {
		return report.Document(s.out, "json", map[string]any{"apiVersion": "v1", "kind": "List", "items": objects})
	}
	text, err := bootstrap.EncodeManifests(objects)
	if err != nil {
		return err
	}
	_, err = s.out.Write(text)
	return err
}
