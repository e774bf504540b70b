"""How long one image takes, with an adapter and without, is measured in turns."""

import time

from clr.core.latency import in_turns


def test_both_are_called_in_turns_and_each_has_its_own_figures():
    called = []

    def adapted():
        called.append("adapted")
        time.sleep(0.02)

    taken = in_turns(adapted, lambda: called.append("bare"), rounds=2, calls=3)
    warm = 3
    assert called == ["adapted", "bare"] * (warm + 2 * 3)
    assert 20 <= taken.p50 <= taken.p95
    assert 0 <= taken.bare_p50 <= taken.bare_p95
    assert taken.bare_p50 < taken.p50


def test_a_round_in_which_the_machine_was_busy_does_not_decide():
    calls = 0

    def busy_in_the_second_round():
        nonlocal calls
        calls += 1
        time.sleep(0.2 if 3 + 2 < calls <= 3 + 4 else 0)

    assert in_turns(busy_in_the_second_round, lambda: None, rounds=3, calls=2).p95 < 100
