"""A/B trials, simulated: false alarms under continuous peeking, and labels until a gain is found.

Every trial is looked at after each label. Alarms are counted over 2,000 trials of two equal arms;
a gain from 90 % to 93 % is looked for in 1,000 trials, and compared with the test of a size that
is fixed beforehand (two-sided, normal approximation) and has the same power. Labels come late in
another order than items. In shadow mode both arms answer each item, and half of the champion's
errors are the challenger's, too.
`CLR_WRITE_DOCS=1` puts the table into docs/ab.md.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path

import numpy as np
from scipy.stats import norm

from clr.gate.betting import Floats, Side, Stream, log_capital
from clr.gate.sequential import ALPHA, paired, randomised

BEFORE, AFTER = 0.90, 0.93
NULLS, GAINS = 2000, 1000
PART = 20
PAGE = Path(__file__).parents[2] / "docs" / "ab.md"
START, END = "<!-- trial: start -->", "<!-- trial: end -->"


@dataclass(frozen=True)
class Way:
    """A way to run a trial.

    Attributes:
        name: for the table.
        horizon: labels after which a simulated trial is given up.
        draw: (random, trials, labels, success rate of the challenger) -> what happened.
        variance: of one label's estimate of the gain, where it is 3 points.
    """

    name: str
    horizon: int
    draw: Callable[[np.random.Generator, int, int, float], Stream]
    variance: float


def split(share: float, delay: int) -> Callable[[np.random.Generator, int, int, float], Stream]:
    """Items of both arms by chance; a label comes up to `delay` items late."""

    def draw(random: np.random.Generator, trials: int, n: int, rate: float) -> Stream:
        arm = random.random((trials, n)) < share
        right = random.random((trials, n)) < np.where(arm, rate, BEFORE)
        if delay:
            due = np.arange(n) + random.integers(0, delay, (trials, n))
            order = np.argsort(due, axis=1, kind="stable")
            arm, right = (np.take_along_axis(one, order, axis=1) for one in (arm, right))
        return randomised(arm, right, share)

    return draw


def shadow(random: np.random.Generator, trials: int, n: int, rate: float) -> Stream:
    """Both arms answer: half of what the champion gets wrong the challenger gets right."""
    repaired = 0.5 * (1 - BEFORE)
    broken = repaired - (rate - BEFORE)
    before = random.random((trials, n)) < BEFORE
    wrong = random.random((trials, n)) < np.where(before, broken / BEFORE, 0.5)
    return paired(before, ~wrong)


def ways() -> list[Way]:
    """Return what is simulated."""
    both = BEFORE * (1 - BEFORE), AFTER * (1 - AFTER)

    def of(share: float) -> float:
        return both[1] / share + both[0] / (1 - share)

    discordant = 0.05 + 0.02
    return [
        Way("shadow, both arms answer", 4000, shadow, discordant - (AFTER - BEFORE) ** 2),
        Way("share 50 %", 8000, split(0.5, 0), of(0.5)),
        Way("share 50 %, labels up to 500 items late", 8000, split(0.5, 500), of(0.5)),
        Way("share 10 %", 15_000, split(0.1, 0), of(0.1)),
    ]


def hits(way: Way, trials: int, rate: float, sides: Sequence[Side], seed: int) -> Floats:
    """Return after how many labels each trial said so on one of `sides`; `horizon` + 1: never."""
    limit, random, found = np.log(2 / ALPHA), np.random.default_rng(seed), []
    for _ in range(0, trials, PART):
        stream = way.draw(random, PART, way.horizon, rate)
        reached = [log_capital(stream, 0.0, side) >= limit for side in sides]
        said = np.any(reached, axis=0)
        found.append(np.where(said.any(axis=1), said.argmax(axis=1) + 1, way.horizon + 1))
    return np.concatenate(found)


def fixed(way: Way, power: float) -> int:
    """Return the labels that a test of fixed size and this power needs."""
    z = norm.isf(ALPHA / 2) + norm.ppf(min(power, 0.9999))
    return ceil(z**2 * way.variance / (AFTER - BEFORE) ** 2)


def main() -> None:
    """Simulate each way, print the table."""
    started, rows = time.process_time(), []
    for number, way in enumerate(ways()):
        nulls = hits(way, NULLS, BEFORE, ("up", "down"), 2 * number)
        alarms = np.mean(nulls <= way.horizon)
        gain = hits(way, GAINS, AFTER, ("up",), 2 * number + 1)
        power, median = float(np.mean(gain <= way.horizon)), int(np.median(gain))
        quarters = np.quantile(gain, (0.1, 0.9)).astype(int)
        needed = fixed(way, power)
        rows.append(
            f"| {way.name} | {way.horizon:,} | {100 * alarms:.2f} % | {100 * power:.1f} % "
            f"| {median:,} | {quarters[0]:,} to {quarters[1]:,} | {fixed(way, 0.8):,} "
            f"| {needed:,} | {median / needed:.2f} |"
        )
        print(rows[-1], flush=True)
    table = "\n".join(
        [
            "| trial | labels at most | false alarms, of 2,000 | finds 90 → 93 % "
            "| median labels | 10 to 90 % of trials | fixed size, power 80 % "
            "| fixed size, same power | median / that |",
            "|---|---|---|---|---|---|---|---|---|",
            *rows,
        ]
    )
    print(f"\n{table}\n\n{time.process_time() - started:.0f} s of CPU time")
    if os.environ.get("CLR_WRITE_DOCS"):
        text = PAGE.read_text(encoding="utf-8")
        before, rest = text.split(START)
        after = rest.split(END)[1]
        PAGE.write_text(f"{before}{START}\n{table}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
