"""The look of ``gate.html``: system fonts, colours that colour-blind readers tell apart."""

CSS = """
:root{--ink:#1c2733;--faint:#5b6875;--line:#dde3e9;--pass:#0b6b50;--fail:#b34700;--open:#7a5b00}
*{box-sizing:border-box}
body{margin:0;background:#f4f6f8;color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main{max-width:1080px;margin:0 auto;padding:28px 24px 56px}
header{background:#fff;border-radius:10px;padding:22px 28px;border-left:8px solid}
header.pass{border-color:var(--pass)}header.fail{border-color:var(--fail)}
header.inconclusive{border-color:var(--open)}
.kind{margin:0 0 6px;color:var(--faint);letter-spacing:.02em}
h1{margin:0;font-size:30px;line-height:1.2}
h1 .badge{font-size:inherit;padding:0;background:none!important;border:0}
h2{margin:0 0 10px;font-size:18px}
.lead{margin:10px 0 0;font-size:17px;max-width:74ch}
section{background:#fff;border-radius:10px;padding:20px 28px;margin-top:16px}
section>p{margin:0 0 12px;max-width:78ch}
section>p.note{color:var(--faint);margin:10px 0 0}
.badge{display:inline-flex;gap:6px;align-items:center;white-space:nowrap;font-weight:600;
font-size:13px;line-height:1.4;padding:1px 9px;border-radius:99px;border:1.5px solid}
.badge i{font-style:normal}
.badge.pass{color:var(--pass);border-color:#a9d3c5;background:#f0f8f5}
.badge.fail{color:var(--fail);border-color:var(--fail);background:#fff3ea}
.badge.inconclusive{color:var(--open);border-color:#d6b85a;background:#fdf8e7}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(200px,1fr));gap:16px;
margin:16px 0 0}
.tiles div{background:#fff;border-radius:10px;padding:14px 20px}
.tiles dt{color:var(--faint);font-size:13px}
.tiles dd{margin:2px 0;font-size:24px;font-weight:600;font-variant-numeric:tabular-nums}
.tiles p{margin:0;color:var(--faint);font-size:13px}
.next{margin:0;padding-left:20px}.next li{margin:3px 0;max-width:90ch}
.wide{overflow-x:auto}
table{border-collapse:collapse;width:100%}
th,td{text-align:left;padding:8px 12px 8px 0;vertical-align:top}
thead th{color:var(--faint);font-weight:500;font-size:13px;border-bottom:1.5px solid var(--line);
vertical-align:bottom}
tbody tr td,tbody tr th{border-bottom:1px solid var(--line)}
th[scope=row]{font-weight:600;white-space:nowrap}
.words th[scope=row]{white-space:normal;min-width:11em}
.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.tasks tbody tr:first-child:not(:last-child) th,.tasks tbody tr:first-child:not(:last-child)
td:not([rowspan]){border-bottom:0;padding-bottom:0}
.why ul{margin:0;padding:2px 0 2px;list-style:none;color:var(--faint);font-size:14px}
.why li{margin:2px 0;max-width:100ch}.why li.fail,.why li.inconclusive{color:var(--ink)}
.why b{font-weight:600;margin-right:4px}
.why li.fail b{color:var(--fail)}.why li.inconclusive b{color:var(--open)}
svg{display:block;max-width:100%;height:auto;font-family:inherit}
.reading dl{display:grid;grid-template-columns:max-content 1fr;gap:4px 18px;margin:0 0 12px}
.reading dt{font-weight:600}.reading dd{margin:0;max-width:78ch}
.reading p{color:var(--faint);font-size:13px;margin:0}
code{font-family:ui-monospace,Consolas,monospace;font-size:.92em}
@media (max-width:640px){main{padding:12px}section,header{padding:16px}
.reading dl{grid-template-columns:1fr}}
@media print{body{background:#fff;font-size:11px}main{max-width:none;padding:0}
h1{font-size:22px}h2{font-size:14px;break-after:avoid}.lead{font-size:13px}
header,section{padding:12px 16px;margin-top:10px}
.tiles{grid-template-columns:repeat(4,1fr);gap:10px;margin-top:10px}.tiles div{padding:8px 12px}
.tiles dd{font-size:16px}.badge,.tiles dt,.tiles p,.why ul,thead th,.reading p{font-size:10px}
th,td{padding:4px 8px 4px 0}header{border:1px solid;border-left:8px solid}
section,.tiles div{border:1px solid var(--line)}.tiles div,tr,svg{break-inside:avoid}
.tasks tbody{break-inside:avoid}.wide{overflow:visible}thead{display:table-header-group}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
"""
