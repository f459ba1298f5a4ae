package certmanager

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	gwapi "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/kubepki/kubepki/internal/shim"
	"github.com/kubepki/kubepki/internal/workload"
)

// The resources of cert-manager.io/v1, as they are in paths.
const (
	certificates        = "certificates"
	certificateRequests = "certificaterequests"
	issuers             = "issuers"
	clusterIssuers      = "clusterissuers"

	signingRequests = "certificatesigningrequests" // of certificates.k8s.io/v1
)

// Client speaks cert-manager.io/v1, and the API of Kubernetes itself. It is safe for
// concurrent use.
type Client struct {
	Kube kubernetes.Interface
	// CM reaches cert-manager.io/v1, in JSON: the API server knows nothing else for
	// custom resources.
	CM rest.Interface
	// Metadata reaches the metadata of any object.
	Metadata metadata.Interface
	// JSON reaches any path, in JSON.
	JSON rest.Interface
	// Gateways reaches Gateways and ListenerSets.
	Gateways rest.Interface
}

// NewClient makes a client. Nothing bounds it but the API server: its priority and
// fairness are a better judge than a number here.
func NewClient(config *rest.Config) (*Client, error) {
	config = rest.CopyConfig(config)
	config.QPS = -1
	// To compress takes the API server and us more time than it saves the network. It is off
	// in kube-controller-manager for the same reason.
	config.DisableCompression = true
	if config.UserAgent == "" {
		config.UserAgent = rest.DefaultKubernetesUserAgent()
	}
	if config.ContentType == "" {
		config.ContentType = runtime.ContentTypeProtobuf
		config.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	}
	kube, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	meta, err := metadata.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	scheme := runtime.NewScheme()
	if err := cmapi.AddToScheme(scheme); err != nil {
		return nil, err
	}
	config.GroupVersion, config.APIPath = &cmapi.SchemeGroupVersion, "/apis"
	config.ContentType, config.AcceptContentTypes = runtime.ContentTypeJSON, runtime.ContentTypeJSON
	config.NegotiatedSerializer = negotiated{serializer.NewCodecFactory(scheme).WithoutConversion()}
	cm, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, err
	}
	if err := gwapi.Install(scheme); err != nil {
		return nil, err
	}
	config.GroupVersion = &shim.GatewayAPI
	gateways, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, err
	}
	config.GroupVersion = &schema.GroupVersion{}
	plain, err := rest.UnversionedRESTClientFor(config)
	if err != nil {
		return nil, err
	}
	return &Client{Kube: kube, CM: cm, Metadata: meta, JSON: plain, Gateways: gateways}, nil
}

// written is what is taken from the answer to a write: the rest was sent.
type written struct {
	Metadata struct {
		Name              string      `json:"name"`
		UID               types.UID   `json:"uid"`
		ResourceVersion   string      `json:"resourceVersion"`
		CreationTimestamp metav1.Time `json:"creationTimestamp"`
	} `json:"metadata"`
}

func (w *written) version() uint64 { return version(w.Metadata.ResourceVersion) }

// version returns a resourceVersion as a number, which it is for every resource that
// the API server keeps in etcd (k8s.io/apimachinery/pkg/util/resourceversion); 0 where
// it is none.
func version(s string) uint64 {
	v, _ := strconv.ParseUint(s, 10, 64)
	return v
}

// send writes a body of JSON. Fields are not validated again for warnings that nobody
// reads: what the schema refuses is refused all the same.
func send(ctx context.Context, request *rest.Request, body any) (*written, error) {
	data, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	answer, err := request.Param("fieldValidation", metav1.FieldValidationIgnore).Body(data).Do(ctx).Raw()
	if err != nil {
		return nil, err
	}
	var w written
	if err := json.Unmarshal(answer, &w); err != nil {
		return nil, fmt.Errorf("the answer to a write: %w", err)
	}
	return &w, nil
}

// statusBody is an object of which the API server takes the status alone, if it has
// not changed since.
type statusBody struct {
	metav1.TypeMeta `json:",inline"`
	Metadata        statusMeta `json:"metadata"`
	Status          any        `json:"status"`
}

type statusMeta struct {
	Namespace       string    `json:"namespace,omitempty"`
	Name            string    `json:"name"`
	UID             types.UID `json:"uid,omitempty"`
	ResourceVersion string    `json:"resourceVersion,omitempty"`
}

// object names an object as it was last seen.
type object struct {
	apiVersion      string // "": cert-manager.io/v1
	kind, resource  string
	namespace, name string
	uid             types.UID
	version         uint64
}

// putStatus writes the status of an object, if it is still as it was seen.
func (c *Client) putStatus(ctx context.Context, o object, status any) (*written, error) {
	body := statusBody{
		TypeMeta: metav1.TypeMeta{APIVersion: cmapi.SchemeGroupVersion.String(), Kind: o.kind},
		Metadata: statusMeta{Namespace: o.namespace, Name: o.name, UID: o.uid, ResourceVersion: strconv.FormatUint(o.version, 10)},
		Status:   status,
	}
	request := c.CM.Put().NamespaceIfScoped(o.namespace, o.namespace != "").Resource(o.resource).Name(o.name).SubResource("status")
	return send(ctx, request, body)
}

// createRequest makes a CertificateRequest.
func (c *Client) createRequest(ctx context.Context, r *cmapi.CertificateRequest) (*written, error) {
	r.TypeMeta = metav1.TypeMeta{APIVersion: cmapi.SchemeGroupVersion.String(), Kind: cmapi.CertificateRequestKind}
	return send(ctx, c.CM.Post().Namespace(r.Namespace).Resource(certificateRequests), r)
}

// getRequest reads a CertificateRequest.
func (c *Client) getRequest(ctx context.Context, key types.NamespacedName) (*cmapi.CertificateRequest, error) {
	r := &cmapi.CertificateRequest{}
	err := c.CM.Get().Namespace(key.Namespace).Resource(certificateRequests).Name(key.Name).Do(ctx).Into(r)
	return r, err
}

// deleteRequest removes the CertificateRequest that was seen, and no other of its name.
func (c *Client) deleteRequest(ctx context.Context, key types.NamespacedName, uid types.UID) error {
	options := &metav1.DeleteOptions{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "DeleteOptions"}, Preconditions: &metav1.Preconditions{UID: &uid}}
	body, err := json.Marshal(options)
	if err != nil {
		return err
	}
	return c.CM.Delete().Namespace(key.Namespace).Resource(certificateRequests).Name(key.Name).Body(body).Do(ctx).Error()
}

// applySecret writes the Secret of a Certificate, by force: what we and cert-manager
// write there is ours.
func (c *Client) applySecret(ctx context.Context, key types.NamespacedName, s *applycorev1.SecretApplyConfiguration) (*corev1.Secret, error) {
	data, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	there := &corev1.Secret{}
	err = c.Kube.CoreV1().RESTClient().Patch(types.ApplyYAMLPatchType).Namespace(key.Namespace).Resource("secrets").Name(key.Name).
		Param("fieldManager", workload.FieldManager).Param("force", "true").Body(data).Do(ctx).Into(there)
	return there, err
}
