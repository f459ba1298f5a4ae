// Package picture draws diagrams: as SVG, as a page of HTML around it, and as
// texts in the languages DOT and Mermaid for whoever draws otherwise. What it
// makes needs nothing beside it: no font, no script to be read, no network.
//
// Names come from foreign files: each is escaped for where it stands, and cut
// when it is long. The same diagram gives the same bytes.
package picture
