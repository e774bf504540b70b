"""The go/no-go page in both languages: complete, escaped, and the same figures in both."""

from __future__ import annotations

import re
import string
from html import unescape
from typing import Any

import pytest

from clr.pilot.criteria import Pairs, Today
from clr.pilot.labels import WORDS
from clr.pilot.page import render
from tests.pilot.documents import CURVE, GATE, LINE, document

WORSE = Pairs(n=600, before=504, regressed=54, repaired=12)
FAR = {**CURVE, "needed": {"verdict": "far", "low": 2e3, "middle": 9e4, "high": None}}
ENDED = {**CURVE, "needed": {"verdict": "not reachable", "low": None, "middle": None, "high": None}}
FAILED = {**GATE, "verdict": "fail", "failed": ["retention:caps", "latency:solder-joints"]}
DOCUMENTS: dict[str, dict[str, Any]] = {
    "go-to-site": {},
    "go": {"line": LINE},
    "no-gain": {"pairs": WORSE},
    "probe-only": {"today": None, "business": {}},
    "rate-given": {"today": Today(0.08)},
    "gate-failed": {"gate": FAILED, "curve": FAR},
    "unreachable": {"curve": ENDED},
    "no-curve": {"curve": None, "reason": "too few", "gate": {**GATE, "verdict": "inconclusive"}},
}


def placeholders(text: str) -> set[str]:
    return {name for _, name, *_ in string.Formatter().parse(text) if name}


def test_both_languages_have_the_same_keys_and_figures() -> None:
    english, japanese = WORDS["en"], WORDS["ja"]
    assert english.keys() == japanese.keys()
    for key, text in english.items():
        assert placeholders(text) == placeholders(japanese[key]), key


@pytest.mark.parametrize("language", ["en", "ja"])
@pytest.mark.parametrize("kind", DOCUMENTS)
def test_a_page_says_decision_and_answer_of_every_criterion(kind: str, language: str) -> None:
    told, words = document(**DOCUMENTS[kind]), WORDS[language]
    page = render(told, language)
    assert f'<html lang="{language}">' in page
    key = f"{told['decision']}:{told['next']}"
    assert words[key].format(title="Solder joints") in page
    rows = re.findall(r'<th scope="row">(.+?)</th>.*?</i>(.+?)</span>', page, flags=re.S)
    assert rows[:5] == [(words[one["name"]], words[one["answer"]]) for one in told["criteria"]]
    assert "{" not in re.sub(r"<style>.*?</style>", "", page, flags=re.S)  # every figure is in


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_both_languages_tell_the_same_figures(kind: str) -> None:
    told = document(**DOCUMENTS[kind])

    def figures(language: str) -> list[str]:
        page = render(told, language)
        rows = re.search(r'<table class="criteria">.*?</table>', page, flags=re.S)
        assert rows is not None
        text = re.sub(r"<[^>]+>|95 ?%|1[件枚]あたり", " ", unescape(rows[0]).replace("\u00a0", " "))
        return sorted(re.findall(r"\d[\d,.]*\d|\d", text))

    english, japanese = figures("en"), figures("ja")
    assert [one for one in english if one != "0"] == [one for one in japanese if one != "0"]


def test_a_page_loads_nothing_and_runs_nothing() -> None:
    page = render(document(), "en")
    assert "default-src 'none'" in page
    assert not re.search(r"<script|<link|<img|src=|href=|@import|url\(", page)


def test_words_of_others_are_escaped() -> None:
    page = render(document(title="<script>alert(1)</script>"), "ja")
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


@pytest.mark.parametrize("form", ["wide", "narrow"])
def test_the_figure_has_words_for_who_does_not_see_it(form: str) -> None:
    page = render(document(line=LINE), "en")
    (described,) = re.findall(rf'<desc id="{form}-desc">(.+?)</desc>', page)
    assert described.replace("\u00a0", " ").split("; ") == [
        "Today: 80.0 %", "Linear probe: 84.0 %", "Adapter: 91.0 %", "Adapter, on site: 90.0 %",
    ]  # fmt: skip


def test_money_is_marked_and_absent_without_assumptions() -> None:
    page = render(document(today=Today(0.08)), "en")
    assert 'class="kindof">assumed' in page
    assert 'class="kindof">derived' in page
    assert "there is no money on this page" in render(document(business={}), "en")


@pytest.mark.parametrize("language", ["en", "ja"])
def test_the_error_of_the_linear_probe_is_not_called_todays(language: str) -> None:
    words = WORDS[language]
    given, probe = (render(document(today=one), language) for one in (Today(0.08), None))
    assert words["roi:current_error_rate"] in given
    assert f">{words['roi:current_error_rate']}<" not in probe
    assert words["roi:probe"] in probe


@pytest.mark.parametrize(("language", "shown"), [("en", "over 1,000,000"), ("ja", "1,000,000枚超")])
def test_a_number_beyond_all_meaning_is_not_spelled_out(language: str, shown: str) -> None:
    needed = {"verdict": "far", "low": 300.0, "middle": 9.1e12, "high": 3.2e41}
    page = render(document(curve=CURVE | {"needed": needed}), language)
    assert page.count(shown) == 2
    assert "9,100,000" not in page
