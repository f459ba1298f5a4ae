package main

import (
	"context"
	"strings"

	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/diagram"
	"github.com/kubepki/kubepki/internal/picture"
	"github.com/kubepki/kubepki/internal/report"
)

// outputs are the values of verify's --output.
var outputs = []string{"table", "json", "yaml", "html", "sarif", "junit", "prometheus"}

// orList joins what one may choose from.
func orList(all []string) string {
	last := len(all) - 1
	return strings.Join(all[:last], ", ") + " or " + all[last]
}

// verdictPrinter prints what came of each cluster as one answer.
type verdictPrinter interface {
	print(v *verdict) error
	// close ends the answer.
	close() error
}

// newVerdictPrinter prints nothing yet. failOn is what counts as a failed test.
func newVerdictPrinter(ctx context.Context, s streams, format string, several bool, failOn check.Severity) verdictPrinter {
	switch format {
	case "html":
		page := picture.NewPage(s.out)
		return printer{func(v *verdict) error { return page.Add(ctx, diagramOf(v)) }, page.Close}
	case "sarif":
		d := report.NewSARIF(s.out, versionText())
		return printer{func(v *verdict) error { d.Add(&v.verification); return nil }, d.Close}
	case "junit":
		d := report.NewJUnit(s.out, failOn)
		return printer{func(v *verdict) error { d.Add(&v.verification); return nil }, d.Close}
	case "prometheus":
		d := report.NewMetrics(s.out)
		return printer{func(v *verdict) error { d.Add(&v.verification, v.graph); return nil }, d.Close}
	}
	text := &report.Printer{W: s.out, Format: format, Several: several, Palette: report.Palette{On: isTerminal(s.out)}}
	return printer{func(v *verdict) error {
		text.Several = text.Several || v.verification.Name != ""
		return text.Print(&v.verification)
	}, text.Close}
}

// printer is made of two functions.
type printer struct {
	each func(v *verdict) error
	end  func() error
}

func (p printer) print(v *verdict) error { return p.each(v) }
func (p printer) close() error           { return p.end() }

// diagramOf is what a picture of a cluster shows.
func diagramOf(v *verdict) *diagram.Diagram {
	known := report.NewInventory(v.graph, v.verification.At)
	var authorities []diagram.Authority
	for _, a := range known.Authorities {
		authorities = append(authorities, diagram.Authority{Name: a.Name, Subject: a.Subject, NotAfter: a.NotAfter})
	}
	d := diagram.New(v.graph, v.result, known.Signers(), authorities, v.verification.At)
	d.Name = v.verification.Name
	return d
}
