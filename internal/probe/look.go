package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/kubepki/kubepki/internal/trust"
)

// verdictWait is how long [Look] waits for the word of a server that asked for
// a client certificate. One that is content says nothing.
const verdictWait = time.Second

// open dials and sets a deadline for all that follows, so that no peer can hold
// on to us, be it by silence or byte by byte. Close it by calling the function.
func (p *prober) open(ctx context.Context, address string, timeout time.Duration) (net.Conn, func(), error) {
	select {
	case p.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	conn, err := p.Dial(ctx, "tcp", address)
	if err != nil {
		cancel()
		<-p.slots
		return nil, nil, err
	}
	deadline, _ := ctx.Deadline()
	err = conn.SetDeadline(deadline)
	// An interrupt ends what is under way; so does the deadline.
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	shut := func() {
		stop()
		conn.Close()
		cancel()
		<-p.slots
	}
	if err != nil {
		shut()
		return nil, nil, err
	}
	return conn, shut, nil
}

// look shakes hands and keeps what is presented. It shows a certificate that the
// server should take, if there is one, for servers write down who shows none.
func (p *prober) look(ctx context.Context, o *trust.Observation, name string, show *tls.Certificate) {
	conn, shut, err := p.open(ctx, o.Server.Address, p.Timeout)
	if err != nil {
		p.unreachable(ctx, o, err, "does not answer")
		return
	}
	defer shut()
	config := clientConfig(name, show)
	config.NextProtos = []string{"h2", "http/1.1"}
	config.MinVersion = tls.VersionTLS10 // what is old is to be seen as well, and nothing is sent
	config.VerifyConnection = func(s tls.ConnectionState) error {
		o.Chain, o.Version, o.ALPN = s.PeerCertificates, tls.VersionName(s.Version), s.NegotiatedProtocol
		return nil
	}
	shown := config.GetClientCertificate
	config.GetClientCertificate = func(r *tls.CertificateRequestInfo) (*tls.Certificate, error) {
		o.AsksClient, o.Authorities = true, r.AcceptableCAs
		return shown(r)
	}
	client := tls.Client(conn, config)
	if err = client.HandshakeContext(ctx); err == nil {
		_ = client.Close() // says goodbye; the connection itself is closed anyway
	}
	if len(o.Chain) > 0 {
		// Before TLS 1.3 a server that wants a certificate says so here.
		o.Outcome, o.Alert = trust.Answered, alertOf(err)
		return
	}
	p.unreachable(ctx, o, err, "accepts the connection and says nothing")
}

// unreachable says why a server was not seen; silence is what a timeout means.
func (p *prober) unreachable(ctx context.Context, o *trust.Observation, err error, silence string) {
	var dns *net.DNSError
	o.Outcome = trust.Unreachable
	switch {
	case ctx.Err() != nil:
		o.Outcome, o.Reason = trust.NotDialled, "was not waited for"
	case alertOf(err) != "":
		o.Outcome, o.Alert = trust.Refused, alertOf(err)
		o.Reason = "refuses every handshake with the TLS alert " + o.Alert
	case errors.As(err, &dns) && !o.Server.Local:
		// The nodes may know the name.
		o.Outcome, o.Reason = trust.NotDialled, "its name is not known here"
	case errors.As(err, &dns):
		o.Reason = "its name is not known"
	default:
		o.Reason = phrase(err, silence+" within "+p.Timeout.String())
	}
}

// phrase says why a connection failed.
func phrase(err error, timeout string) string {
	var record tls.RecordHeaderError
	var number syscall.Errno
	switch {
	case errors.As(err, &record) && strings.HasPrefix(string(record.RecordHeader[:]), "HTTP/"):
		return "answers in plain HTTP, not in TLS"
	case errors.As(err, &record):
		return "does not speak TLS"
	case isTimeout(err):
		return timeout
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "closes the connection"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refuses the connection"
	case errors.As(err, &number):
		return "cannot be reached: " + number.Error()
	}
	return "cannot be spoken to: " + err.Error()
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout()
}

// verdict shakes hands, sends nothing and waits for an alert: in TLS 1.3 the
// server judges after the client's part is done, and where it closes while
// something unread is on its way, the alert is lost. One that is content lets
// the time run out.
func (p *prober) verdict(ctx context.Context, address, name string, show *tls.Certificate, wait time.Duration) error {
	conn, shut, err := p.open(ctx, address, wait)
	if err != nil {
		return err
	}
	defer shut()
	client := tls.Client(conn, clientConfig(name, show))
	if err = client.HandshakeContext(ctx); err == nil {
		_, err = client.Read(make([]byte, 1))
	}
	return err
}

// clientConfig shows a certificate to whoever asks for any, whatever authorities
// the server names: whether it takes it is what is to be seen.
func clientConfig(name string, show *tls.Certificate) *tls.Config {
	if show == nil {
		show = new(tls.Certificate)
	}
	return &tls.Config{
		ServerName: name, MinVersion: tls.VersionTLS12,
		InsecureSkipVerify:   true, //nolint:gosec // what is presented is judged by what look saw
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return show, nil },
	}
}
