// Command extension-apiserver is a whole extension API server: the group
// hello.example.com/v1 with one resource to read, callers, whose one object, me,
// says who has asked.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kubepki/kubepki/mtls"
	"github.com/kubepki/kubepki/mtls/frontproxy"
	"github.com/kubepki/kubepki/mtls/frontproxy/live"
)

const (
	group   = "hello.example.com"
	version = group + "/v1"
	path    = "/apis/" + version
)

// Caller says who has asked for it.
type Caller struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	User              authenticationv1.UserInfo `json:"user"`
	// From is the certificate that the request came with: its subject, and its serial number.
	From string `json:"from"`
}

func main() {
	listen := flag.String("listen", ":8443", "address to serve at")
	certificate := flag.String("tls-cert-file", "/tls/tls.crt", "certificate to show, which the APIService's caBundle verifies")
	key := flag.String("tls-private-key-file", "/tls/tls.key", "its key")
	kubeconfig := flag.String("kubeconfig", "", "how to call kube-apiserver; empty: as a pod does")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *listen, mtls.Files{Certificate: *certificate, Key: *key}, *kubeconfig); err != nil {
		slog.Error("extension-apiserver", "err", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, listen string, files mtls.Files, kubeconfig string) error {
	source, err := mtls.OpenFiles(files, func(r mtls.Reload) { slog.Info("certificate", "files", r.Files, "err", r.Err) })
	if err != nil {
		return err
	}
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	settings := live.New(client, func(err error) { slog.Info("settings of the front proxy", "err", err) })
	go settings.Run(ctx)

	guard := &frontproxy.Guard{Settings: settings}
	all := http.NewServeMux()
	all.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if _, err := settings.Settings(); err != nil {
			http.Error(w, "not ready", http.StatusServiceUnavailable)
		}
	})
	all.Handle("/", guard.Handler(api()))
	server := &http.Server{
		Addr: listen, Handler: all, TLSConfig: frontproxy.ServerConfig(source, settings),
		ReadHeaderTimeout: 5 * time.Second, ReadTimeout: 10 * time.Second, WriteTimeout: 20 * time.Second, IdleTimeout: 2 * time.Minute,
	}
	context.AfterFunc(ctx, func() { _ = server.Close() })
	if err := server.ListenAndServeTLS("", ""); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// api is what kubectl needs: what there is, and the object. Each caller may read
// who they are, so that nobody need be asked who may.
func api() http.Handler {
	it := metav1.GroupVersionForDiscovery{GroupVersion: version, Version: "v1"}
	of := metav1.APIGroup{TypeMeta: metav1.TypeMeta{Kind: "APIGroup", APIVersion: "v1"}, Name: group, Versions: []metav1.GroupVersionForDiscovery{it}, PreferredVersion: it}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /apis", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, metav1.APIGroupList{TypeMeta: metav1.TypeMeta{Kind: "APIGroupList", APIVersion: "v1"}, Groups: []metav1.APIGroup{of}})
	})
	mux.HandleFunc("GET /apis/"+group, func(w http.ResponseWriter, _ *http.Request) { answer(w, of) })
	mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) {
		answer(w, metav1.APIResourceList{
			TypeMeta: metav1.TypeMeta{Kind: "APIResourceList", APIVersion: "v1"}, GroupVersion: version,
			APIResources: []metav1.APIResource{{Name: "callers", SingularName: "caller", Kind: "Caller", Verbs: metav1.Verbs{"get", "list"}}},
		})
	})
	mux.HandleFunc("GET "+path+"/callers", func(w http.ResponseWriter, r *http.Request) {
		answer(w, map[string]any{"kind": "CallerList", "apiVersion": version, "metadata": metav1.ListMeta{}, "items": []Caller{me(r)}})
	})
	mux.HandleFunc("GET "+path+"/callers/me", func(w http.ResponseWriter, r *http.Request) { answer(w, me(r)) })
	return mux
}

func me(r *http.Request) Caller {
	c, _ := frontproxy.FromContext(r.Context()) // there is one behind the guard
	u := authenticationv1.UserInfo{Username: c.User.Name, UID: c.User.UID, Groups: c.User.Groups, Extra: map[string]authenticationv1.ExtraValue{}}
	for key, values := range c.User.Extra {
		u.Extra[key] = values
	}
	return Caller{TypeMeta: metav1.TypeMeta{Kind: "Caller", APIVersion: version}, ObjectMeta: metav1.ObjectMeta{Name: "me"}, User: u,
		From: fmt.Sprintf("%s, %x", c.Peer, c.Peer.Certificate.SerialNumber)}
}

func answer(w http.ResponseWriter, object any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(object); err != nil {
		slog.Info("an answer was not written", "err", err)
	}
}
