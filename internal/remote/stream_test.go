package remote_test

import (
	"encoding/json"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/remote"
	"github.com/kubepki/kubepki/internal/testpki"
)

const greeting = `{"kubepki":"node","protocol":1,"version":"v1"}` + "\n"

// says is a node that says one text after the other, whatever it is asked.
func says(t *testing.T, patience time.Duration, texts ...string) (*remote.Client, error) {
	t.Helper()
	here, there := net.Pipe()
	go func() { _, _ = io.Copy(io.Discard, there) }()
	go func() {
		for _, text := range texts {
			if _, err := io.WriteString(there, text); err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() { there.Close() })
	return remote.Connect(t.Context(), "w1", "v1", here, here, func() { here.Close() }, patience)
}

func TestNodesThatTalkStrangely(t *testing.T) {
	long := strings.Repeat("x", 20<<20)
	for name, row := range map[string]struct {
		texts []string
		says  string
	}{
		"a profile that prints before the greeting is passed over": {[]string{"Welcome!\nLast login: now\n", greeting, `{"error":"not today"}` + "\n"}, "not today"},
		"a profile that prints without end":                        {[]string{strings.Repeat("welcome\n", 100000)}, "something else than kubepki answers"},
		"a first line without an end":                              {[]string{long}, "longer than"},
		"another protocol":                                         {[]string{strings.Replace(greeting, "1", "2", 1)}, "both ends must be one version"},
		"another version":                                          {[]string{strings.Replace(greeting, "v1", "v2", 1)}, `kubepki "v2" is there`},
		"an answer without an end":                                 {[]string{greeting, long}, "longer than"},
		"an answer that is no JSON":                                {[]string{greeting, "hello\n"}, "does not parse"},
		"an answer with a field that is not known":                 {[]string{greeting, `{"facts":null,"key":"x"}` + "\n"}, "does not parse"},
		"an answer without facts":                                  {[]string{greeting, "{}\n"}, "has no facts"},
		"no answer":                                                {[]string{greeting}, "no answer within"},
		"a very long error is cut short":                           {[]string{greeting, `{"error":"` + strings.Repeat("y", 5000) + `"}` + "\n"}, "yyy"},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := says(t, 2*time.Second, row.texts...)
			if err == nil {
				_, err = c.Read(t.Context(), true)
			}
			if err == nil || !strings.Contains(err.Error(), row.says) || len(err.Error()) > 2000 {
				t.Errorf("want %q, got %.300v", row.says, err)
			}
		})
	}
}

// TestFactsOfAnyKindDoNoHarm: whatever stands in the fields of facts, planning ends, and
// gives a node that is not believed no more than its own name.
func TestFactsOfAnyKindDoNoHarm(t *testing.T) {
	rounds := 15
	if os.Getenv("KUBEPKI_LAB_LONG") != "" {
		rounds = 500
	}
	c := testpki.New(t, testpki.HA)
	seed := rand.Uint64()
	random := rand.New(rand.NewPCG(seed, 1))
	for round := range rounds {
		f, err := plan(t, remote.Options{}, far(t, c, "cp1", nil), far(t, c, "w1", func(a *remote.Answer) {
			if a.Facts == nil {
				return
			}
			if round%2 == 0 {
				become(t, c, a.Facts, "cp2")
			}
			var document any
			mustParse(t, mustJSON(t, a.Facts), &document)
			for range 1 + random.IntN(4) {
				document = spoil(random, document)
			}
			var facts remote.Facts
			if json.Unmarshal([]byte(mustJSON(t, document)), &facts) == nil {
				a.Facts = &facts
			}
		}))
		if err != nil {
			continue
		}
		for _, i := range f.Far[1].Items {
			if s := i.Template().Subject; s.CommonName != "system:node:w1" || strings.Join(s.Organization, ",") != "system:nodes" {
				t.Errorf("seed %d, round %d: it gets %s", seed, round, s)
			}
		}
	}
}

// spoil changes one value of a document.
func spoil(random *rand.Rand, v any) any {
	values := []any{nil, "", "/", "cp1", "system:masters", "-1", 0.0, -1.0, true, []any{}, map[string]any{}, "https://evil.example:6443", "kube-apiserver", "/etc/kubernetes/pki/ca.crt"}
	switch x := v.(type) {
	case map[string]any:
		if len(x) == 0 {
			return x
		}
		var keys []string
		for k := range x {
			keys = append(keys, k)
		}
		k := keys[random.IntN(len(keys))]
		x[k] = spoil(random, x[k])
		return x
	case []any:
		if len(x) == 0 || random.IntN(10) == 0 {
			return append(x, x...)
		}
		i := random.IntN(len(x))
		x[i] = spoil(random, x[i])
		return x
	}
	return values[random.IntN(len(values))]
}
