package explain_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/kubepki/kubepki/internal/explain"
)

// Whose log it is, where it ran, what it did: from what stands around the message.
func TestFramesTellWhoWroteALine(t *testing.T) {
	const expired = "x509: certificate has expired or is not yet valid: current time 2026-11-30T16:51:53Z is after 2026-11-29T00:00:00Z"
	for name, x := range map[string]struct {
		line, component, node string
		direction             explain.Direction
		half                  string
		links                 []int
	}{
		"nothing around it":                          {expired, "", "", "", "", nil},
		"journald's short form":                      {`Nov 30 16:51:53 w1 kubelet[812]: E1130 16:51:53.1 812 reflector.go:227] "Failed to watch" err="Get \"https://10.0.0.11:6443/api\": ` + expired + `"`, "kubelet", "w1", explain.Dialling, "server", []int{8, 16}},
		"journald's ISO form":                        {`2026-11-30T16:51:53+0100 w1 kubelet[812]: ` + expired, "kubelet", "w1", "", "", nil},
		"a container's log file":                     {`2026-11-30T16:51:53.123456789Z stderr F I1130 16:51:53.1 1 log.go:245] http: TLS handshake error from 10.0.0.21:41234: remote error: tls: bad certificate`, "", "", explain.Serving, "server", nil},
		"kubectl logs --prefix":                      {`[pod/kube-apiserver-cp1/kube-apiserver] I1130 16:51:53.1 1 log.go:245] http: TLS handshake error from 10.0.0.21:41234: remote error: tls: bad certificate`, "kube-apiserver", "cp1", explain.Serving, "server", []int{4, 5, 6, 7, 8, 9, 16, 17}},
		"Docker's log file":                          {`{"log":"I1130 16:51:53.1 1 log.go:245] http: TLS handshake error from 10.0.0.21:41234: remote error: tls: bad certificate\n","stream":"stderr","time":"2026-11-30T16:51:53Z"}`, "", "", explain.Serving, "server", nil},
		"klog in JSON":                               {`{"ts":1732985513000.1,"caller":"filters/authentication.go:76","msg":"Unable to authenticate the request","err":"[invalid bearer token, service account token has expired]"}`, "kube-apiserver", "", explain.Serving, "client", []int{7, 12, 17}},
		"etcd's zap":                                 {`{"level":"warn","ts":"2026-11-30T17:19:20.7Z","caller":"embed/config_logging.go:194","msg":"rejected connection on client endpoint","remote-addr":"10.0.0.11:35650","server-name":"","error":"remote error: tls: bad certificate"}`, "etcd", "", explain.Serving, "server", []int{2, 3, 15}},
		"etcd 3.5's zap, which names no endpoint":    {`{"level":"warn","ts":"2026-11-30T17:19:20.7Z","caller":"embed/config_logging.go:169","msg":"rejected connection","remote-addr":"10.0.0.11:35650","server-name":"","error":"EOF"}`, "etcd", "", explain.Serving, "", []int{1, 2, 3, 15}},
		"etcd's prober":                              {`{"level":"warn","msg":"prober detected unhealthy status","round-tripper-name":"ROUND_TRIPPER_RAFT_MESSAGE","remote-peer-id":"8e9e05c52164694d","rtt":"0s","error":"tls: failed to verify certificate: x509: certificate is valid for 10.0.0.13, not 10.0.0.12"}`, "etcd", "", explain.Dialling, "server", []int{1}},
		"kubectl":                                    {`Unable to connect to the server: tls: failed to verify certificate: ` + expired, "kubectl", "", explain.Dialling, "server", []int{9}},
		"the API server that dials etcd":             {`W1130 17:19:19.6 1 logging.go:55] [core] [Channel #1 SubChannel #3]grpc: addrConn.createTransport failed to connect to {Addr: "127.0.0.1:2379", ServerName: "127.0.0.1:2379", }. Err: connection error: desc = "transport: authentication handshake failed: tls: failed to verify certificate: ` + expired + `"`, "", "", explain.Dialling, "server", []int{2, 3, 15}},
		"the API server that dials a kubelet":        {`Error from server: Get "https://10.0.0.21:10250/containerLogs/default/web/web": remote error: tls: internal error`, "kube-apiserver", "", explain.Dialling, "server", []int{11}},
		"the API server that dials a webhook":        {`W1130 17:19:19.6 1 dispatcher.go:225] Failed calling webhook, failing closed: failed calling webhook "v.example.com": failed to call webhook: Post "https://hook.prod.svc:443/validate?timeout=10s": tls: failed to verify certificate: x509: certificate signed by unknown authority`, "kube-apiserver", "", explain.Dialling, "server", []int{14}},
		"the API server that dials an aggregate":     {`E1130 17:19:19.6 1 available_controller.go:460] v1beta1.metrics.k8s.io failed with: failing or missing response from https://10.96.7.7:443/apis/metrics.k8s.io/v1beta1: Get "https://10.96.7.7:443/apis/metrics.k8s.io/v1beta1": tls: failed to verify certificate: x509: certificate signed by unknown authority`, "kube-apiserver", "", explain.Dialling, "server", []int{13}},
		"metrics-server that dials a kubelet":        {`E1130 17:19:19.6 1 scraper.go:149] "Failed to scrape node" err="Get \"https://10.0.0.21:10250/metrics/resource\": tls: failed to verify certificate: x509: cannot validate certificate for 10.0.0.21 because it doesn't contain any IP SANs" node="w1"`, "metrics-server", "", explain.Dialling, "server", []int{20}},
		"a scheduler that cannot get its lock":       {`E1130 17:19:19.6 1 leaderelection.go:429] error retrieving resource lock kube-system/kube-scheduler: Get "https://10.0.0.11:6443/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/kube-scheduler?timeout=5s": ` + expired, "kube-scheduler", "", explain.Dialling, "server", []int{6}},
		"a kubelet whose certificate has expired":    {`Nov 30 16:51:53 w1 kubelet[812]: E1130 16:51:53.1 812 bootstrap.go:267] "Unhandled Error" err="part of the existing bootstrap client certificate in /etc/kubernetes/kubelet.conf is expired: 2026-11-29 00:00:00 +0000 UTC"`, "kubelet", "w1", explain.Dialling, "client", []int{8}},
		"a kubelet that is not known":                {`E1130 16:51:53.1 812 controller.go:145] "Failed to ensure lease exists, will retry" err="Unauthorized" interval="7s"`, "kubelet", "", explain.Dialling, "client", []int{8}},
		"a join by a token that is gone":             {`couldn't validate the identity of the API Server: could not find a JWS signature in the cluster-info ConfigMap for token ID "abcdef"`, "kubeadm", "", explain.Dialling, "client", []int{16}},
		"a bootstrap token whose secret is gone":     {`I1130 17:19:19.6 1 bootstrap.go:98] No secret of name bootstrap-token-abcdef to match bootstrap bearer token`, "kube-apiserver", "", explain.Serving, "client", []int{16}},
		"a pod inside the cluster":                   {`Get "https://10.96.0.1:443/api/v1/namespaces": ` + expired, "", "", explain.Dialling, "server", []int{4, 5, 6, 7, 8, 9, 16, 17}},
		"a front proxy that may not":                 {`E1130 17:19:19.6 1 authentication.go:76] "Unable to authenticate the request" err="[x509: subject with cn=other is not in the allowed list, verifying certificate SN=7, SKID=, AKID=0A:0B failed: x509: certificate signed by unknown authority]"`, "kube-apiserver", "", explain.Serving, "client", []int{13}},
		"a kubelet that refuses a client":            {`E1130 17:19:19.6 812 server.go:310] "Unable to authenticate the request due to an error" err="verifying certificate SN=7, SKID=, AKID=0A:0B failed: x509: certificate signed by unknown authority"`, "kubelet", "", explain.Serving, "client", []int{11}},
		"a kubelet that may not bootstrap":           {`E1130 17:19:19.6 812 run.go:72] "command failed" err="failed to run Kubelet: unable to load bootstrap kubeconfig: stat /etc/kubernetes/bootstrap-kubelet.conf: no such file or directory"`, "kubelet", "", explain.Dialling, "client", []int{8, 16}},
		"exec into a pod":                            {`Error from server: error dialing backend: remote error: tls: internal error`, "kube-apiserver", "", explain.Dialling, "server", []int{11}},
		"an API server of 1.17":                      {`E1130 17:19:19.6 1 authentication.go:63] Unable to authenticate the request due to an error: [x509: certificate has expired or is not yet valid, x509: certificate has expired or is not yet valid]`, "kube-apiserver", "", explain.Serving, "client", []int{5, 6, 8, 9}},
		"etcd 3.4":                                   {`2020-01-01 00:00:00.1 I | embed: rejected connection from "10.0.0.12:41234" (error "remote error: tls: bad certificate", ServerName "")`, "etcd", "", explain.Serving, "server", []int{1, 2, 3, 15}},
		"a pin of another cluster":                   {`error execution phase preflight: couldn't validate the identity of the API Server: cluster CA found in cluster-info ConfigMap is invalid: none of the public keys "sha256:0a" are pinned`, "kubeadm", "", explain.Dialling, "server", []int{16}},
		"an image's registry":                        {`Nov 30 16:51:53 w1 kubelet[812]: E1130 16:51:53.1 812 remote_image.go:180] "PullImage from image service failed" err="failed to pull and unpack image "registry.test/a:b": failed to resolve reference: failed to do request: Head "https://registry.test/v2/a/manifests/b": tls: failed to verify certificate: x509: certificate signed by unknown authority"`, "kubelet", "w1", explain.Dialling, "", []int{}},
		"a load balancer's check":                    {`I1130 17:19:19.6 1 log.go:245] http: TLS handshake error from 10.0.0.5:41234: EOF`, "", "", explain.Serving, "", nil},
		"a pair that a line names":                   {`E1130 17:19:18.1 1 run.go:72] "command failed" err="invalid serving cert keypair: open /etc/kubernetes/pki/etcd/server.key: permission denied"`, "", "", "", "", []int{2, 3, 15}},
		"a kubelet's pair that a kubeconfig names":   {`invalid configuration: [unable to read client-cert /var/lib/kubelet/pki/kubelet-client-current.pem for default-auth due to open /var/lib/kubelet/pki/kubelet-client-current.pem: no such file or directory]`, "", "", "", "", []int{8}},
		"an authority that a line names":             {`x509: certificate signed by unknown authority (possibly because of "crypto/rsa: verification error" while trying to verify candidate authority certificate "etcd-ca")`, "", "", "", "", []int{1, 2, 3, 15}},
		"openssl":                                    {`verify error:num=20:unable to get local issuer certificate`, "", "", "", "", nil},
		"curl":                                       {`curl: (60) SSL certificate problem: unable to get local issuer certificate`, "", "", explain.Dialling, "server", nil},
		"an IPv6 API server":                         {`Get "https://[fd00::11]:6443/api": tls: failed to verify certificate: x509: certificate is valid for fd00::12, not fd00::11`, "", "", explain.Dialling, "server", []int{4, 5, 6, 7, 8, 9, 16, 17}},
		"a read that was cut off by who was dialled": {`read tcp 10.0.0.21:41234->10.0.0.11:6443: read: connection reset by peer`, "", "", explain.Dialling, "", []int{4, 5, 6, 7, 8, 9, 16, 17}},
	} {
		t.Run(name, func(t *testing.T) {
			e := explain.Line(x.line, "")
			if e == nil {
				t.Fatal("it is not explained")
			}
			if e.Component != x.component || e.Node != x.node || e.Direction != x.direction || e.Half != x.half || x.links != nil && !slices.Equal(e.Links, x.links) {
				t.Errorf("%q of node %q, %s, %s half of %d (%s)\nwant %q of node %q, %s, %s half of %d", e.Component, e.Node, e.Direction, e.Half, e.Links, e.Class, x.component, x.node, x.direction, x.half, x.links)
			}
		})
	}
}

