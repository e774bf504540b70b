"""Tasks that look alike are reported with the confusion between them, and what to do."""

import numpy as np
import pytest

from clr.gate import decide
from clr.gate.advice import next_steps


def first(count, n=400):
    return np.arange(n) < count


def report(make, *earlier, **newcomer):
    return decide(make.offer(*earlier, new=make.newcomer(**newcomer))).to_dict()


def test_whose_images_go_where_is_in_the_report_its_sentence_and_its_advice(make):
    found = report(
        make,
        make.earlier(taken=first(30), doubted=first(4)),
        make.earlier("materials", taken=first(0)),
        strayed={"digits": 52},
    )
    (one,) = found["overlaps"]
    assert (one["task"], one["n"], one["newcomer_n"]) == ("digits", 400, 400)
    assert (one["to_newcomer"], one["from_newcomer"], one["doubtful"]) == (0.075, 0.13, 0.01)
    assert one["sentence"] in found["sentence"]
    assert "7.5 % of the test images of digits go to surface" in one["sentence"]
    assert "13.0 % of those of surface to digits" in one["sentence"]
    advice = " ".join(next_steps(found))
    assert "surface looks like digits: name the task in requests" in advice


@pytest.mark.parametrize(
    ("lost", "strayed", "n"), [(7, 7, 400), (0, 0, 400), (1, 1, 20)], ids=["few", "none", "one"]
)
def test_a_stray_image_is_no_overlap(make, lost, strayed, n):
    earlier = make.earlier(n=n, taken=first(lost, n))
    found = report(make, earlier, n=n, strayed={"digits": strayed})
    assert found["overlaps"] == []
    assert "go to" not in found["sentence"]
    assert not [step for step in next_steps(found) if "looks like" in step]


def test_the_most_confused_task_comes_first_and_many_are_counted(make):
    names = [f"task-{at}" for at in range(6)]
    earlier = [make.earlier(name, taken=first(10 + at)) for at, name in enumerate(names)]
    found = report(make, *earlier)
    assert [one["task"] for one in found["overlaps"]] == names[::-1]
    assert "so with 3 more tasks" in found["sentence"]


def test_an_overlap_is_a_warning_that_does_not_refuse_by_itself(make):
    assert report(make, make.earlier(taken=first(0)), strayed={"digits": 200})["verdict"] == "pass"


def test_a_few_doubtful_choices_pass_and_are_told(make):
    found = report(make, make.earlier(doubted=first(5)))
    (check,) = [one for one in found["checks"] if one["name"] == "doubt"]
    assert (check["verdict"], check["facts"]["doubted"]) == ("pass", 5)
    assert found["verdict"] == "pass"


def test_without_a_doubtful_choice_the_report_says_nothing_of_doubt(make):
    found = report(make, make.earlier(doubted=first(0)))
    assert "doubt" not in {one["name"] for one in found["checks"]}


def test_a_new_version_of_a_task_answers_for_the_doubt_that_it_adds(make):
    """What its version in use makes doubtful already is no fault of the new one."""
    before, more = first(100), first(170)
    kept = report(make, make.earlier(doubted=before, doubted_before=before))
    assert kept["verdict"] == "pass"
    worse = report(make, make.earlier(doubted=more, doubted_before=before))
    assert worse["failed"] == ["doubt:digits"]
