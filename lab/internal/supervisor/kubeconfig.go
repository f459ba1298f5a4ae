package supervisor

import (
	"fmt"

	"k8s.io/client-go/tools/clientcmd"
)

// writeKubeconfig writes the administrator's kubeconfig for use outside: the one
// of the first control plane, but that its calls go through the lab's proxy.
func (s *Supervisor) writeKubeconfig() error {
	if s.Proxy == nil {
		return nil
	}
	from := s.Folder.AdminConf(s.spec)
	config, err := clientcmd.LoadFromFile(from)
	if err != nil {
		return fmt.Errorf("kubeconfig %s: %w", from, err)
	}
	for _, c := range config.Clusters {
		c.ProxyURL = "http://" + s.Proxy.Addr().String()
	}
	return clientcmd.WriteToFile(*config, s.Folder.Kubeconfig())
}
