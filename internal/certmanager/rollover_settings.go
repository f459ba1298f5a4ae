package certmanager

import (
	"cmp"
	"fmt"
	"strconv"
	"time"

	cmapi "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"

	"github.com/kubepki/kubepki/internal/rollover"
)

// Annotations of issuers, by which a user says how their CA is changed.
const (
	annotationRollover  = "kubepki.dev/ca-rollover"                  // true or false
	annotationAccept    = "kubepki.dev/ca-rollover-accept"           // a duration, as all below
	annotationWindow    = "kubepki.dev/ca-rollover-window"           //
	annotationKeep      = "kubepki.dev/ca-rollover-keep"             //
	annotationConfigMap = "kubepki.dev/ca-bundle-configmap"          // a name
	annotationTrust     = "kubepki.dev/ca-bundle-clustertrustbundle" // a name, or SIGNER:NAME
)

// Rollover says how issuers with spec.ca are carried over to another CA.
type Rollover struct {
	// Off leaves the change of a CA to issuers that say kubepki.dev/ca-rollover: "true".
	Off bool
	// Accept is the wait for readers of Secrets; 0: DefaultAccept.
	Accept time.Duration
	// Rate is how many certificates of an issuer are issued anew in a second, at the most;
	// 0: DefaultReissueRate.
	Rate float64
}

// DefaultAccept is what a kubelet needs to bring a changed Secret into pods (its
// syncFrequency of a minute, and its cache's time), an application to read it again, and
// a good deal more.
const DefaultAccept = 10 * time.Minute

// DefaultReissueRate is what leaves an API server most of its time: five Certificates are
// twenty writes, and 20,000 take 67 minutes.
const DefaultReissueRate = 5

// Leaves are issued anew over no less than leastWindow.
const leastWindow = time.Hour

// settingsOf are an issuer's settings for so many Certificates; false: its CA changes as
// in cert-manager. An error tells of an annotation that counts for nothing.
func (o *Rollover) settingsOf(issuer cmapi.GenericIssuer, certificates int) (rollover.Settings, bool, error) {
	var wrong error
	a := issuer.GetAnnotations()
	on := !o.Off
	if text, ok := a[annotationRollover]; ok {
		v, err := strconv.ParseBool(text)
		if err != nil {
			wrong = fmt.Errorf("annotation %s: %.64q is neither true nor false", annotationRollover, text)
		} else {
			on = v
		}
	}
	s := rollover.Settings{Accept: o.Accept, Window: max(leastWindow, time.Duration(float64(certificates)/cmp.Or(o.Rate, DefaultReissueRate)*float64(time.Second)))}
	if s.Accept <= 0 {
		s.Accept = DefaultAccept
	}
	for name, to := range map[string]*time.Duration{annotationAccept: &s.Accept, annotationWindow: &s.Window, annotationKeep: &s.Keep} {
		text, ok := a[name]
		if !ok {
			continue
		}
		d, err := time.ParseDuration(text)
		if err != nil || d < 0 {
			wrong = fmt.Errorf("annotation %s: %.64q is no duration such as 10m", name, text)
			continue
		}
		*to = d
	}
	return s, on, wrong
}
