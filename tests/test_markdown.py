"""Words from outside stay words: on MLflow's page and in any other reader of Markdown."""

from __future__ import annotations

import pytest

from clr.markdown import code, figure, link, percent, table, text


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("<script>alert(1)</script>", "&lt;script\\>alert\\(1\\)&lt;/script\\>"),
        ("**bold** _soft_", "\\*\\*bold\\*\\* \\_soft\\_"),
        ("a | b", "a \\| b"),
        ("![x](y)", "\\!\\[x\\]\\(y\\)"),
        ("&lt;b&gt;", "&amp;lt;b&amp;gt;"),
        ("# one\n\n- two", "\\# one \\- two"),
        ("https://evil.example", "https&#58;//evil.example"),
        ("www.evil.example", "www\\.evil.example"),
        ("@admin a@b.c", "&#64;admin a&#64;b.c"),
        (":smile: note: this", "&#58;smile: note: this"),
        (7, "7"),
    ],
)
def test_text_has_no_meaning_but_its_words(written, shown):
    assert text(written) == shown


def test_text_is_one_line_of_limited_length():
    assert text("a\n b\t c") == "a b c"
    assert text("x" * 100, 10) == "x" * 9 + "…"


def test_code_cannot_leave_its_backticks():
    assert code("a`b`|c\nd") == "a b c d"
    assert code("``") == "?"
    assert code("x" * 200) == "x" * 100


def test_a_link_leads_into_the_registry_or_the_web_and_nowhere_else():
    assert link("run", "#/experiments/1/runs/2") == "[run](#/experiments/1/runs/2)"
    assert link("page", "https://a.b/c d)") == "[page](https://a.b/c%20d%29)"
    assert link("page", "javascript:alert(1)") == "page: `javascript:alert(1)`"
    assert link("page", "data:text/html,x") == "page: `data:text/html,x`"


def test_a_table_holds_its_columns_apart_and_leaves_room_below():
    lines = list(table(("a", ""), [("1", "2"), ("", "4")]))
    assert lines == ["| a&emsp; |  |", "|---|---|", "| 1&emsp; | 2 |", "|  | 4 |", "| &nbsp; ||"]


def test_numbers_are_written_as_people_read_them():
    assert [percent(0.9104), percent(None)] == ["91.0 %", "–"]
    assert [figure(12345.6), figure(0.73), figure(None)] == ["12,346", "0.7", "–"]
