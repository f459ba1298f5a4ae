package certmanager

import (
	"encoding/json"
	"testing"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
)

func decoders(t *testing.T) (ours, theirs runtime.Decoder) {
	t.Helper()
	scheme := runtime.NewScheme()
	if err := cmapi.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	library := serializer.NewCodecFactory(scheme).WithoutConversion()
	n := negotiated{library}
	return n.DecoderToVersion(n.SupportedMediaTypes()[0].Serializer, cmapi.SchemeGroupVersion),
		library.DecoderToVersion(library.SupportedMediaTypes()[0].Serializer, cmapi.SchemeGroupVersion)
}

// TestTheCodecDecodesAsTheLibrary gives both what an API server gives.
func TestTheCodecDecodesAsTheLibrary(t *testing.T) {
	ours, theirs := decoders(t)
	for name, text := range map[string]string{
		"a Certificate": `{"apiVersion":"cert-manager.io/v1","kind":"Certificate","metadata":{"name":"a","namespace":"b","uid":"c","resourceVersion":"7","generation":2,
			"creationTimestamp":"2026-03-01T12:00:00Z","labels":{"x":"y"},"annotations":{"e":""},"ownerReferences":[{"apiVersion":"v1","kind":"K","name":"n","uid":"u","controller":true}],
			"managedFields":[{"manager":"m","operation":"Apply","apiVersion":"v1","time":"2026-03-01T12:00:00Z","fieldsType":"FieldsV1","fieldsV1":{"f:spec":{"k:{\"a\":1}":{}}}}]},
			"spec":{"secretName":"s","dnsNames":["a","ä"],"duration":"2160h0m0s","renewBefore":"1h","renewBeforePercentage":30,"isCA":true,"usages":["server auth"],"unknown":{"a":[1]},
			"privateKey":{"algorithm":"ECDSA","size":256},"issuerRef":{"name":"i"},"secretTemplate":{"labels":{"l":"m"}},"revisionHistoryLimit":3,"subject":{"organizations":["o"]},
			"keystores":{"jks":{"create":true,"passwordSecretRef":{"name":"p","key":"k"}}},"additionalOutputFormats":[{"type":"DER"}]},
			"status":{"conditions":[{"type":"Ready","status":"True","reason":"r","message":"m","lastTransitionTime":"2026-03-01T12:00:00Z","observedGeneration":2}],
			"notAfter":"2026-03-01T12:00:00Z","revision":1,"failedIssuanceAttempts":2,"lastFailureTime":null}}`,
		"a request": `{"apiVersion":"cert-manager.io/v1","kind":"CertificateRequest","metadata":{"name":"a"},"spec":{"request":"YWJj","issuerRef":{"name":"i"},"extra":{"k":["v"]}},
			"status":{"certificate":"YWJj","ca":"","conditions":[]}}`,
		"an issuer": `{"apiVersion":"cert-manager.io/v1","kind":"Issuer","metadata":{"name":"a"},"spec":{"ca":{"secretName":"s"},"acme":{"server":"u","privateKeySecretRef":{"name":"k"},
			"solvers":[{"http01":{"ingress":{"podTemplate":{"spec":{"nodeSelector":{"a":"b"}}}}}},{"dns01":{"webhook":{"groupName":"g","solverName":"s","config":{"x":[1,2]}}}}]}},"status":{"acme":{"uri":"u"}}}`,
		"a list":                `{"kind":"CertificateList","apiVersion":"cert-manager.io/v1","metadata":{"resourceVersion":"9"},"items":[{"metadata":{"name":"a"},"spec":{"secretName":"s","issuerRef":{"name":""}},"status":{}}]}`,
		"a status":              `{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"gone","reason":"Expired","code":410}`,
		"kind after the object": `{"metadata":{"name":"a"},"apiVersion":"cert-manager.io/v1","kind":"Certificate","spec":{"secretName":"s","issuerRef":{"name":""}},"status":{}}`,
	} {
		t.Run(name, func(t *testing.T) {
			got, err := runtime.Decode(ours, []byte(text))
			want, wantErr := runtime.Decode(theirs, []byte(text))
			if err != nil || wantErr != nil {
				t.Fatalf("%v, library %v", err, wantErr)
			}
			if o, ok := want.(metav1.Object); ok {
				o.SetManagedFields(nil)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	for name, text := range map[string]string{
		"half an object": `{"apiVersion":"cert-manager.io/v1","kind":"Certificate","metadata":{"name":"a"`,
		"a wrong type":   `{"apiVersion":"cert-manager.io/v1","kind":"Certificate","metadata":{"name":7}}`,
		"nothing":        ``,
	} {
		if o, err := runtime.Decode(ours, []byte(text)); err == nil {
			t.Errorf("%s became %+v", name, o)
		}
	}
}

func TestTheCodecDecodesWatchEvents(t *testing.T) {
	ours, _ := decoders(t)
	var e metav1.WatchEvent
	if _, _, err := ours.Decode([]byte(`{"type":"ADDED","object":{"kind":"Certificate","apiVersion":"cert-manager.io/v1"}}`), nil, &e); err != nil {
		t.Fatal(err)
	}
	var o cmapi.Certificate
	if err := json.Unmarshal(e.Object.Raw, &o); err != nil || e.Type != "ADDED" || o.Kind != "Certificate" {
		t.Errorf("%+v, %v", e, err)
	}
}
