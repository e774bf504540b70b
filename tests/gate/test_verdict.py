"""What passes, what stays open, and what must hold whatever the evidence."""

from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clr.errors import IntegrityBroken, UsageError
from clr.gate import Limits, decide
from clr.gate.evidence import SHARED_PARTS
from clr.settings import Settings

# busy machines are slow, which is no failure
few = settings(max_examples=60)

RANK = {"pass": 0, "inconclusive": 1, "fail": 2}
counts = st.integers(0, 60)


def only(report, name):
    return next(one for one in report.checks if one.name == name)


def outcome(report):
    """All that a report says, but for digests of the evidence (which order changes)."""
    return [
        (one.key, one.verdict, one.observed, one.limit, one.n, one.how, one.message, one.facts)
        for one in report.checks
    ]


# --- the three proofs


def test_unchanged_state_is_proved_identical(make):
    report = decide(make.offer(make.earlier(), make.earlier("materials"), new=make.newcomer()))
    assert report.verdict == "pass"
    assert report.metrics["identical"] == report.metrics["earlier_tasks"] == 2
    assert report.metrics["backward_transfer"] == report.metrics["forgetting"] == 0
    assert only(report, "retention").how == "identical"


def test_unchanged_state_needs_no_replay_before_its_turn(make):
    report = decide(make.offer(make.earlier(replayed=None, replay_due=False)))
    assert (report.verdict, only(report, "retention").how) == ("pass", "identical")


def test_new_environment_with_equal_answers_is_proved_by_replay(make):
    after = make.snapshot(environment="torch=2.14.0", canary=make.digest("other bits"))
    report = decide(make.offer(make.earlier(after=after)))
    assert (report.verdict, only(report, "retention").how) == ("pass", "replayed")


def test_new_environment_with_moved_answers_is_tested(make):
    after = make.snapshot(environment="torch=2.14.0", canary=make.digest("other bits"))
    report = decide(make.offer(make.earlier(after=after, regressed=1, repaired=1)))
    assert (report.verdict, only(report, "retention").how) == ("pass", "paired-test")


def test_declared_change_with_a_negligible_drop_passes_by_paired_test(make):
    report = decide(make.offer(make.tuned(regressed=2, repaired=2), declared=["backbone"]))
    check = only(report, "retention")
    assert (report.verdict, check.how, check.limit) == ("pass", "paired-test", 0.02)
    assert check.facts["drop_at_most"] < 0.02


# --- too little evidence


@few
@given(n=st.integers(2, 148), regressed=st.integers(0, 2))
def test_too_small_a_test_set_never_promotes(make, n, regressed):
    """Below 149 items no paired test can exclude a drop of two points."""
    labels, stored, replayed = make.answers(n, n - 1, min(regressed, n - 1), 0)
    replayed[-1] = (labels[-1] + 2) % 4  # wrong before and after, but not in the same way
    one = make.tuned(n=n, labels=labels, stored=stored, replayed=replayed)
    one = replace(one, routed_before=None, routed_after=None)
    report = decide(make.offer(one, declared=["backbone"]))
    assert report.verdict == "inconclusive"
    assert "149 test images would do" in only(report, "retention").message


def test_small_test_set_with_every_answer_unchanged_is_still_a_proof(make):
    assert decide(make.offer(make.earlier(n=8), declared=["backbone"])).verdict == "pass"


def test_router_that_moved_few_images_of_a_small_test_set_is_inconclusive(make):
    one = make.earlier(n=40)
    moved = one.routed_before.copy()
    moved[0] = False
    report = decide(make.offer(replace(one, routed_after=moved)))
    assert report.inconclusive == ["routing:digits"]
    assert report.verdict == "inconclusive"


def test_router_that_moved_few_images_of_a_large_test_set_passes(make):
    one = make.earlier(n=400)
    moved = one.routed_before.copy()
    moved[:2] = False
    offer = make.offer(replace(one, routed_after=moved))
    assert decide(offer, Limits(routing_margin=0.02)).verdict == "pass"


# --- the newcomer


@pytest.mark.parametrize(
    ("lost", "won", "n", "verdict", "words"),
    [
        (0, 60, 400, "pass", "shown to be better than the probe"),
        (0, 5, 400, "pass", "shown to be better than the probe"),
        (0, 4, 400, "pass", "every image that the probe has right"),
        (0, 0, 400, "pass", "every image that the probe has right"),
        (3, 2, 400, "pass", "not worse than the probe by more than 2.0 points"),
        (6, 5, 100, "inconclusive", "too few test images"),
        (40, 0, 400, "fail", "shown to be worse than the probe"),
    ],
)
def test_newcomer_against_the_probe(make, lost, won, n, verdict, words):
    check = only(decide(make.offer(new=make.newcomer(n=n, lost=lost, won=won))), "improvement")
    assert check.verdict == verdict
    assert words in check.message
    assert check.observed == pytest.approx((won - lost) / n)


