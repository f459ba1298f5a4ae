package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"os/user"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Exit codes. What exits with 2 fails again when it is started again: a
// supervisor should leave it, above all because devices lock themselves after a
// few wrong PINs.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2 // wrong flags, wrong PIN
)

func main() {
	syscall.Umask(0o077)
	// No other process of the user may read the PIN from memory or a core dump.
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stderr)
	stop()
	os.Exit(code)
}

type options struct {
	socket  string
	keys    map[string]string // URIs by name
	allowed []uint32          // user ids
	limits  limits
}

func run(ctx context.Context, args []string, stderr io.Writer) int {
	log := slog.New(slog.NewJSONHandler(stderr, nil))
	o, err := parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitDone
	case err != nil:
		fmt.Fprintf(stderr, "kubepki-kms: error: %s\n", err)
		return exitUsage
	}
	keys, err := openKeys(ctx, o.keys)
	if err != nil {
		fmt.Fprintf(stderr, "kubepki-kms: error: %s\n", err)
		if isWrongPIN(err) || errors.As(err, new(usageError)) {
			return exitUsage
		}
		return exitFailed
	}
	defer keys.close()
	if err := serve(ctx, o, keys, log); err != nil {
		fmt.Fprintf(stderr, "kubepki-kms: error: %s\n", err)
		return exitFailed
	}
	return exitDone
}

const usage = `kubepki-kms signs with keys in a PKCS#11 device or a cloud, for kubepki.

Usage:
  kubepki-kms --socket PATH --key NAME=URI [--key NAME=URI ...]

Keys:
  pkcs11:module-path=/usr/lib/softhsm/libsofthsm2.so;token=ca;object=cluster-ca?pin-source=/etc/kubepki/pin
  awskms:region=eu-central-1;key-id=...
  cloudkms:projects/P/locations/L/keyRings/R/cryptoKeys/K/cryptoKeyVersions/1
  azurekms:vault=V;name=K
  softkms:path=/etc/kubernetes/pki/ca.key

The PIN comes from the file that pin-source names, or from the environment
variable KUBEPKI_KMS_PIN; never from an argument, which every user can read.

Exit codes: 0 stopped, 1 could not do it, 2 wrong usage or wrong PIN: do not
start it again before that is mended, as devices lock after a few wrong PINs.

Flags:
`

func parse(args []string, stderr io.Writer) (*options, error) {
	o := &options{keys: map[string]string{}, limits: defaultLimits()}
	f := flag.NewFlagSet("kubepki-kms", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.StringVar(&o.socket, "socket", "/run/kubepki/kms.sock", "`PATH` of the unix socket, in a folder of mode 0700; unused when systemd passes the socket")
	f.Func("key", "`NAME=URI` of a key (repeatable)", o.addKey)
	f.Func("allow-user", "`USER`, by name or number, who may ask for signatures (repeatable; default: the user who runs this)", o.allow)
	f.DurationVar(&o.limits.timeout, "timeout", o.limits.timeout, "how long a device may take for a signature, at most 12s")
	f.IntVar(&o.limits.signatures, "concurrency", o.limits.signatures, "signatures in the making at once")
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			fmt.Fprint(stderr, usage)
			f.SetOutput(stderr)
			f.PrintDefaults()
		}
		return nil, err
	}
	switch {
	case f.NArg() > 0:
		return nil, fmt.Errorf("unknown argument %q", f.Arg(0))
	case len(o.keys) == 0:
		return nil, errors.New("--key NAME=URI is missing")
	case o.limits.signatures < 1:
		return nil, errors.New("--concurrency must be 1 or more")
	case o.limits.timeout <= 0 || o.limits.timeout > 12*time.Second:
		return nil, errors.New("--timeout must be above 0 and at most 12s: kubepki itself waits 15s")
	}
	if len(o.allowed) == 0 {
		o.allowed = []uint32{uint32(os.Getuid())}
	}
	return o, nil
}

func (o *options) addKey(s string) error {
	name, uri, ok := strings.Cut(s, "=")
	if !ok || name == "" || len(name) > 100 || strings.ContainsFunc(name, notInName) {
		return errors.New("NAME=URI, with a name of letters, digits, dots and dashes, is expected")
	}
	if _, twice := o.keys[name]; twice {
		return fmt.Errorf("key %q is given twice", name)
	}
	o.keys[name] = uri
	return nil
}

func notInName(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '-' || r == '_')
}

func (o *options) allow(s string) error {
	if n, err := strconv.ParseUint(s, 10, 32); err == nil {
		o.allowed = append(o.allowed, uint32(n))
		return nil
	}
	u, err := user.Lookup(s)
	if err != nil {
		return err
	}
	n, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return fmt.Errorf("user %q has the id %q", s, u.Uid)
	}
	o.allowed = append(o.allowed, uint32(n))
	return nil
}
