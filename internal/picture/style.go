package picture

import (
	"fmt"
	"strings"
)

// colours is how many authorities are told apart by colour; more share one, and
// are told apart by their names.
const colours = 7

// style is that of the picture, alone or in a page. The colours of authorities
// are those that Okabe and Ito chose for people who see colours differently,
// darkened for white and lightened for black until each has a contrast of 3:1
// or more (WCAG 2.2, 1.4.11). Red is left to what is broken, which is dashed and
// has a sign too.
const style = `
.kp{--bg:#fff;--ink:#1a1d21;--soft:#59616b;--rule:#c3c9d1;--group:#f3f5f8;--box:#fff;--bad:#c01622;--badbg:#fdecec;--on:#fff;--unseen:#767d87;--focus:#0b57d0;--c0:#0072b2;--c1:#00795b;--c2:#9b3f86;--c3:#a35f00;--c4:#8a5a44;--c5:#6b6b00;--c6:#5c4db1;--none:#767d87}
@media (prefers-color-scheme:dark){.kp{--bg:#15181c;--ink:#e8eaed;--soft:#a3abb5;--rule:#444c56;--group:#1d2127;--box:#272c33;--bad:#ff6b6b;--badbg:#3a1f22;--on:#15181c;--unseen:#8f98a3;--focus:#8ab4f8;--c0:#4db3f0;--c1:#2cc295;--c2:#dd8fc8;--c3:#f0a63a;--c4:#d9a88f;--c5:#d4d05a;--c6:#b0a3f5;--none:#8f98a3}}
@media print{.kp{--bg:#fff;--ink:#000;--soft:#333;--rule:#999;--group:#fff;--box:#fff;--bad:#b00010;--badbg:#fff;--on:#fff;--unseen:#666;--c0:#0072b2;--c1:#00795b;--c2:#9b3f86;--c3:#a35f00;--c4:#8a5a44;--c5:#6b6b00;--c6:#5c4db1;--none:#666}}
svg.kp{font-family:Helvetica,Arial,"Liberation Sans",sans-serif;font-size:13px;color:var(--ink)}
.kp .bg{fill:var(--bg)}
.kp text{fill:var(--ink)}
.kp .soft{fill:var(--soft);font-size:11px}
.kp .head{font-size:17px;font-weight:700}
.kp .title{font-weight:700}
.kp .group>rect{fill:var(--group);stroke:var(--rule)}
.kp .group.bad>rect{stroke:var(--bad);stroke-width:2}
.kp .box>rect{fill:var(--box);stroke:var(--soft)}
.kp .box text{text-anchor:middle}
.kp .over{paint-order:stroke;stroke:var(--group);stroke-width:4px;pointer-events:none}
.kp .half{fill:none;stroke-width:2}
.kp .hit{fill:none;stroke:transparent;stroke-width:14}
.kp .tip{stroke:none}
.kp .num{fill:var(--box);stroke:var(--soft);stroke-width:1.5}
.kp .number{text-anchor:middle;font-size:12px;font-weight:700}
.kp .sign{text-anchor:middle;font-size:15px;font-weight:700;paint-order:stroke;stroke:var(--bg);stroke-width:4px}
.kp .broken .num{fill:var(--bad);stroke:var(--bad)}
.kp .broken .number{fill:var(--on)}
.kp .half.bad{stroke:var(--bad);stroke-width:2.5;stroke-dasharray:8 5}
.kp .half.unseen{stroke:var(--unseen);stroke-dasharray:2 4}
.kp .half.idle{stroke:var(--none);stroke-width:1.2}
.kp .tip.bad,.kp text.bad{fill:var(--bad)}
.kp .tip.unseen,.kp text.unseen{fill:var(--unseen)}
.kp .tip.idle{fill:var(--none)}
.kp .half.cn{stroke:var(--none)}.kp .tip.cn{fill:var(--none)}
.kp .link{cursor:default}
.kp .link:hover .half,.kp .link:focus-visible .half{stroke-width:4}
.kp .link:focus{outline:none}
.kp .link:focus-visible .num{stroke:var(--focus);stroke-width:4}
.kp .link:focus-visible .hit{stroke:var(--focus);stroke-opacity:.28}
`

// colourStyle gives each colour to lines and tips.
func colourStyle() string {
	var b strings.Builder
	for i := range colours {
		fmt.Fprintf(&b, ".kp .half.c%d{stroke:var(--c%d)}.kp .tip.c%d{fill:var(--c%d)}\n", i, i, i, i)
	}
	return b.String()
}