def test_newcomer_no_better_than_the_majority_class_is_not_promoted(make):
    labels = np.where(np.arange(400) < 396, 0, 1)
    always = np.zeros(400, int)
    new = make.newcomer(labels=labels, predicted=always, probe=always, routed=None)
    check = only(decide(make.offer(new=new)), "improvement")
    assert check.verdict == "inconclusive"
    assert "most frequent class" in check.message


def test_new_version_slightly_below_its_champion_passes_and_says_so(make):
    labels, champion, predicted = make.answers(400, 360, regressed=3, repaired=1)
    new = make.newcomer(labels=labels, predicted=predicted, champion=champion, routed=None)
    check = only(decide(make.offer(new=new)), "own-champion")
    assert check.verdict == "pass"
    assert "lower than the version in use" in check.message


def test_new_version_that_lacks_a_class_of_its_champion_fails_by_name(make):
    labels, champion, predicted = make.answers(400, 360, regressed=0, repaired=20)
    new = make.newcomer(labels=labels, predicted=predicted, champion=champion, routed=None)
    check = only(decide(make.offer(new=replace(new, dropped=("scratched",)))), "own-champion")
    assert check.verdict == "fail"
    assert "does not know scratched any more" in check.message
    assert check.facts["dropped"] == ["scratched"]


def test_first_task_passes_alone(make):
    report = decide(make.offer(new=make.newcomer()))
    assert report.verdict == "pass"
    assert "no earlier task" in report.sentence
    assert "forgetting" not in report.metrics


# --- properties


@few
@given(b=counts, c=counts, more=st.integers(1, 40), n=st.integers(160, 500))
def test_more_regressions_never_turn_a_worse_verdict_into_a_better_one(make, b, c, more, n):
    right = n - 60
    few, many = min(b, right), min(b + more, right)

    def verdict(regressed, repaired):
        task = make.tuned(n=n, right=right, regressed=regressed, repaired=repaired)
        check = only(decide(make.offer(task, declared=["backbone"])), "retention")
        return RANK[check.verdict]

    assert verdict(many, c) >= verdict(few, c)
    if c:
        assert verdict(few, c) <= verdict(few, c - 1) or few + c == 1  # 0: replayed as before


@few
@given(lost=st.integers(0, 60), won=counts, more=st.integers(1, 40), n=st.integers(20, 400))
def test_a_newcomer_that_gets_more_wrong_never_fares_better(make, lost, won, more, n):
    right = int(0.7 * n)

    def rank(lost, won):
        new = make.newcomer(n=n, lost=min(lost, right), won=min(won, n - right))
        return RANK[only(decide(make.offer(new=new)), "improvement").verdict]

    assert rank(lost, won) <= rank(lost + more, won)
    assert rank(lost, won + more) <= rank(lost, won)


@few
@given(
    st.lists(st.tuples(counts, counts, st.booleans()), min_size=1, max_size=5),
    st.integers(0, 10**6),
)
def test_order_of_tasks_and_of_items_does_not_matter(make, shape, seed):
    rng = np.random.default_rng(seed)
    tasks = [
        (make.tuned if changed else make.earlier)(
            f"task-{i}", n=300, right=200, regressed=b if changed else 0,
            repaired=c if changed else 0,
        )
        for i, (b, c, changed) in enumerate(shape)
    ]  # fmt: skip
    shuffled = []
    for one in tasks:
        order = rng.permutation(one.n)
        arrays = ("labels", "stored", "replayed", "routed_before", "routed_after")
        shuffled.append(replace(one, **{name: getattr(one, name)[order] for name in arrays}))
    shuffled = [shuffled[place] for place in rng.permutation(len(shuffled))]
    first = decide(make.offer(*tasks, declared=["backbone"]))
    second = decide(make.offer(*shuffled, declared=["backbone"]))
    assert outcome(first) == outcome(second)
    assert (first.verdict, first.sentence, first.metrics) == (
        second.verdict,
        second.sentence,
        second.metrics,
    )


@few
@given(st.lists(st.tuples(st.integers(1, 300), st.booleans(), st.booleans()), max_size=6))
def test_identical_evidence_always_passes(make, shape):
    tasks = [
        make.earlier(f"task-{i}", n=n, replay_due=due, replayed=None)
        if not due
        else make.earlier(f"task-{i}", n=n, replay_due=True)
        for i, (n, due, _) in enumerate(shape)
    ]
    report = decide(make.offer(*tasks))
    assert report.verdict == "pass"
    assert report.metrics["identical"] == len(tasks)


