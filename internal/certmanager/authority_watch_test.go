package certmanager

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestTheFirstWordOfAWatchCounts: a Secret that has gone between its being read and the
// first list of its watch is told of, as one is that changes later; what does not change
// is told of once.
func TestTheFirstWordOfAWatchCounts(t *testing.T) {
	at := func(version string) *metav1.PartialObjectMetadata {
		return &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{ResourceVersion: version}}
	}
	var told []string
	s := &oneSecret{touched: func(version string) { told = append(told, version) }}
	check(t, s.Replace(nil, "1"))
	check(t, s.Replace(nil, "2"))
	check(t, s.Add(at("3")))
	check(t, s.Replace([]any{at("3")}, "3"))
	check(t, s.Delete(at("4")))
	if len(told) != 3 || told[0] != "" || told[1] != "3" || told[2] != "" {
		t.Errorf("told of %q", told)
	}
}