// Whom a URL leads to is told without the user and password in it, and a kubectl that
// has no kubeconfig is told to take one, not to look at certificates.
func TestWhereALineDialled(t *testing.T) {
	for name, x := range map[string]struct {
		line, dialled string
		files         bool
	}{
		"a URL with a user and a password": {`Get "https://admin:hunter22@10.0.0.11:6443/": x509: certificate signed by unknown authority`, "10.0.0.11:6443", true},
		"a URL with a user":                {`Get "https://admin@[fd00::11]/": x509: certificate signed by unknown authority`, "[fd00::11]:443", true},
		"a plain URL":                      {`Get "https://10.0.0.11:6443/": x509: certificate signed by unknown authority`, "10.0.0.11:6443", true},
		"no kubeconfig":                    {`The connection to the server localhost:8080 was refused - did you specify the right host or port?`, "localhost:8080", false},
	} {
		t.Run(name, func(t *testing.T) {
			e := explain.Line(x.line, "kubectl")
			if e == nil || e.Facts.Dialled != x.dialled || (len(e.Look) > 0) != x.files || !x.files && !strings.Contains(e.Meaning, "KUBECONFIG") {
				t.Errorf("%+v", e)
			}
		})
	}
}

// What the user says wins over what the line tells.
func TestComponentIsWhatTheUserSays(t *testing.T) {
	const line = "remote error: tls: bad certificate"
	for component, want := range map[string][]int{"etcd": {1, 2, 3, 15}, "kubelet": {8, 10, 11, 16, 20}, "kube-scheduler": {6, 19}} {
		if e := explain.Line(line, component); e == nil || !slices.Equal(e.Links, want) {
			t.Errorf("%s: %+v, want links %d", component, e, want)
		}
	}
}

