"""Plots: PNG files that anybody can open, the same bytes for the same numbers."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from clr.registry import plots

EPOCHS = [
    {"epoch": n, "train_loss": 1 / (n + 1), "val_loss": 1.2 / (n + 1), "val_accuracy": n / 9}
    for n in range(9)
]
CURVE = [{"month": m, "low": m - 9.0, "middle": m - 5.0, "high": m - 2.0} for m in range(25)]


def drawings():
    wide = [f"class {n}" for n in range(60)]
    return {
        "confusion": lambda: plots.confusion(["$a$", "b" * 90], [[9, 1], [0, 0]]),
        "confusion of 60": lambda: plots.confusion(wide, [[1] * 60] * 60),
        "curves": lambda: plots.learning_curves(EPOCHS),
        "no curves": lambda: plots.learning_curves([]),
        "matrix": lambda: plots.accuracy_matrix(["a", "b"], [[0.9], [0.9, 0.8]]),
        "matrix of 300": lambda: plots.accuracy_matrix(["t"] * 300, [[0.5, None]] * 300),
        "empty matrix": lambda: plots.accuracy_matrix([], []),
        "payback": lambda: plots.payback(CURVE, "EUR"),
    }


@pytest.mark.parametrize("name", drawings())
def test_a_plot_is_a_png_of_readable_size(name):
    image = Image.open(io.BytesIO(drawings()[name]()))
    image.load()
    assert image.format == "PNG"
    assert 250 <= image.width <= 1600
    assert 250 <= image.height <= 1400


def test_equal_numbers_give_equal_bytes():
    draw = drawings()["confusion"]
    assert draw() == draw()


def test_a_matrix_that_does_not_fit_its_labels_is_refused():
    with pytest.raises(ValueError, match="3 labels"):
        plots.confusion(["a", "b", "c"], [[1, 0], [0, 1]])


def test_drawing_opens_no_window_and_leaves_matplotlib_as_it_was():
    import matplotlib

    before = matplotlib.get_backend(auto_select=False)
    plots.learning_curves(EPOCHS)
    assert matplotlib.get_backend(auto_select=False) == before
