"""The file of a unit of work: everything comes back, and nothing else is taken for one."""

from __future__ import annotations

import numpy as np
import pytest

from clr.compare.unit import parse_unit
from clr.errors import IntegrityBroken
from tests.compare.units import step, unit


def test_a_unit_comes_back_whole():
    made = unit("sequential", step("a", {"a": 3}), step("b", {"a": 90, "b": 5}), shared=True)
    found = parse_unit(made.to_bytes())
    assert (found.asked, found.key, found.about) == (made.asked, made.key, made.about)
    assert [one.state for one in found.steps] == [one.state for one in made.steps]
    assert found.accuracy(0, "a") == 397 / 400
    assert found.accuracy(1, "a") == 310 / 400
    assert np.array_equal(found.labels["b"], made.labels["b"])
    assert found.to_bytes() == made.to_bytes()


@pytest.mark.parametrize("cut", [0, 7, 200, -1])
def test_a_damaged_file_is_refused(cut: int):
    data = unit("probe", step("a", {"a": 3})).to_bytes()
    with pytest.raises(IntegrityBroken):
        parse_unit(data[:cut])


def test_a_file_of_another_kind_is_refused():
    import safetensors.numpy

    with pytest.raises(IntegrityBroken):
        parse_unit(
            safetensors.numpy.save({"a": np.zeros(2)}, {"unit": '{"schema": "clr.other/1"}'})
        )
