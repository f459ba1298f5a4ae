package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/pflag"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// kubectlConfig stands in for the two commands of kubectl that fixes are made of,
// where the real one is not built: config set-cluster and config unset, by the
// same clientcmd (k8s.io/kubectl/pkg/cmd/config/set_cluster.go, unset.go).
func kubectlConfig(args []string) {
	if err := kubectl(args); err != nil {
		fmt.Fprintln(os.Stderr, "kubectl (stand-in):", err)
		os.Exit(1)
	}
}

func kubectl(args []string) error {
	f := pflag.NewFlagSet("kubectl", pflag.ContinueOnError)
	file, server, ca := f.String("kubeconfig", "", ""), f.String("server", "", ""), f.String("certificate-authority", "", "")
	embed, insecure := f.Bool("embed-certs", false, ""), f.Bool("insecure-skip-tls-verify", false, "")
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() != 3 || f.Arg(0) != "config" || *file == "" {
		return fmt.Errorf("not known: %q", args)
	}
	config, err := clientcmd.LoadFromFile(*file)
	if err != nil {
		return err
	}
	switch name := f.Arg(2); f.Arg(1) {
	case "set-cluster":
		c := config.Clusters[name]
		if c == nil {
			c = clientcmdapi.NewCluster()
			config.Clusters[name] = c
		}
		if *server != "" {
			c.Server, c.TLSServerName = *server, ""
		}
		if f.Changed("insecure-skip-tls-verify") {
			c.InsecureSkipTLSVerify = *insecure
		}
		if *ca != "" {
			c.CertificateAuthority, c.CertificateAuthorityData, c.InsecureSkipTLSVerify = *ca, nil, false
		}
		if *ca != "" && *embed {
			if c.CertificateAuthorityData, err = os.ReadFile(*ca); err != nil {
				return err
			}
			c.CertificateAuthority = ""
		}
	case "unset":
		name, ok := strings.CutSuffix(strings.TrimPrefix(name, "clusters."), ".tls-server-name")
		if !ok || config.Clusters[name] == nil {
			return fmt.Errorf("not known: unset %s", f.Arg(2))
		}
		config.Clusters[name].TLSServerName = ""
	default:
		return fmt.Errorf("not known: config %s", f.Arg(1))
	}
	return clientcmd.WriteToFile(*config, *file)
}
