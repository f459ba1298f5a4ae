package config

// The types mirror kubeadm.k8s.io/v1 with all its fields, also those that say
// nothing about credentials, so that a field that is not known can be refused
// (k/k cmd/kubeadm/app/apis/kubeadm/v1/types.go and v1beta4/types.go; the two
// differ in mergeMethod alone). They are not imported: k8s.io/kubernetes is no
// library, and k8s.io/api costs start-up time.

type initConfiguration struct {
	typeMeta         `json:",inline"`
	BootstrapTokens  []bootstrapToken `json:"bootstrapTokens,omitempty"`
	DryRun           bool             `json:"dryRun,omitempty"`
	NodeRegistration nodeRegistration `json:"nodeRegistration,omitempty"`
	LocalAPIEndpoint apiEndpoint      `json:"localAPIEndpoint,omitempty"`
	CertificateKey   string           `json:"certificateKey,omitempty"`
	SkipPhases       []string         `json:"skipPhases,omitempty"`
	Patches          *patches         `json:"patches,omitempty"`
	Timeouts         *timeouts        `json:"timeouts,omitempty"`
}

type bootstrapToken struct {
	Token       string   `json:"token,omitempty"`
	Description string   `json:"description,omitempty"`
	TTL         string   `json:"ttl,omitempty"`
	Expires     string   `json:"expires,omitempty"`
	Usages      []string `json:"usages,omitempty"`
	Groups      []string `json:"groups,omitempty"`
}

type nodeRegistration struct {
	Name                  string   `json:"name,omitempty"`
	CRISocket             string   `json:"criSocket,omitempty"`
	Taints                []taint  `json:"taints"`
	KubeletExtraArgs      []arg    `json:"kubeletExtraArgs,omitempty"`
	IgnorePreflightErrors []string `json:"ignorePreflightErrors,omitempty"`
	ImagePullPolicy       string   `json:"imagePullPolicy,omitempty"`
	ImagePullSerial       *bool    `json:"imagePullSerial,omitempty"`
}

type taint struct {
	Key       string `json:"key"`
	Value     string `json:"value,omitempty"`
	Effect    string `json:"effect"`
	TimeAdded string `json:"timeAdded,omitempty"`
}

type apiEndpoint struct {
	AdvertiseAddress string `json:"advertiseAddress,omitempty"`
	BindPort         int32  `json:"bindPort,omitempty"`
}

type patches struct {
	Directory string `json:"directory,omitempty"`
}

type timeouts struct {
	ControlPlaneComponentHealthCheck string `json:"controlPlaneComponentHealthCheck,omitempty"`
	KubeletHealthCheck               string `json:"kubeletHealthCheck,omitempty"`
	KubernetesAPICall                string `json:"kubernetesAPICall,omitempty"`
	EtcdAPICall                      string `json:"etcdAPICall,omitempty"`
	TLSBootstrap                     string `json:"tlsBootstrap,omitempty"`
	Discovery                        string `json:"discovery,omitempty"`
	UpgradeManifests                 string `json:"upgradeManifests,omitempty"`
}

type clusterConfiguration struct {
	typeMeta                    `json:",inline"`
	Etcd                        etcd            `json:"etcd,omitempty"`
	Networking                  networking      `json:"networking,omitempty"`
	KubernetesVersion           string          `json:"kubernetesVersion,omitempty"`
	ControlPlaneEndpoint        string          `json:"controlPlaneEndpoint,omitempty"`
	APIServer                   apiServer       `json:"apiServer,omitempty"`
	ControllerManager           component       `json:"controllerManager,omitempty"`
	Scheduler                   component       `json:"scheduler,omitempty"`
	DNS                         dns             `json:"dns,omitempty"`
	Proxy                       proxy           `json:"proxy,omitempty"`
	CertificatesDir             string          `json:"certificatesDir,omitempty"`
	ImageRepository             string          `json:"imageRepository,omitempty"`
	FeatureGates                map[string]bool `json:"featureGates,omitempty"`
	ClusterName                 string          `json:"clusterName,omitempty"`
	EncryptionAlgorithm         string          `json:"encryptionAlgorithm,omitempty"`
	CertificateValidityPeriod   string          `json:"certificateValidityPeriod,omitempty"`
	CACertificateValidityPeriod string          `json:"caCertificateValidityPeriod,omitempty"`
}

type component struct {
	ExtraArgs    []arg           `json:"extraArgs,omitempty"`
	ExtraVolumes []hostPathMount `json:"extraVolumes,omitempty"`
	ExtraEnvs    []envVar        `json:"extraEnvs,omitempty"`
}

type apiServer struct {
	component `json:",inline"`
	CertSANs  []string `json:"certSANs,omitempty"`
}

type arg struct {
	Name        string `json:"name"`
	Value       string `json:"value"`
	MergeMethod string `json:"mergeMethod,omitempty"` // v1 alone
}

type hostPathMount struct {
	Name      string `json:"name"`
	HostPath  string `json:"hostPath"`
	MountPath string `json:"mountPath"`
	ReadOnly  bool   `json:"readOnly,omitempty"`
	PathType  string `json:"pathType,omitempty"`
}

type envVar struct {
	Name      string         `json:"name"`
	Value     string         `json:"value,omitempty"`
	ValueFrom map[string]any `json:"valueFrom,omitempty"`
}

type imageMeta struct {
	ImageRepository string `json:"imageRepository,omitempty"`
	ImageTag        string `json:"imageTag,omitempty"`
}

type dns struct {
	imageMeta `json:",inline"`
	Disabled  bool `json:"disabled,omitempty"`
}

type proxy struct {
	Disabled bool `json:"disabled,omitempty"`
}

type networking struct {
	ServiceSubnet string `json:"serviceSubnet,omitempty"`
	PodSubnet     string `json:"podSubnet,omitempty"`
	DNSDomain     string `json:"dnsDomain,omitempty"`
}

type etcd struct {
	Local    *localEtcd    `json:"local,omitempty"`
	External *externalEtcd `json:"external,omitempty"`
}

type localEtcd struct {
	imageMeta      `json:",inline"`
	DataDir        string   `json:"dataDir"`
	ExtraArgs      []arg    `json:"extraArgs,omitempty"`
	ExtraEnvs      []envVar `json:"extraEnvs,omitempty"`
	ServerCertSANs []string `json:"serverCertSANs,omitempty"`
	PeerCertSANs   []string `json:"peerCertSANs,omitempty"`
}

type externalEtcd struct {
	Endpoints     []string `json:"endpoints"`
	HTTPEndpoints []string `json:"httpEndpoints,omitempty"`
	CAFile        string   `json:"caFile"`
	CertFile      string   `json:"certFile"`
	KeyFile       string   `json:"keyFile"`
}
