package supervisor

import (
	"fmt"

	"k8s.io/client-go/tools/clientcmd"
)

// writeKubeconfig writes the administrator's kubeconfig for use outside: the one
// of the first control plane, but that its calls go through the lab's proxy, if
// there is one.
func (s *Supervisor) writeKubeconfig() error {
	from := s.Folder.AdminConf(s.spec)
	config, err := clientcmd.LoadFromFile(from)
	if err != nil {
		return fmt.Errorf("kubeconfig %s: %w", from, err)
	}
	for _, c := range config.Clusters {
		if s.Proxy != nil {
			c.ProxyURL = "http://" + s.Proxy.Addr().String()
		}
	}
	return clientcmd.WriteToFile(*config, s.Folder.Kubeconfig())
}
