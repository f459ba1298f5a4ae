package kubelet_test

import (
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kubepki/kubepki/lab/internal/kubelet"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	kubeletv1beta1 "k8s.io/kubelet/config/v1beta1"
	"sigs.k8s.io/yaml"
)

const secret = "abcdef.0123456789abcdef"

func config() kubelet.Config {
	return kubelet.Config{
		Name: "w1", Addresses: []netip.Addr{netip.MustParseAddr("10.99.0.21"), netip.MustParseAddr("fd99::21")},
		Join: &kubelet.Join{Server: "https://10.99.0.11:6443", Authority: []byte("authority\n"), Token: secret},
	}
}

func read(t *testing.T, root, path string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func exists(t *testing.T, root, path string) bool {
	t.Helper()
	_, err := os.Lstat(filepath.Join(root, path))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return err == nil
}

func TestTheTokenIsInOneFileOfItsOwnersAlone(t *testing.T) {
	root := t.TempDir()
	manifest, err := kubelet.Prepare(root, config())
	if err != nil {
		t.Fatal(err)
	}
	if all := strings.Join(append(manifest.Command, manifest.Env...), " "); strings.Contains(all, secret) {
		t.Errorf("the token is in the command: %s", all)
	}
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		data, err := os.ReadFile(path)
		if strings.Contains(string(data), secret) != (path == filepath.Join(root, kubelet.BootstrapKubeconfig)) {
			t.Errorf("%s: with the token or without is wrong", path)
		}
		if strings.Contains(string(data), secret) && info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestTheConfigurationIsStrictlyOne(t *testing.T) {
	root := t.TempDir()
	c := config()
	c.ControlPlane, c.ClusterDNS = true, netip.MustParseAddr("10.96.0.99")
	if _, err := kubelet.Prepare(root, c); err != nil {
		t.Fatal(err)
	}
	var k kubeletv1beta1.KubeletConfiguration
	if err := yaml.UnmarshalStrict([]byte(read(t, root, kubelet.ConfigFile)), &k); err != nil {
		t.Fatal(err)
	}
	if k.StaticPodPath != "" {
		t.Error("the kubelet would run the control plane a second time")
	}
	if *k.Authentication.Anonymous.Enabled || k.Authorization.Mode != "Webhook" || k.ReadOnlyPort != 0 || !k.ServerTLSBootstrap || !k.RotateCertificates {
		t.Errorf("it is not as safe as kubeadm's: %+v", k)
	}
	if len(k.RegisterWithTaints) != 1 || k.ClusterDNS[0] != "10.96.0.99" {
		t.Errorf("taints %v, cluster DNS %v", k.RegisterWithTaints, k.ClusterDNS)
	}
	if got := read(t, root, kubelet.FlagsFile); got != "KUBELET_KUBEADM_ARGS=\"--hostname-override=w1 --node-ip=10.99.0.21,fd99::21\"\n" {
		t.Errorf("the flags are %s", got)
	}
}

func TestWhoHasJoinedGetsNoTokenAndKeepsItsAuthority(t *testing.T) {
	root := t.TempDir()
	for path, content := range map[string]string{kubelet.Kubeconfig: "has joined", kubelet.AuthorityFile: "newer"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, path)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, path), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := kubelet.Prepare(root, config()); err != nil {
		t.Fatal(err)
	}
	if exists(t, root, kubelet.BootstrapKubeconfig) {
		t.Error("there is a token")
	}
	if read(t, root, kubelet.AuthorityFile) != "newer" || read(t, root, kubelet.Kubeconfig) != "has joined" {
		t.Error("a file that was there has changed")
	}
}

func TestANodeWithoutANameOrAnAddressIsRefused(t *testing.T) {
	for _, c := range []kubelet.Config{{Name: "w1"}, {Addresses: config().Addresses}} {
		if _, err := kubelet.Prepare(t.TempDir(), c); err == nil {
			t.Errorf("%+v was taken", c)
		}
	}
}

func TestFinishWaitsForACertificateAndPointsAtIt(t *testing.T) {
	root := t.TempDir()
	if _, err := kubelet.Prepare(root, config()); err != nil {
		t.Fatal(err)
	}
	if done, err := kubelet.Finish(root); done || err != nil {
		t.Fatalf("without a certificate: %v, %v", done, err)
	}
	if !exists(t, root, kubelet.BootstrapKubeconfig) {
		t.Fatal("the token was taken away before it was used")
	}
	embedded := clientcmdapi.Config{AuthInfos: map[string]*clientcmdapi.AuthInfo{"system:node:w1": {ClientCertificateData: []byte("certificate"), ClientKeyData: []byte("key")}}}
	if err := clientcmd.WriteToFile(embedded, filepath.Join(root, kubelet.Kubeconfig)); err != nil {
		t.Fatal(err)
	}
	const current = kubelet.CertificatesDir + "/kubelet-client-current.pem"
	if err := os.MkdirAll(filepath.Join(root, kubelet.CertificatesDir), 0o755); err != nil {
		t.Fatal(err)
	}
	// A link that is right on the node alone.
	if err := os.Symlink(kubelet.CertificatesDir+"/kubelet-client-2026.pem", filepath.Join(root, current)); err != nil {
		t.Fatal(err)
	}
	for range 2 { // it may be called again
		if done, err := kubelet.Finish(root); !done || err != nil {
			t.Fatalf("%v, %v", done, err)
		}
		is, err := clientcmd.LoadFromFile(filepath.Join(root, kubelet.Kubeconfig))
		if err != nil {
			t.Fatal(err)
		}
		user := is.AuthInfos["system:node:w1"]
		if user.ClientCertificate != current || user.ClientKey != current || len(user.ClientKeyData) > 0 {
			t.Errorf("kubelet.conf has %+v", user)
		}
		if exists(t, root, kubelet.BootstrapKubeconfig) {
			t.Error("the token is left")
		}
	}
}
