package certmanager

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"pgregory.net/rapid"
)

func configMap(name, version, value string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "n", Name: name, ResourceVersion: version}, Data: map[string]string{"v": value}}
}

func testStore(heard *[]string) *store[string] {
	s := newStore(func(o any) (*string, error) { v := o.(*corev1.ConfigMap).Data["v"]; return &v, nil })
	s.told = func(key types.NamespacedName, before, after *string) {
		text := func(p *string) string {
			if p == nil {
				return "-"
			}
			return *p
		}
		*heard = append(*heard, key.Name+" "+text(before)+">"+text(after))
	}
	return s
}

func key(name string) types.NamespacedName { return types.NamespacedName{Namespace: "n", Name: name} }

func contents(s *store[string]) string {
	var all []string
	for k, v := range s.each() {
		all = append(all, k.Name+"="+*v.value)
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

func TestStoreKnowsItsOwnWritesAtOnce(t *testing.T) {
	ptr := func(s string) *string { return &s }
	for name, row := range map[string]struct {
		do   func(*testing.T, *store[string])
		want string
	}{
		"a write is there before the watch tells of it": {func(_ *testing.T, s *store[string]) {
			s.wrote(key("a"), 20, ptr("ours"))
		}, "a=ours"},
		"the echo of what was before it counts for nothing": {func(t *testing.T, s *store[string]) {
			s.wrote(key("a"), 20, ptr("ours"))
			check(t, s.Update(configMap("a", "15", "older")))
		}, "a=ours"},
		"what came after it counts": {func(t *testing.T, s *store[string]) {
			s.wrote(key("a"), 20, ptr("ours"))
			check(t, s.Update(configMap("a", "25", "later")))
		}, "a=later"},
		"the watch was faster than the answer to the write": {func(t *testing.T, s *store[string]) {
			check(t, s.Update(configMap("a", "25", "later")))
			s.wrote(key("a"), 20, ptr("ours"))
		}, "a=later"},
		"the watch has told that it was removed before the write was answered": {func(t *testing.T, s *store[string]) {
			check(t, s.Delete(configMap("a", "30", "")))
			s.wrote(key("a"), 20, ptr("ours"))
		}, ""},
		"one that was removed and made again": {func(t *testing.T, s *store[string]) {
			s.wrote(key("a"), 20, ptr("ours"))
			check(t, s.Delete(configMap("a", "15", "")))
		}, "a=ours"},
		"a list that is older than a write": {func(t *testing.T, s *store[string]) {
			s.wrote(key("b"), 20, ptr("ours"))
			check(t, s.Replace([]any{configMap("a", "11", "listed")}, "15"))
		}, "a=listed b=ours"},
		"a list that is newer than a write": {func(t *testing.T, s *store[string]) {
			s.wrote(key("b"), 20, ptr("ours"))
			check(t, s.Replace([]any{configMap("a", "11", "listed")}, "25"))
		}, "a=listed"},
		"an API server that went back to a backup is believed after a while": {func(t *testing.T, s *store[string]) {
			s.wrote(key("b"), 20, ptr("ours"))
			time.Sleep(writePatience)
			check(t, s.Replace([]any{configMap("a", "3", "listed")}, "5"))
			check(t, s.Update(configMap("a", "6", "changed")))
		}, "a=changed"},
		"what we removed is gone": {func(_ *testing.T, s *store[string]) { s.removed(key("a")) }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var heard []string
				s := testStore(&heard)
				check(t, s.Replace([]any{configMap("a", "10", "first")}, "12"))
				row.do(t, s)
				if got := contents(s); got != row.want {
					t.Errorf("there is %q, want %q; heard %q", got, row.want, heard)
				}
			})
		})
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestStoreFollows has others and this process write in any order, with a watch that
// lags behind, and wants what the API server has in the end, and changes that lead there.
func TestStoreFollows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var heard []string
		s := testStore(&heard)
		if err := s.Replace(nil, "1"); err != nil {
			t.Fatal(err)
		}
		server, version := map[string]string{}, 1
		var events []func() error
		deliver := func(n int) {
			for range min(n, len(events)) {
				if err := events[0](); err != nil {
					t.Fatal(err)
				}
				events = events[1:]
			}
		}
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			name, n := rapid.SampledFrom([]string{"a", "b"}).Draw(t, "name"), rapid.IntRange(0, 3).Draw(t, "deliver")
			version++
			v, value := fmt.Sprint(version), fmt.Sprint("v", version)
			switch rapid.IntRange(0, 2).Draw(t, "what") {
			case 0: // somebody writes
				server[name] = value
				events = append(events, func() error { return s.Update(configMap(name, v, value)) })
			case 1: // we write, and hear the answer before or after the watch
				server[name] = value
				events = append(events, func() error { return s.Update(configMap(name, v, value)) })
				written := version
				if rapid.Bool().Draw(t, "late") {
					deliver(n)
				}
				s.wrote(key(name), uint64(written), &value)
				if server[name] != value {
					t.Fatal("the test is wrong")
				}
			case 2: // somebody removes
				if _, ok := server[name]; ok {
					delete(server, name)
					events = append(events, func() error { return s.Delete(configMap(name, v, "")) })
				}
			}
			deliver(n)
		}
		deliver(len(events))
		want := []string{}
		for _, name := range slices.Sorted(maps.Keys(server)) {
			want = append(want, name+"="+server[name])
		}
		if got := contents(s); got != strings.Join(want, " ") {
			t.Fatalf("there is %q, the API server has %q; heard %q", got, want, heard)
		}
		// Each change begins where the last one of its object ended.
		at := map[string]string{}
		for _, h := range heard {
			name, change, _ := strings.Cut(h, " ")
			before, after, _ := strings.Cut(change, ">")
			if was, ok := at[name]; ok && was != before || !ok && before != "-" {
				t.Fatalf("%q does not go on from %q in %q", h, was, heard)
			}
			at[name] = after
		}
	})
}

