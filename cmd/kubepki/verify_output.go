package main

import (
	"context"

	"github.com/kubepki/kubepki/internal/diagram"
	"github.com/kubepki/kubepki/internal/picture"
	"github.com/kubepki/kubepki/internal/report"
)

// outputs are the values of verify's --output.
var outputs = []string{"table", "json", "yaml", "html", "sarif", "junit", "prometheus"}

const outputList = "table, json, yaml, html, sarif, junit or prometheus"

// verdictPrinter prints what came of each cluster as one answer.
type verdictPrinter interface {
	print(v *verdict) error
	// close ends the answer.
	close() error
}

func newVerdictPrinter(ctx context.Context, s streams, format string, several bool) verdictPrinter {
	switch format {
	case "html":
		return &pagePrinter{ctx: ctx, page: picture.NewPage(s.out)}
	}
	return textPrinter{&report.Printer{W: s.out, Format: format, Several: several, Palette: report.Palette{On: isTerminal(s.out)}}}
}

// textPrinter prints tables, JSON and YAML.
type textPrinter struct{ *report.Printer }

func (p textPrinter) print(v *verdict) error { return p.Print(&v.verification) }
func (p textPrinter) close() error           { return p.Close() }

// pagePrinter prints one page with a section for each cluster.
type pagePrinter struct {
	ctx  context.Context
	page *picture.Page
}

func (p *pagePrinter) print(v *verdict) error { return p.page.Add(p.ctx, diagramOf(v)) }
func (p *pagePrinter) close() error           { return p.page.Close() }

// diagramOf is what a picture of a cluster shows.
func diagramOf(v *verdict) *diagram.Diagram {
	known := report.NewInventory(v.graph, v.verification.At)
	var authorities []diagram.Authority
	for _, a := range known.Authorities {
		authorities = append(authorities, diagram.Authority{Name: a.Name, Subject: a.Certificate.Subject, NotAfter: a.Certificate.NotAfter})
	}
	d := diagram.New(v.graph, v.result, known.Signers(), authorities, v.verification.At)
	d.Name = v.verification.Name
	return d
}
