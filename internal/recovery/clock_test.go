package recovery_test

import (
	"strings"
	"testing"
	"time"

	"github.com/kubepki/kubepki/internal/recovery"
	"github.com/kubepki/kubepki/internal/trust"
)

const day = 24 * time.Hour

func TestDoubt(t *testing.T) {
	now := time.Date(2028, 2, 29, 12, 0, 0, 0, time.UTC)
	clue := func(sign recovery.Sign, ago time.Duration) recovery.Clue {
		return recovery.Clue{Time: now.Add(-ago), Sign: sign, Place: trust.Place{Node: "cp1", Path: "/etc/kubernetes/" + string(sign)}}
	}
	tests := []struct {
		name  string
		clues []recovery.Clue
		alone bool   // the clock follows no other
		want  string // part of the doubt; "": none
	}{
		{"nothing tells anything", nil, true, ""},
		{"the cluster was off for thirteen months", []recovery.Clue{clue(recovery.Written, 395*day)}, false, ""},
		{"and for three years", []recovery.Clue{clue(recovery.Written, 1100*day)}, false, "newer than 3 years before: cp1:/etc/kubernetes/written"},
		{"for three years, but one file is new", []recovery.Clue{clue(recovery.Begins, 1100*day), clue(recovery.Written, day)}, true, ""},
		{"thirteen months, and nobody sets the clock", []recovery.Clue{clue(recovery.Written, 395*day)}, true, "follows no time server"},
		{"a month, and nobody sets the clock", []recovery.Clue{clue(recovery.Written, 30*day)}, true, ""},
		{"a certificate begins in a year", []recovery.Clue{clue(recovery.Begins, -365*day)}, false, "the clock is behind"},
		{"a certificate begins in five minutes", []recovery.Clue{clue(recovery.Begins, -5*time.Minute)}, false, ""},
		{"a file was written tomorrow", []recovery.Clue{clue(recovery.Written, 300*day), clue(recovery.Written, -day)}, false, "24 hours later: the clock is behind"},
		{"several are later: the latest is named", []recovery.Clue{clue(recovery.Begins, -2*day), clue(recovery.Written, -3*day)}, false, "cp1:/etc/kubernetes/written was written at 2028-03-03T12:00:00Z, 3 days later (and 1 more"},
		{"another machine agrees after three years", []recovery.Clue{clue(recovery.Written, 1100*day), clue(recovery.Answered, time.Minute)}, true, ""},
		{"another machine is a day behind", []recovery.Clue{clue(recovery.Written, day), clue(recovery.Answered, day)}, false, "they are 24 hours apart"},
		{"another machine is a day ahead", []recovery.Clue{clue(recovery.Answered, -day)}, false, "they are 24 hours apart"},
		{"another machine does not outweigh a file of tomorrow", []recovery.Clue{clue(recovery.Answered, 0), clue(recovery.Written, -day)}, false, "the clock is behind"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			d := recovery.Clock{Now: now, Clues: test.clues, Unsynchronised: test.alone}.Doubt()
			switch {
			case d == nil && test.want != "":
				t.Errorf("no doubt; want %q", test.want)
			case d != nil && (test.want == "" || !strings.Contains(d.String(), test.want)):
				t.Errorf("%s; want %q", d, test.want)
			}
		})
	}
}