func TestNamespacesTakeTurns(t *testing.T) {
	q := newFairQueue()
	defer q.ShutDown()
	for i := range 3 {
		q.Add(types.NamespacedName{Namespace: "many", Name: fmt.Sprint(i)})
	}
	q.Add(types.NamespacedName{Namespace: "few", Name: "a"})
	var got []string
	for range 4 {
		k, _ := q.Get()
		got = append(got, k.String())
	}
	if want := "many/0 few/a many/1 many/2"; strings.Join(got, " ") != want {
		t.Errorf("got %q, want %s", got, want)
	}
}

// A watch tells of a write while the process that made it goes on: what it has written must
// be there from then on, however long the watch takes to look into it.
func TestWhatWasWrittenIsThereAlthoughTheWatchIsStillLookingIntoIt(t *testing.T) {
	begun, goOn := make(chan struct{}), make(chan struct{})
	s := newStore(func(o any) (*string, error) {
		v := o.(*metav1.PartialObjectMetadata).Annotations["v"]
		if v == "new" {
			close(begun)
			<-goOn
		}
		return &v, nil
	})
	object := func(version, value string) *metav1.PartialObjectMetadata {
		return &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{Name: "a", ResourceVersion: version, Annotations: map[string]string{"v": value}}}
	}
	check(t, s.Add(object("1", "old")))
	done := make(chan error)
	go func() { done <- s.Add(object("2", "new")) }()
	<-begun
	written := "new"
	s.wrote(types.NamespacedName{Name: "a"}, 2, &written)
	if got, v := s.get(types.NamespacedName{Name: "a"}); *got != "new" || v != 2 {
		t.Errorf("it is %q of version %d", *got, v)
	}
	close(goOn)
	check(t, <-done)
	if k := s.all[types.NamespacedName{Name: "a"}]; !k.ours.IsZero() {
		t.Error("the watch has told of it, and it still counts as one that no list may show")
	}
}
