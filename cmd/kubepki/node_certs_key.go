package main

import (
	"cmp"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kubepki/kubepki/internal/handover"
	"github.com/kubepki/kubepki/internal/report"
)

// certificateKeyVariable holds the key where no file does.
const certificateKeyVariable = "KUBEPKI_CERTIFICATE_KEY"

// certificateKeyFlags say which key what control planes share is encrypted with.
type certificateKeyFlags struct{ text, file string }

func (f *certificateKeyFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.text, "certificate-key", "", "the key, 64 hexadecimal digits; everybody who can list processes sees it: prefer --certificate-key-file, or the variable "+certificateKeyVariable)
	flags.StringVar(&f.file, "certificate-key-file", "", "file that holds the key alone; -: standard input")
}

// read returns the key, a zero one when none is given.
func (f *certificateKeyFlags) read(s streams) (handover.Key, error) {
	text, from := f.text, "--certificate-key"
	switch {
	case f.text != "" && f.file != "":
		return handover.Key{}, usagef("the certificate key is given twice: as --certificate-key and as --certificate-key-file")
	case f.file != "":
		data, err := readInput(s, f.file)
		if err != nil {
			return handover.Key{}, fmt.Errorf("--certificate-key-file: %w", err)
		}
		if info, err := os.Stat(f.file); f.file != "-" && err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 {
			fmt.Fprintf(s.err, "kubepki: warning: %s has mode %04o: others than its owner may read the certificate key, which is no secret then: chmod 600 it, or make another one\n", report.Plain(f.file), info.Mode().Perm())
		}
		text, from = string(data), "the certificate key of "+cmp.Or(strings.TrimPrefix(f.file, "-"), "standard input")
	case f.text != "":
		fmt.Fprintln(s.err, "kubepki: warning: whoever can list the processes of this machine sees the certificate key: use --certificate-key-file")
	default:
		if text, from = os.Getenv(certificateKeyVariable), certificateKeyVariable; text == "" {
			return handover.Key{}, nil
		}
	}
	key, err := handover.ParseKey(strings.TrimSpace(text))
	if err != nil {
		return key, usagef("%s %w", from, err)
	}
	return key, nil
}

func newNodeCertificateKeyCommand(s streams) *cobra.Command {
	return &cobra.Command{
		Use:   "certificate-key",
		Short: "Make a certificate key, with which what control planes share is encrypted",
		Long: `Make a certificate key, as kubeadm certs certificate-key does: 32 random bytes in
hexadecimal. No cluster is asked. It is a secret: whoever has it, and a bootstrap
token, has the cluster.`,
		Example: `  # Into a file that nobody else reads
  (umask 077; kubepki node certificate-key > certificate-key)

  # Hand over with it
  sudo kubepki node upload-certs --certificate-key-file certificate-key

  # Take it on the new node
  sudo kubepki node download-certs --certificate-key-file certificate-key --kubeconfig /etc/kubernetes/bootstrap-kubelet.conf`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := fmt.Fprintln(s.out, handover.GenerateKey().Reveal())
			return err
		},
	}
}
