package kubelet

import (
	"maps"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	"github.com/kubepki/kubepki/lab/internal/cri"
)

// writeConfiguration writes the kubelet's configuration.
func writeConfiguration(root string, c Config) error {
	k := kubeadmConfiguration(c)
	labConfiguration(k)
	maps.Copy(k.FeatureGates, c.FeatureGates)
	data, err := yaml.Marshal(k)
	if err != nil {
		return err
	}
	return write(root, ConfigFile, string(data), 0o644)
}

// kubeadmConfiguration is what kubeadm writes (k/k
// cmd/kubeadm/app/componentconfigs/kubelet.go), with one difference:
// serverTLSBootstrap, which kubeadm leaves to the user, so that kubelets serve
// certificates of the cluster and not their own.
func kubeadmConfiguration(c Config) *kubeletv1beta1.KubeletConfiguration {
	dns := "10.96.0.10"
	if c.ClusterDNS.IsValid() {
		dns = c.ClusterDNS.String()
	}
	k := &kubeletv1beta1.KubeletConfiguration{
		TypeMeta: metav1.TypeMeta{APIVersion: kubeletv1beta1.SchemeGroupVersion.String(), Kind: "KubeletConfiguration"},
		Authentication: kubeletv1beta1.KubeletAuthentication{
			X509:      kubeletv1beta1.KubeletX509Authentication{ClientCAFile: AuthorityFile},
			Webhook:   kubeletv1beta1.KubeletWebhookAuthentication{Enabled: ptr.To(true)},
			Anonymous: kubeletv1beta1.KubeletAnonymousAuthentication{Enabled: ptr.To(false)},
		},
		Authorization:      kubeletv1beta1.KubeletAuthorization{Mode: kubeletv1beta1.KubeletAuthorizationModeWebhook},
		ClusterDNS:         []string{dns},
		ClusterDomain:      "cluster.local",
		HealthzBindAddress: probe.Hostname(),
		HealthzPort:        ptr.To[int32](10248),
		RotateCertificates: true,
		ServerTLSBootstrap: true,
	}
	if c.ControlPlane {
		k.RegisterWithTaints = []corev1.Taint{{Key: "node-role.kubernetes.io/control-plane", Effect: corev1.TaintEffectNoSchedule}}
	}
	return k
}

// labConfiguration sets what the lab needs besides. staticPodPath is not set
// though kubeadm sets it: the lab runs the control plane by itself, from the
// very manifests that the kubelet would run a second time.
func labConfiguration(k *kubeletv1beta1.KubeletConfiguration) {
	k.ContainerRuntimeEndpoint = cri.Endpoint
	// The lab is a guest on a machine, in whose control groups it may write
	// nothing: the kubelet is to put neither itself nor its pods into any, and to
	// accept whatever version of them the machine has.
	k.CgroupDriver = "cgroupfs"
	k.CgroupsPerQOS = ptr.To(false)
	k.EnforceNodeAllocatable = []string{"none"}
	k.FailCgroupV1 = ptr.To(false)
	// Nor is it for the lab to say whether the machine may swap.
	k.FailSwapOn = ptr.To(false)
	// A full disk of the machine is no reason to evict pods, which take no room.
	k.EvictionHard = map[string]string{"nodefs.available": "0%", "imagefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.inodesFree": "0%", "memory.available": "0%", "pid.available": "0%"}
	// An ordinary user may not lower its score. A kubelet in the lab is no more
	// worth keeping than the test that runs it.
	k.OOMScoreAdj = ptr.To[int32](0)
	// In a user namespace /dev/kmsg cannot be read, where a kubelet learns who ran
	// out of memory. This gate lets it do without; it is on by default since 1.37.
	k.FeatureGates = map[string]bool{"KubeletInUserNamespace": true}
	// /usr is the machine's.
	k.VolumePluginDir = "/var/lib/kubelet/volumeplugins"
	// There is no name server in the lab's network.
	k.ResolverConfig = ptr.To("")
	// A node that has just got an address or a certificate says so soon.
	k.NodeStatusUpdateFrequency = metav1.Duration{Duration: 5 * time.Second}
}