// Secrets in a line are in nothing that is said of it.
func TestSecretsAreNotRepeated(t *testing.T) {
	jwt := "eyJhbGciOiJSUzI1NiIsImtpZCI6IiJ9.eyJpc3MiOiJrdWJlcm5ldGVzIn0.c2lnbmF0dXJlLW9mLWEtdG9rZW4"
	for name, x := range map[string]struct{ line, secret string }{
		"a token of a service account":       {"Unauthorized token=" + jwt, "c2lnbmF0dXJl"},
		"a token in a header":                {`Unauthorized Authorization: Bearer opaque-static-token`, "opaque-static"},
		"a token in a header that is a list": {`Unauthorized "Authorization":["Bearer s3cr3ts3cr3ts3cr3t"]`, "s3cr3t"},
		"a bootstrap token":                  {`failed to request a certificate with abcdef.0123456789abcdef: Unauthorized`, "0123456789abcdef"},
		"a token as a flag":                  {`kubeadm join --token=abcdefgh12345 x509: certificate signed by unknown authority`, "abcdefgh12345"},
		"a private key":                      {"Unauthorized -----BEGIN EC PRIVATE KEY-----\\nMHcCAQEEIIr\\n-----END EC PRIVATE KEY-----", "MHcCAQEEIIr"},
		"a private key that is cut off":      {"Unauthorized -----BEGIN PRIVATE KEY-----MHcCAQEEIIr", "MHcCAQEEIIr"},
		"a password in a URL":                {`Get "https://admin:hunter22@10.0.0.11:6443/": Unauthorized`, "hunter22"},
		"a kubeconfig's key":                 {`client-key-data: LS0tLS1CRUdJTiBSU0E Unauthorized`, "LS0tLS1CRUdJTiBSU0E"},
		"a token in a field of JSON":         {`{"msg":"Unauthorized","token":"s3cr3ts3cr3t"}`, "s3cr3ts3cr3t"},
		"a websocket's protocol":             {`Unauthorized base64url.bearer.authorization.k8s.io.c2VjcmV0c2VjcmV0`, "c2VjcmV0"},
	} {
		t.Run(name, func(t *testing.T) {
			e := explain.Line(x.line, "kube-apiserver")
			if e == nil {
				t.Fatal("it is not explained")
			}
			if said := strings.Join(append([]string{e.Line, e.Meaning, e.Facts.Path, e.Facts.Dialled, e.Facts.User, e.Node}, e.Next...), "\n"); strings.Contains(said, x.secret) {
				t.Errorf("it says\n%s", said)
			}
		})
	}
}

// FuzzLine: no line breaks it, what it says is bounded and valid text, and a line
// that is said again says the same.
func FuzzLine(f *testing.F) {
	f.Add(unknownByW1, "")
	f.Add(peerNames, "etcd")
	f.Add("x509: certificate is valid for [::1], not [", "kubelet")
	f.Add(`{"msg":"x","error":"tls: bad certificate"`, "")
	f.Add("Get \"https://[:::\": Unauthorized SN=99999999999999999999999999 SKID=zz", "")
	f.Fuzz(func(t *testing.T, line, component string) {
		e := explain.Line(line, component)
		if e == nil {
			return
		}
		if len(e.Line) > 8<<10 || !slices.IsSorted(e.Links) || e.Meaning == "" || strings.Contains(e.Meaning, "{") {
			t.Errorf("%+v", e)
		}
		if again := explain.Line(line, component); again.Meaning != e.Meaning || !slices.Equal(again.Links, e.Links) {
			t.Errorf("%+v\n%+v", e, again)
		}
	})
}