@few
@given(st.integers(0, 4), st.sampled_from(SHARED_PARTS), st.sets(st.sampled_from(SHARED_PARTS)))
def test_one_undeclared_difference_always_fails_by_its_name(make, victim, part, declared):
    tasks = [make.earlier(f"task-{i}") for i in range(5)]
    changed = make.snapshot(f"task-{victim}", **{part: make.digest("something else")})
    tasks[victim] = replace(tasks[victim], after=changed)
    report = decide(make.offer(*tasks, declared=declared - {part}))
    assert report.verdict == "fail"
    assert report.failed == [f"{part}:task-{victim}"]


@few
@given(
    st.lists(st.tuples(counts, st.booleans(), st.booleans(), st.booleans()), max_size=4),
    st.booleans(),
    st.integers(0, 60),
)
def test_the_verdict_is_pass_only_if_every_check_passes(make, shape, declare, won):
    tasks = [
        make.tuned(f"task-{i}", regressed=b, test_after="" if gone else make.digest(f"x{i}"))
        if changed
        else make.earlier(f"task-{i}", replayed=None, replay_due=due)
        for i, (b, changed, due, gone) in enumerate(shape)
    ]
    declared = ["backbone"] if declare else []
    report = decide(make.offer(*tasks, new=make.newcomer(won=won), declared=declared))
    verdicts = [one.verdict for one in report.checks]
    assert (report.verdict == "pass") == all(one == "pass" for one in verdicts)
    assert report.verdict == max(verdicts, key=RANK.__getitem__)
    assert len({one.key for one in report.checks}) == len(verdicts)


def test_same_evidence_gives_the_same_digest_and_other_evidence_another(make):
    def digest(**changed):
        return only(decide(make.offer(make.earlier(**changed))), "retention").evidence

    assert digest() == digest()
    stored = make.answers(400, 359)[1]
    assert len({digest(), digest(replayed=None), digest(stored=stored, replayed=stored)}) == 3


# --- what cannot be evidence


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"stored": np.zeros(3, int)}, "stored has 3 items, the labels have 400"),
        ({"replayed": np.zeros(400)}, "replayed must be a list of whole numbers"),
        ({"routed_after": np.zeros(400, int)}, "routed_after must be a list of truth values"),
        ({"labels": np.zeros((2, 2), int)}, "labels must be a list of whole numbers"),
        ({"labels": None}, "labels is missing"),
    ],
)
def test_arrays_of_a_wrong_form_are_refused(make, change, words):
    with pytest.raises(IntegrityBroken, match=words):
        make.earlier(**change)


def test_evidence_cannot_be_changed_afterwards(make):
    one = make.earlier()
    with pytest.raises(ValueError, match="read-only"):
        one.stored[0] = 9


def test_missing_digests_duplicates_and_unknown_declarations_are_refused(make):
    with pytest.raises(IntegrityBroken, match="backbone is missing"):
        make.snapshot(backbone="")
    with pytest.raises(IntegrityBroken, match="digits twice"):
        make.offer(make.earlier(), make.earlier())
    with pytest.raises(IntegrityBroken, match="surface twice"):
        make.offer(make.earlier("surface"), new=make.newcomer())
    with pytest.raises(UsageError, match="head"):
        make.offer(make.earlier(), declared=["head"])


@pytest.mark.parametrize("value", [None, "1", True, np.True_, 10**400, [1.0]], ids=range(6))
@pytest.mark.parametrize(
    "name", ["params_pct", "adapter_bytes", "latency_p95_ms", "bare_latency_p95_ms"]
)
def test_a_size_or_time_that_is_no_number_is_refused(make, name, value):
    with pytest.raises(IntegrityBroken, match=f"surface: {name} is .*, not a number"):
        make.newcomer(**{name: value})


@pytest.mark.parametrize("kind", [int, float, np.float32, np.int64])
def test_a_size_may_be_any_real_number(make, kind):
    assert decide(make.offer(new=make.newcomer(params_pct=kind(1)))).verdict == "pass"


@pytest.mark.parametrize("bad", [{"margin": 0}, {"alpha": 0.5}, {"max_adapter_mb": float("nan")}])
def test_limits_out_of_range_are_refused(bad):
    with pytest.raises(UsageError, match=next(iter(bad))):
        Limits(**bad)


def test_without_other_words_the_limits_are_those_of_the_settings():
    fields = Settings.model_fields
    assert asdict(Limits()) == {one: fields[f"gate_{one}"].default for one in asdict(Limits())}
