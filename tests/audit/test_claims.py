"""Many say what one digest is: who differs is named, by whom and from whom."""

from __future__ import annotations

from clr.audit.claims import BrokenLink, Claim, compare, in_order, remarks

LEDGER, TAG = ("entry 5 of the ledger", "sha256:a"), ("the registry's tag", "sha256:a")


def problems(**fields):
    claim = Claim("adapter", "the adapter file", **{"said": (LEDGER, TAG), **fields})
    return [(one.kind, one.message) for one in compare("clr-animals/3", [claim])]


def test_where_all_agree_with_the_bytes_nothing_is_said():
    assert problems(found="sha256:a", computed=True) == []
    assert problems() == []


def test_what_nobody_recorded_cannot_be_wrong():
    assert (
        problems(said=(("entry 5", None), ("the tag", "")), found="sha256:b", computed=True) == []
    )


def test_other_bytes_are_named_with_who_recorded_which():
    assert problems(found="sha256:b", computed=True) == [
        (
            "changed",
            "The adapter file is sha256:b now, but sha256:a by entry 5 of the ledger.",
        )
    ]


def test_bytes_that_are_gone_are_missing_only_if_they_were_looked_for():
    assert problems(computed=True) == [
        ("missing", "The adapter file is missing; by entry 5 of the ledger it is sha256:a.")
    ]
    assert problems(computed=False) == []


def test_a_record_that_differs_is_named_against_the_most_trustworthy():
    assert problems(said=(LEDGER, ("the registry's tag", "sha256:b"))) == [
        (
            "differs",
            "The adapter file is sha256:b by the registry's tag, "
            "but sha256:a by entry 5 of the ledger.",
        )
    ]


def test_what_a_resumed_run_may_differ_in_is_a_remark_and_no_problem():
    claim = Claim("code", "the code", (LEDGER,), loose=(("the run", "sha256:b"),))
    assert list(compare("clr-animals/3", [claim])) == []
    assert list(remarks([claim])) == [
        "the code is sha256:b by the run, but sha256:a by entry 5 of the ledger"
    ]


def test_the_ledger_is_told_first_then_the_chain_in_its_order_each_once():
    gate, data, ledger = (BrokenLink(link, "x", "y", "z") for link in ("gate", "data", "ledger"))
    assert in_order([gate, data, gate, ledger]) == [ledger, data, gate]
