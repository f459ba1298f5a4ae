package objects

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/kubepki/kubepki/internal/catalog"
	"github.com/kubepki/kubepki/internal/issue"
	"github.com/kubepki/kubepki/internal/provision"
)

// Material is what stands in a folder of the service layout, all of it PEM: an
// authority's certificate, and the pairs of a server and of a client below it.
type Material struct {
	Authority                    []byte
	ServerCertificate, ServerKey []byte
	ClientCertificate, ClientKey []byte
}

// Servers are the servers of the lab's pods, each with an authority of its own.
type Servers struct {
	Extension     Material // the extension API server; its client pair serves nobody
	ExtensionEtcd Material // its etcd, and the extension API server as the client
	Webhook       Material // the webhook server, and kube-apiserver as the client
}

// serverNames are the names that each server is dialled by: kube-apiserver dials
// NAME.NAMESPACE.svc, whatever the address is (ClientConfigForService in
// k/apiserver pkg/util/webhook, and proxyHandler in k/kube-aggregator).
var serverNames = map[string][]string{
	"extension":      {"api.wardle.svc"},
	"extension-etcd": {"127.0.0.1", "localhost"},
	"webhook":        {"webhook.lab-webhook.svc"},
}

const (
	serverLife    = 365 * 24 * time.Hour
	authorityLife = 10 * serverLife
)

// Provision makes the credentials of the servers below dir, in the folders
// extension, extension-etcd and webhook, or reads those that are there. What is
// there is never replaced: only what lacks is made, with a life that starts now.
// Keys are files of mode 0600.
func Provision(ctx context.Context, dir string, now time.Time) (*Servers, error) {
	s := &Servers{}
	for name, material := range map[string]*Material{
		"extension": &s.Extension, "extension-etcd": &s.ExtensionEtcd, "webhook": &s.Webhook,
	} {
		folder := filepath.Join(dir, name)
		if err := provisionService(ctx, folder, serverNames[name], now); err != nil {
			return nil, fmt.Errorf("make the credentials of the %s server: %w", name, err)
		}
		if err := material.read(folder); err != nil {
			return nil, fmt.Errorf("read the credentials of the %s server: %w", name, err)
		}
	}
	return s, nil
}

func provisionService(ctx context.Context, folder string, names []string, now time.Time) error {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return err
	}
	plan, err := provision.Plan(provision.Options{
		Cluster: &catalog.Cluster{Algorithm: string(issue.ECDSAP256), Validity: serverLife, CAValidity: authorityLife},
		Dir:     folder,
		Service: &provision.Service{Names: names},
		Now:     now,
	})
	if err != nil {
		return err
	}
	return plan.Apply(ctx, nil)
}

func (m *Material) read(folder string) error {
	for file, to := range map[string]*[]byte{
		"ca.crt":            &m.Authority,
		"server/server.crt": &m.ServerCertificate, "server/server.key": &m.ServerKey,
		"client/client.crt": &m.ClientCertificate, "client/client.key": &m.ClientKey,
	} {
		data, err := os.ReadFile(filepath.Join(folder, file))
		if err != nil {
			return err
		}
		*to = data
	}
	return nil
}
