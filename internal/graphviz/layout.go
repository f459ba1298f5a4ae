package graphviz

import (
	"bytes"
	"compress/gzip"
	"context"
	_ "embed" // the program
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
)

//go:embed graphviz.wasm.gz
var program []byte

// maxMemory bounds what a layout may use, in pages of 64 KiB: 256 MiB.
const maxMemory = 4096

// The names under which the program exports what we call: its build shortens
// them (assignWasmExports in lib/backend.js of @viz-js/viz).
const (
	exportMalloc      = "F"
	exportReadGraph   = "I" // viz_read_one_graph
	exportNewContext  = "V" // viz_create_context
	exportLayout      = "X" // viz_layout
	exportRender      = "_" // viz_render
	exportConstructor = "A" // what a C program does before main
)

// load compiles the program once for a process.
var load = sync.OnceValues(func() (*compiled, error) {
	unzipped, err := gzip.NewReader(bytes.NewReader(program))
	if err != nil {
		return nil, err
	}
	code, err := io.ReadAll(unzipped)
	if err != nil {
		return nil, err
	}
	ctx := context.Background()
	r := wazero.NewRuntimeWithConfig(ctx, wazero.NewRuntimeConfig().WithMemoryLimitPages(maxMemory).WithCloseOnContextDone(true))
	if err := host(ctx, r); err != nil {
		return nil, err
	}
	m, err := r.CompileModule(ctx, code)
	return &compiled{r, m}, err
})

type compiled struct {
	runtime wazero.Runtime
	module  wazero.CompiledModule
}

// Layout runs Graphviz's dot over a graph in the DOT language and returns what
// it renders in a format, such as json or plain. It ends when the context does.
func Layout(ctx context.Context, dot, format string) (string, error) {
	c, err := load()
	if err != nil {
		return "", fmt.Errorf("loading Graphviz: %w", err)
	}
	said := &strings.Builder{}
	ctx = context.WithValue(ctx, saidKey{}, said)
	m, err := c.runtime.InstantiateModule(ctx, c.module, wazero.NewModuleConfig().WithName("").WithStartFunctions())
	if err != nil {
		return "", fmt.Errorf("starting Graphviz: %w", err)
	}
	defer func() { _ = m.Close(context.WithoutCancel(ctx)) }()
	p := &process{ctx: ctx, module: m}
	p.call(exportConstructor)
	graph := p.call(exportReadGraph, p.text(dot))
	if p.err == nil && graph == 0 {
		p.err = errors.New("it does not read the graph")
	}
	renderer := p.call(exportNewContext)
	if p.call(exportLayout, renderer, graph, p.text("dot")) != 0 && p.err == nil {
		p.err = errors.New("it does not lay out the graph")
	}
	out := p.call(exportRender, renderer, graph, p.text(format))
	if p.err == nil && out == 0 {
		p.err = fmt.Errorf("it does not render %s", format)
	}
	rendered := p.read(out)
	if p.err != nil {
		return "", fmt.Errorf("laying out the diagram with Graphviz: %w%s", p.err, also(said.String()))
	}
	return rendered, nil
}

func also(said string) string {
	if said = strings.Join(strings.Fields(said), " "); said != "" {
		return ": " + said
	}
	return ""
}

// process is one run of the program; after an error it does nothing more.
type process struct {
	ctx    context.Context
	module api.Module
	err    error
}

func (p *process) call(export string, args ...uint64) uint64 {
	if p.err != nil {
		return 0
	}
	f := p.module.ExportedFunction(export)
	if f == nil {
		p.err = fmt.Errorf("the program has no %q", export)
		return 0
	}
	results, err := f.Call(p.ctx, args...)
	if err != nil {
		p.err = err
	}
	if len(results) == 0 {
		return 0
	}
	return results[0]
}

// text puts a text into the program's memory, with the zero that ends it in C.
func (p *process) text(s string) uint64 {
	if strings.ContainsRune(s, 0) && p.err == nil {
		p.err = errors.New("the graph has a zero byte")
	}
	at := p.call(exportMalloc, uint64(len(s)+1))
	if p.err == nil && !p.module.Memory().Write(uint32(at), append([]byte(s), 0)) {
		p.err = errors.New("its memory is full")
	}
	return at
}

// read returns the text that begins at an address.
func (p *process) read(at uint64) string {
	if p.err != nil {
		return ""
	}
	memory := p.module.Memory()
	all, ok := memory.Read(uint32(at), memory.Size()-uint32(at))
	end := bytes.IndexByte(all, 0)
	if !ok || end < 0 {
		p.err = errors.New("what it renders has no end")
		return ""
	}
	return string(all[:end])
}