// pageStyle is that of a page around pictures.
const pageStyle = `
html.kp{background:var(--bg);color:var(--ink);color-scheme:light dark;font:15px/1.5 Helvetica,Arial,"Liberation Sans",sans-serif}
body{margin:0}
main{max-width:1500px;margin:0 auto;padding:16px 24px 48px}
h1{font-size:24px;margin:16px 0 4px}h2{font-size:19px;margin:32px 0 8px}h3{font-size:16px;margin:0 0 4px}
a{color:var(--focus)}
:focus-visible{outline:3px solid var(--focus);outline-offset:2px}
.verdict{font-weight:700;margin:0 0 8px}.kp .verdict.bad,b.bad,.kp span.broken{color:var(--bad)}
figure{margin:0;overflow-x:auto;border:1px solid var(--rule);border-radius:8px}
figure>svg{display:block;max-width:100%;height:auto;margin:0 auto;min-width:820px}
figcaption{padding:8px 16px;border-top:1px solid var(--rule);font-size:14px}
.legend,.plain{list-style:none;margin:0;padding:0}.legend li{display:inline-block;margin-right:22px}
.finding{border:1px solid var(--rule);border-left:6px solid var(--rule);border-radius:6px;padding:10px 16px;margin:10px 0}
.finding.error{border-left-color:var(--bad)}.finding.warning{border-left-color:var(--c3)}
.kp .finding.error h3{color:var(--bad)}
dl{margin:0;display:grid;grid-template-columns:max-content 1fr;gap:4px 14px}dt{font-weight:700}dd{margin:0;min-width:0;overflow-wrap:anywhere}
pre.fix{margin:0;padding:8px 10px;background:var(--group);border:1px solid var(--rule);border-radius:4px;white-space:pre-wrap;overflow-wrap:anywhere;user-select:all}
.show{display:flex;flex-wrap:wrap;gap:4px 18px;border:1px solid var(--rule);border-radius:6px;margin:0 0 10px}
.show input[type=search]{font:inherit;color:inherit;background:var(--box);border:1px solid var(--soft);border-radius:4px;padding:1px 6px}
button{font:inherit;color:inherit;background:var(--box);border:1px solid var(--soft);border-radius:4px;padding:1px 10px;margin-top:4px;cursor:pointer}
.wide{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:14px}
th,td{text-align:left;vertical-align:top;padding:5px 10px;border-bottom:1px solid var(--rule);overflow-wrap:anywhere}
th{overflow-wrap:normal;white-space:nowrap}td:nth-child(4){text-align:right}
tr:target,.finding:target{background:var(--group);outline:2px solid var(--focus)}
tr.broken{background:var(--badbg)}
.cluster:has(.show-broken:checked) tbody tr:not(.broken),.cluster:has(.show-unseen:checked) tbody tr:not(.unseen),.cluster:has(.show-found:checked) tbody tr:not(.found),tr.hidden{display:none}
.skip{margin-right:14px}
@media print{@page{size:A4 landscape;margin:10mm}main{max-width:none;padding:0}figure,.finding{break-inside:avoid}h2,h3{break-after:avoid}figure>svg{min-width:0}.show,.skip,button{display:none}table{font-size:10px}tr{break-inside:avoid}}
`

// script adds to a page what it is handier with: a button that copies each fix,
// and a field that filters the table.
const script = `
for(const pre of document.querySelectorAll("pre.fix")){
const button=document.createElement("button");button.type="button";button.textContent="copy";button.setAttribute("aria-label","copy the "+pre.getAttribute("aria-label"));
button.addEventListener("click",async()=>{try{await navigator.clipboard.writeText(pre.textContent);button.textContent="copied"}catch{getSelection().selectAllChildren(pre);button.textContent="selected"}setTimeout(()=>button.textContent="copy",2000)});
pre.after(button)}
for(const show of document.querySelectorAll(".show")){
const label=document.createElement("label");label.textContent="that name ";const field=document.createElement("input");field.type="search";label.append(field);show.append(label);
const rows=show.parentElement.querySelectorAll("tbody tr");
field.addEventListener("input",()=>{const text=field.value.toLowerCase();for(const row of rows)row.classList.toggle("hidden",!row.textContent.toLowerCase().includes(text))})}
`
