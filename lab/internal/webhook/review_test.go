package webhook

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
)

func TestReviewsAreAnswered(t *testing.T) {
	const review = `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u1","object":{"data":{%}}}}`
	tests := []struct {
		name, body string
		code       int
		allowed    bool
		message    string
		counts     Counts
	}{
		{"what has nothing to be refused for", strings.Replace(review, "%", `"a":"b"`, 1), 200, true, "", Counts{Allowed: 1}},
		{"what is to be refused", strings.Replace(review, "%", `"refuse":"because"`, 1), 200, false, "because", Counts{Refused: 1}},
		{"no JSON", `{`, 400, false, "read the review", Counts{}},
		{"another version", strings.NewReplacer("io/v1", "io/v1beta1", "%", "").Replace(review), 400, false, "no request of admission.k8s.io/v1", Counts{}},
		{"no request", `{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}`, 400, false, "no request", Counts{}},
		{"an object that is none", strings.Replace(review, `{"data":{%}}`, `[]`, 1), 400, false, "read the object", Counts{}},
		{"more than an object can be", strings.Replace(review, "%", `"a":"`+strings.Repeat("b", maxReview)+`"`, 1), 400, false, "read the review", Counts{}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			j := &judge{}
			answer := httptest.NewRecorder()
			j.ServeHTTP(answer, httptest.NewRequest(http.MethodPost, "/validate", strings.NewReader(test.body)))
			if answer.Code != test.code || !strings.Contains(answer.Body.String(), test.message) {
				t.Fatalf("%d %s; want %d %s", answer.Code, answer.Body, test.code, test.message)
			}
			if got := j.counts(); got != test.counts {
				t.Errorf("counts %+v; want %+v", got, test.counts)
			}
			if test.code != http.StatusOK {
				return
			}
			var review admissionv1.AdmissionReview
			if err := json.Unmarshal(answer.Body.Bytes(), &review); err != nil {
				t.Fatal(err)
			}
			if r := review.Response; r == nil || r.UID != "u1" || r.Allowed != test.allowed || review.Request != nil {
				t.Errorf("%+v", review)
			}
		})
	}
}
