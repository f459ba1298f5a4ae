// Package graphviz lays out graphs by Graphviz itself, whose dot is compiled to
// WebAssembly and run by wazero: no C compiler, no program beside ours, and
// neither files nor network for it. Nothing of it is loaded before [Layout] is
// called, which then takes half a second to compile it.
//
// graphviz.wasm.gz is the file of npm's @viz-js/viz, extracted by
// hack/picture/graphviz.mjs; see NOTICE.md for version, sums and licences.
package graphviz
