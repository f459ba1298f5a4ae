package main

import (
	"context"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kubepki/kubepki/internal/check"
	"github.com/kubepki/kubepki/internal/diagram"
	"github.com/kubepki/kubepki/internal/picture"
)

func newGraphCommand(s streams) *cobra.Command {
	o := verifyOptions{formats: []string{"svg", "html", "dot", "mermaid"}, printer: newPicturePrinter, draws: true}
	verify := newVerifyCommandOf(&o, s)
	c := &cobra.Command{
		Use:   "graph [DIR...]",
		Short: "Draw a cluster: its components by node, and the links between them with what proves or breaks each",
		Long: `Graph draws what kubepki verify judges: components as boxes, by node; links as
arrows, numbered as in docs/links.md. The half of an arrow at the caller has the
colour of the authority that signed what the caller shows, the half at the
callee that of what the callee shows. A broken half is red, dashed and marked;
its cause is written below. Whoever points at an arrow, or goes to it with the
tabulator key, is told who shows what, by whom it was signed and when it ends.

Nodes that are alike are drawn once: fifty workers are one group, and the one
that is broken is a group of its own.

-o svg is a file to look at, to print and to put into a page. -o html is a page
with the picture, a table of the links, and the findings with their fixes. Both
need nothing beside them, have a light and a dark face, and can be used without
a mouse and without seeing them. -o dot is for Graphviz, -o mermaid for
Markdown.

Arguments and --root are those of kubepki verify; several DIRs are several
clusters, which only -o html draws at once.

Exit codes: 0 drawn, whatever was found, 1 could not look, 2 wrong usage.`,
		Example: `  # This node, as root
  sudo kubepki graph > node.svg

  # All that kubepki init --out made, as a page
  kubepki graph ./cluster -o html > cluster.html

  # Three nodes of one cluster, copied here, as they will be in a year
  kubepki graph --root cp1=./cp1 --root cp2=./cp2 --root w1=./w1 --at 2027-05-01 > cluster.svg

  # By Graphviz, in its own style
  kubepki graph ./cluster -o dot | dot -Tpdf > cluster.pdf`,
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), s, args) },
	}
	f := c.Flags()
	f.StringVarP(&o.output, "output", "o", "svg", "output: "+orList(o.formats))
	verify.Flags().VisitAll(func(of *pflag.Flag) {
		// A picture is no judgement: it has no --fail-on.
		if of.Name != "output" && of.Name != "fail-on" {
			f.AddFlag(of)
		}
	})
	return c
}

// severalPictures says that a form of picture is one cluster's.
func severalPictures(clusters int, format string) error {
	return usagef("%d clusters were given, and -o %s draws one: use -o html, or name one", clusters, format)
}

// newPicturePrinter draws one cluster, when it knows that there is no other.
func newPicturePrinter(ctx context.Context, s streams, format string, several bool, failOn check.Severity) verdictPrinter {
	var draw func(d *diagram.Diagram) error
	switch format {
	case "html":
		return newVerdictPrinter(ctx, s, format, several, failOn)
	case "svg":
		draw = func(d *diagram.Diagram) error { return picture.SVG(ctx, s.out, d) }
	case "dot":
		draw = func(d *diagram.Diagram) error { return picture.DOT(s.out, d) }
	default:
		draw = func(d *diagram.Diagram) error { return picture.Mermaid(s.out, d) }
	}
	var all []*diagram.Diagram
	return printer{func(v *verdict) error { all = append(all, diagramOf(v)); return nil }, func() error {
		if len(all) != 1 {
			return severalPictures(len(all), format)
		}
		return draw(all[0])
	}}
}
