package load

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"

	"github.com/kubepki/kubepki/lab/internal/cluster"
)

const etcdPort = "2379"

// etcdStreams call each member of etcd, and look whether it follows the others.
// They use gRPC itself: etcd's own client waits for a member that is not there
// and tries again.
func (s *site) etcdStreams(context.Context, *clients) ([]*Stream, error) {
	var members []cluster.Machine
	for _, m := range cluster.Machines(s.spec) {
		if slices.Contains(m.Static, "etcd") {
			members = append(members, m)
		}
	}
	var all []*Stream
	for _, m := range members {
		check := s.member(m, m.Name, "etcd/healthcheck-client")
		held := s.member(m, s.spec.ControlPlanes[0].Name, "apiserver-etcd-client")
		all = append(all,
			&Stream{Name: "etcd/" + m.Name, Link: 15, Every: 500 * time.Millisecond, Do: check.fresh(check.health)},
			&Stream{Name: "etcd-long-lived/" + m.Name, Link: 2, Every: 500 * time.Millisecond, Do: held.health, Close: held.close})
		if len(members) > 1 {
			f := &follows{member: s.member(m, m.Name, "etcd/healthcheck-client")}
			for _, other := range members {
				if other.Name != m.Name {
					f.others = append(f.others, s.member(other, m.Name, "etcd/healthcheck-client"))
				}
			}
			all = append(all, &Stream{Name: "etcd-peers/" + m.Name, Link: 1, Every: time.Second, Do: f.do, Close: f.close})
		}
	}
	if len(members) == 1 {
		s.absent("etcd-peers", 1, "etcd has one member, which has no peer")
	}
	return all, nil
}

// member is a member of etcd with a credential to call it.
type member struct {
	name, address          string
	authority, client, key string // PEM files, read for each connection
	conn                   *grpc.ClientConn
}

// member returns a member of etcd as one calls it who has a credential of a node.
func (s *site) member(m cluster.Machine, node, credential string) *member {
	return &member{
		name: m.Name, address: net.JoinHostPort(m.Address.String(), etcdPort),
		authority: s.pki(node, "etcd/ca.crt"), client: s.pki(node, credential+".crt"), key: s.pki(node, credential+".key"),
	}
}

// connect returns the connection, which it makes if there is none.
func (m *member) connect() (*grpc.ClientConn, error) {
	if m.conn != nil {
		return m.conn, nil
	}
	authority, err := os.ReadFile(m.authority)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(authority) {
		return nil, fmt.Errorf("%s: no certificate in it", m.authority)
	}
	pair, err := tls.LoadX509KeyPair(m.client, m.key)
	if err != nil {
		return nil, err
	}
	m.conn, err = grpc.NewClient(m.address,
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12})),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.DefaultConfig, MinConnectTimeout: defaultTimeout}),
		grpc.WithDisableRetry())
	return m.conn, err
}

// close gives up the connection; the next call makes another one.
func (m *member) close() {
	if m.conn != nil {
		_ = m.conn.Close()
		m.conn = nil
	}
}

// fresh calls on a connection of its own.
func (m *member) fresh(call func(context.Context) error) func(context.Context) error {
	return func(ctx context.Context) error {
		defer m.close()
		return call(ctx)
	}
}

// health reads as etcdctl endpoint health does: what the key holds does not
// matter, but to say so the member must have asked the others. A connection over
// which that failed is not used again.
func (m *member) health(ctx context.Context) error {
	conn, err := m.connect()
	if err != nil {
		return err
	}
	if _, err = pb.NewKVClient(conn).Range(ctx, &pb.RangeRequest{Key: []byte("health")}); err != nil {
		m.close()
	}
	return err
}

// status asks the member for its state.
func (m *member) status(ctx context.Context) (*pb.StatusResponse, error) {
	conn, err := m.connect()
	if err != nil {
		return nil, err
	}
	status, err := pb.NewMaintenanceClient(conn).Status(ctx, &pb.StatusRequest{})
	if err != nil {
		m.close()
		return nil, err
	}
	if len(status.Errors) > 0 {
		return nil, fmt.Errorf("etcd of %s reports %q", m.name, status.Errors)
	}
	return status, nil
}

// follows looks whether a member gets what the others have, by the peers'
// connections.
type follows struct {
	member *member
	others []*member
}

func (f *follows) close() {
	f.member.close()
	for _, o := range f.others {
		o.close()
	}
}

func (f *follows) do(ctx context.Context) error {
	var reached uint64
	var errs []error
	for _, o := range f.others {
		status, err := o.status(ctx)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		reached = max(reached, status.RaftAppliedIndex)
	}
	if len(errs) == len(f.others) {
		return errors.Join(errs...) // nobody to compare with
	}
	return eventually(ctx, func(ctx context.Context) error {
		status, err := f.member.status(ctx)
		if err != nil {
			return err
		}
		if status.Leader == 0 {
			return notYet("etcd of " + f.member.name + " knows no leader")
		}
		if status.RaftAppliedIndex < reached {
			return notYet(fmt.Sprintf("etcd of %s is at %d, others were at %d", f.member.name, status.RaftAppliedIndex, reached))
		}
		return nil
	})
}
