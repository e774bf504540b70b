"""Who tries what at the registry's server: each for real, over the wire.

A refusal is told in a sentence, changes nothing (every row of the registry and of the
accounts, every file), and is in the ledger with the name of who tried.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable

import pytest

from clr.audit.ledger import open_ledger
from tests.house import sentence
from tests.photograph import differences
from tests.server.attempts import table
from tests.server.attempts.model import Attempt, Stage
from tests.server.attempts.table import ATTEMPTS

WRITE = bool(os.environ.get("CLR_WRITE_DOCS"))
SECONDS = 20
"""The longest that any answer may take."""


@pytest.fixture(scope="module")
def answers() -> dict[int, str]:
    """What the server said, by number of the attempt."""
    return {}


@pytest.fixture(scope="module")
def newest(house) -> Callable[[], int]:
    """Function () -> number of the ledger's newest entry; it reads only what came since."""
    known = 0

    def look() -> int:
        nonlocal known
        known = max((entry.seq for entry in house.entries(known)), default=known)
        return known

    return look


def name(number: int) -> str:
    """A test's name: number, who, first words."""
    attempt = ATTEMPTS[number]
    words = re.sub(r"[^A-Za-z0-9]+", "-", attempt.tries.encode("ascii", "ignore").decode())
    return f"{number:03d}-{attempt.who or 'nobody'}-{words.strip('-')[:60]}"


@pytest.mark.parametrize("number", ATTEMPTS, ids=name)
def test_attempt(number, house, answers, newest):
    attempt: Attempt = ATTEMPTS[number]
    stage = Stage(house, attempt.who, attempt.given(house))
    before = house.photograph()
    last = newest()
    answer = attempt.how(stage)
    said = sentence(answer)
    assert answer.elapsed.total_seconds() < SECONDS
    if attempt.allowed:
        assert answer.ok, (answer.status_code, said)
        if attempt.then:
            attempt.then(stage)
        answers[number] = f"**allowed**: {attempt.shows}"
        return
    statuses = attempt.status if isinstance(attempt.status, tuple) else (attempt.status,)
    assert answer.status_code in statuses, (answer.status_code, said)
    assert re.search(attempt.refusal, said, re.IGNORECASE), said
    assert differences(before, house.photograph()) == {}
    _recorded(house, attempt, answer.status_code, last)
    answers[number] = said or f"({answer.status_code})"


def _recorded(house, attempt: Attempt, status: int, last: int) -> None:
    """The ledger has the refusal once, with who tried; MLflow's own answers are not in it."""
    new = [entry for entry in house.entries(last) if entry.action == "refused"]
    if attempt.actor == "-":
        assert new == []
        return
    if status != 403 and not new:
        return  # MLflow itself does not understand it
    (entry,) = new
    assert (entry.actor, entry.authentication) == (attempt.who, "mlflow-basic-auth")
    assert entry.payload["sentence"]


def test_there_are_enough():
    assert len(ATTEMPTS) >= 100


def test_nobody_is_told_the_secret_of_a_webhook(house):
    secret = (house.plant.state / "secrets" / "webhook.secret").read_text().strip()
    for who in ("admin", "otto", "clr-release"):
        assert secret not in house.call(who, "GET", "webhooks").text


def test_the_ledger_of_all_this_is_unbroken(house):
    assert open_ledger(house.plant.state).verify() == []


def test_the_table_in_the_docs_is_what_the_server_answers(house, answers):
    if answers.keys() != ATTEMPTS.keys():
        pytest.skip("only where all attempts were made, and came out as they should")
    if WRITE:
        table.write(table.table(answers))
    assert table.written().strip() == table.table(answers).strip(), (
        "what the server answers has changed: python -m tests.server.attempts --write"
    )
