package webhook

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"

	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// RefuseKey is the key in a ConfigMap's data for which it is refused; the value
// is the reason.
const RefuseKey = "refuse"

// maxReview bounds a review: an object of etcd's limit of 1.5 MiB, its old
// state, and what is around them.
const maxReview = 4 << 20

// Counts are what a webhook has answered since it started.
type Counts struct {
	Allowed int64 `json:"allowed"`
	Refused int64 `json:"refused"`
}

// judge answers reviews. It is safe for concurrent use.
type judge struct{ allowed, refused atomic.Int64 }

func (j *judge) counts() Counts { return Counts{j.allowed.Load(), j.refused.Load()} }

// ServeHTTP answers one AdmissionReview of admission.k8s.io/v1. What is none is
// refused as a bad request, and not counted.
func (j *judge) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var review admissionv1.AdmissionReview
	if err := json.NewDecoder(io.LimitReader(r.Body, maxReview)).Decode(&review); err != nil {
		http.Error(w, fmt.Sprintf("read the review: %v", err), http.StatusBadRequest)
		return
	}
	if review.APIVersion != admissionv1.SchemeGroupVersion.String() || review.Request == nil {
		http.Error(w, "no request of "+admissionv1.SchemeGroupVersion.String(), http.StatusBadRequest)
		return
	}
	var object corev1.ConfigMap
	if err := json.Unmarshal(review.Request.Object.Raw, &object); err != nil {
		http.Error(w, fmt.Sprintf("read the object: %v", err), http.StatusBadRequest)
		return
	}
	answer := &admissionv1.AdmissionResponse{UID: review.Request.UID, Allowed: true}
	if reason, ok := object.Data[RefuseKey]; ok {
		answer.Allowed = false
		answer.Result = &metav1.Status{Code: http.StatusForbidden, Message: reason}
		j.refused.Add(1)
	} else {
		j.allowed.Add(1)
	}
	review.Request, review.Response = nil, answer
	writeJSON(w, review)
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(v); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
	}
}
