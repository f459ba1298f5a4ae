package picture

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
