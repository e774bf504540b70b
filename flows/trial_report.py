"""The report of a trial: a run of MLflow beside those that trained, which its version names."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from flows.session import Session

if TYPE_CHECKING:
    from clr.registry.trial import Trial
    from clr.registry.versions import Version
    from clr.serving.trials import Figures, Labelled

FOLDER = "trial"


def write(
    session: Session, version: Version, trial: Trial, found: Figures, units: Sequence[Labelled]
) -> str:
    """Write the report of a trial, over an earlier one of it; return its run.

    The run of a registered version is written once, so that a trial has a run of its own:
    ``trial/report.html``, ``trial/sequence.png`` and ``trial/trial.json`` in it.

    Args:
        session: the workspace.
        version: the challenger.
        trial: it.
        found: its figures.
        units: that they are of.

    Raises:
        ServiceUnavailable: the registry cannot be used.
    """
    from clr.gate.betting import path
    from clr.gate.sequential import ALPHA, WORTHWHILE
    from clr.registry.plots import confidence_sequence
    from clr.registry.runs import find_or_start_run, finish, log_bytes, log_metrics
    from clr.serving.trial_page import render
    from clr.serving.trials import sentence, stream
    from flows.trial import about

    picture = confidence_sequence(path(stream(trial, units), ALPHA), WORTHWHILE)
    told = {
        **about(session, version, trial),
        "ended": trial.ended,
        "outcome": trial.outcome or sentence(found.gain),
        "figures": found.as_dict(),
    }
    run = find_or_start_run(
        session.registry,
        version.task,
        f"trial:{trial.id}",
        name=f"trial of version {version.version}",
        tags={"clr.trial": trial.id, "clr.version": str(version.version)},
    )
    files = {
        "report.html": render(told, picture).encode(),
        "sequence.png": picture,
        "trial.json": json.dumps(told, indent=2, ensure_ascii=False).encode(),
    }
    log_bytes(session.registry, run, {f"{FOLDER}/{name}": data for name, data in files.items()})
    gain = found.gain
    log_metrics(
        session.registry,
        run,
        {
            "trial.gain": gain.estimate,
            "trial.gain_low": gain.low,
            "trial.gain_high": gain.high,
            "trial.units": gain.n,
        },
    )
    finish(session.registry, run)
    return run.id
