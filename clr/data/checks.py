"""``data-docs.html``: what the rules found in a task's images, as one page for a person.

The Data Docs of Great Expectations are many pages that link each other and load scripts from
the internet; the registry shows one file at a time and has no internet to count on. This page
holds what they say: no scripts, nothing loaded from elsewhere, every word escaped.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from clr.gate.style import CSS

Report = Mapping[str, Any]

_WORDS = {"pass": ("✓", "Kept"), "fail": ("✕", "Broken"), "inconclusive": ("!", "Warning")}
_ORDER = {"fail": 0, "inconclusive": 1, "pass": 2}
_DETAILS = 20


def checks_html(report: Report) -> str:
    """Return the page for a report in its ``validation.json`` form (`clr.data.suite`)."""
    title = f"Images of {report['task']}"
    findings = sorted(report["findings"], key=lambda one: _ORDER[_class(one)])
    broken = sum(_class(one) == "fail" for one in findings)
    warned = sum(_class(one) == "inconclusive" for one in findings)
    kept = len(findings) - broken - warned
    parts = [f"{kept} of {len(findings)} rules are kept"]
    parts += [f"{count} {word}" for count, word in ((broken, "refuse"), (warned, "warn")) if count]
    lead = (
        f"{', '.join(parts)}. "
        f"{report['train']:,} training and {report['test']:,} test images were looked at"
        f"{'; the split was made here.' if report['split_made'] else '.'}"
    )
    verdict = "pass" if report["success"] else "fail"
    heading = "✓ Accepted" if report["success"] else "✕ Refused"
    rows = "".join(_row(one) for one in findings)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{CSS}</style></head><body><main>"
        f"<header class={verdict}><p class=kind>{escape(title)}</p><h1>{heading}</h1>"
        f"<p class=lead>{escape(lead)}</p></header>"
        "<section><h2>Rules</h2><div class=wide><table class=words>"
        "<thead><tr><th>Verdict<th>Rule<th>Finding<th class=n>Broken by<th>Severity</thead>"
        f"<tbody>{rows}</tbody></table></div></section>{_origin(report)}</main></body></html>\n"
    )


def _class(finding: Report) -> str:
    if finding["ok"]:
        return "pass"
    return "fail" if finding["severity"] == "critical" else "inconclusive"


def _row(finding: Report) -> str:
    verdict = _class(finding)
    sign, word = _WORDS[verdict]
    seen = finding.get("observed") or {}
    count = f"{seen['broken']:,} of {seen['of']:,}" if seen else "–"
    return (
        f'<tr><td><span class="badge {verdict}"><i aria-hidden=true>{sign}</i>{word}</span></td>'
        f"<th scope=row>{escape(finding['name'])}</th>"
        f"<td>{escape(finding['message'])}{_details(finding)}</td><td class=n>{count}</td>"
        f"<td>{escape(finding['severity'])}</td></tr>"
    )


def _details(finding: Report) -> str:
    lines = list(finding["details"])
    if not lines:
        return ""
    shown = "".join(f"<li>{escape(line)}</li>" for line in lines[:_DETAILS])
    more = f"<li>{len(lines) - _DETAILS:,} more are in validation.json</li>"
    return f"<ul class=next>{shown}{more if len(lines) > _DETAILS else ''}</ul>"


def _origin(report: Report) -> str:
    metas = [one.get("meta", {}) for one in report["great_expectations"].values()]
    versions = {one.get("great_expectations_version", "") for one in metas} - {""}
    engine = " ".join(["Great Expectations", *sorted(versions)])
    return (
        f"<section class=reading><p>Evaluated by {escape(engine)} over the manifest "
        f"<code>{escape(report['manifest'])}</code>. Its own pages are in data-docs.zip "
        "beside this file: unpack it and open index.html. All of it as data: validation.json."
        "</p></section>"
    )
