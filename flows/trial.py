"""Trials on site: start one, look at it, end it; each recorded, each end with a report.

The tag ``clr.trial`` of the challenger's version says what runs, its alias ``challenger`` that
it runs. Starting writes the tag, then the alias, then the ledger; ending writes the ledger,
report and tag, and takes the alias last. So what is left half done by a kill still has its
alias, and `settle` completes it: the release service does so on its rounds.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from clr.errors import ClrError, UsageError
from clr.registry.versions import CHALLENGER, champion_of, get_version
from flows import output
from flows.activation import require_role
from flows.session import Session

if TYPE_CHECKING:
    from clr.registry.release import ChampionRef
    from clr.registry.trial import Trial
    from clr.registry.versions import Version
    from clr.serving.trials import Figures, Labelled

LOG = logging.getLogger("clr")
Result = dict[str, Any]
STARTED, DECIDED, ENDED = "trial.started", "trial.decided", "trial.ended"


def start(session: Session, task: str, number: int, share: float, reason: str) -> Result:
    """Put a version on trial against the champion of its task.

    Args:
        session: the workspace.
        task: task name.
        number: version that is tried.
        share: of the task's items that it answers; 0: shadow mode, where nobody gets its answers.
        reason: why, kept in the ledger.

    Returns:
        see `about`.

    Raises:
        UsageError: no such version, nothing serves the task, it is on trial, or no such share.
        ReviewRefused: the policy refuses it: gate not passed, rejected, another trial runs, the
            share is too large, or this user lacks the role release.
        IntegrityBroken: its files are not as recorded, or its gate report does not say pass.
    """
    from clr.registry.challenger import begin
    from clr.registry.trial import Trial
    from flows.recheck import require_passed
    from flows.trial_rules import require

    output.log_to_stderr()
    require_role(session)
    with session.lock("promote"):
        version, champion = get_version(session.registry, task, number), champion_now(session, task)
        if champion is None:
            raise UsageError(
                f"Nothing serves {task}, so that there is no champion to compare with.",
                fix="Have a first version approved: clr review.",
            )
        if CHALLENGER in version.aliases:
            raise UsageError(
                f"Version {number} of {task} is on trial already.",
                fix=f"End that trial first: clr ab stop {task}",
            )
        now = datetime.now(UTC).isoformat(timespec="seconds")
        trial = Trial(secrets.token_hex(16), share, champion.adapter_digest, now, reason)
        require(session, version, trial)
        if version.tags.get("clr.verdict") == "passed":  # else the policy says so, with its words
            require_passed(session, version)
        begin(session.registry, version, trial)
        _record_start(session, version, champion, trial)
    LOG.info("trial     %s version %d, %s", task, number, mode(trial))
    return about(session, version, trial)


def stop(session: Session, task: str, reason: str) -> Result:
    """End the trial of a task: everybody gets the champion; the report is kept in MLflow.

    Returns:
        as `about`, with ended, verdict, outcome, report and figures.

    Raises:
        UsageError: none runs.
        ReviewRefused: this user lacks the role release.
    """
    from clr.registry.challenger import trial_of

    output.log_to_stderr()
    require_role(session)
    with session.lock("promote"):
        version, trial = trial_of(session.registry, task)
        cause = over(session, version, trial, champion_now(session, task))
        return end(session, version, trial, cause or f"Stopped by hand: {reason or 'no reason'}.")


def status(session: Session, task: str | None) -> Result:
    """Return the trials that run, or one of them, with their figures; changes nothing.

    Returns:
        {trials: [as `about`, with figures, outcome and over: why it ends, empty while it goes
        on]}.

    Raises:
        UsageError: no trial of `task` runs.
    """
    from clr.registry.challenger import trial_of, trials
    from clr.serving.trials import figures, sentence

    found = trials(session.registry) if task is None else {task: trial_of(session.registry, task)}
    told = []
    for name, (version, trial) in found.items():
        champion = champion_now(session, name)
        so_far = figures(session.settings.state, trial)
        told.append(
            {
                **about(session, version, trial),
                "outcome": sentence(so_far.gain),
                "over": over(session, version, trial, champion),
                "report": trial.report,
                "figures": so_far.as_dict(),
            }
        )
    return {"trials": told}


def end(session: Session, version: Version, trial: Trial, cause: str) -> Result:
    """End a trial; hold the lock ``promote``. Doing it again completes it.

    Args:
        session: the workspace.
        version: the challenger.
        trial: it.
        cause: why, a sentence.
    """
    from clr.registry.challenger import finish
    from clr.serving.trials import figures, labelled, read_stop, sentence

    state = session.settings.state
    stopped, units = read_stop(state, trial), list(labelled(state, trial))
    found = figures(state, trial, units)
    facts = {
        "trial": trial.id,
        "adapter": version.adapter_digest,
        "cause": cause,
        "figures": stopped.figures if stopped else found.as_dict(),
    }
    entry = session.record(ENDED, _subject(version), facts, f"{ENDED}:{trial.id}")
    outcome = f"{entry.payload['cause']} {sentence(found.gain)}"
    ended = replace(trial, ended=entry.time, outcome=outcome)
    told = _reported(session, version, ended, found, units)
    finish(session.registry, version, told)
    LOG.info("trial     %s version %d ended: %s", version.task, version.version, outcome)
    return {
        **about(session, version, told),
        "ended": told.ended,
        "verdict": found.gain.verdict.value,
        "outcome": outcome,
        "report": told.report,
        "figures": found.as_dict(),
    }


def settle(session: Session) -> list[Result]:
    """End what has to end, say what is decided, complete what a kill left; return what ended.

    Raises:
        ClrError: registry or ledger cannot be used.
    """
    from clr.registry.challenger import trial_of, trials

    ended = []
    for task in trials(session.registry):
        with session.lock("promote"):
            try:
                version, trial = trial_of(session.registry, task)
            except UsageError:
                continue  # somebody ended it meanwhile
            champion = champion_now(session, task)
            if not any(_entries(session, STARTED, trial)):
                _record_start(session, version, champion, trial)
            if cause := over(session, version, trial, champion):
                ended.append(end(session, version, trial, cause))
            else:
                _decide(session, version, trial)
    return ended


def over(session: Session, version: Version, trial: Trial, champion: ChampionRef | None) -> str:
    """Say why a trial has to end; empty where it goes on."""
    from clr.registry import reviews
    from clr.serving.trials import harmful, read_stop
    from flows.standing import facts

    for entry in _entries(session, ENDED, trial):
        return str(entry.payload["cause"])
    state = session.settings.state
    if read_stop(state, trial) or harmful(state, trial):
        return "Stopped by itself: the challenger does harm."
    if champion == champion_of(version):
        return "The challenger serves by now."
    if champion is None or champion.adapter_digest != trial.champion:
        return "The champion that it was tried against serves no more."
    if reviews.rejected(facts(session, version)):
        return "The challenger was rejected."
    return ""


def _decide(session: Session, version: Version, trial: Trial) -> None:
    """Write report and tag once for each verdict of a trial that goes on."""
    from clr.gate.sequential import Verdict
    from clr.registry.challenger import describe
    from clr.serving.trials import figures, labelled, said, sentence

    units = list(labelled(session.settings.state, trial))
    found = figures(session.settings.state, trial, units)
    verdict = found.gain.verdict
    # the tag is written last, so that it says what was written whole
    if verdict is Verdict.UNDECIDED or trial.outcome.startswith(said(verdict)):
        return
    told = _reported(session, version, replace(trial, outcome=sentence(found.gain)), found, units)
    facts = {"trial": trial.id, "verdict": verdict.value, "figures": found.as_dict()}
    session.record(DECIDED, _subject(version), facts, f"{DECIDED}:{trial.id}:{verdict.value}")
    describe(session.registry, version, told)
    LOG.info("trial     %s version %d: %s", version.task, version.version, told.outcome)


def about(session: Session, version: Version, trial: Trial) -> Result:
    """Return {task, version, champion, trial, share, mode, started, reason} of a trial.

    `champion` is the version that it was begun against, whatever serves by now.
    """
    begun = next(_entries(session, STARTED, trial), None)
    return {
        "task": version.task,
        "version": version.version,
        "champion": begun.payload["champion_version"] if begun else None,
        "trial": trial.id,
        "share": trial.share,
        "mode": mode(trial),
        "started": trial.started,
        "reason": trial.reason,
    }


def mode(trial: Trial) -> str:
    """Return how a trial runs, in words."""
    from clr.registry.trial import percent

    return f"{percent(trial.share)} of the items" if trial.share else "in shadow"


def champion_now(session: Session, task: str) -> ChampionRef | None:
    """Return what serves a task; None: nothing does."""
    from clr.registry.releases import current_release

    release = current_release(session.registry)
    return release.tasks.get(task) if release else None


def _subject(version: Version) -> str:
    return f"clr-{version.task}/{version.version}"


def _entries(session: Session, action: str, trial: Trial) -> Iterator[Any]:
    for entry in session.ledger.entries(action=action):
        if entry.payload.get("trial") == trial.id:
            yield entry


def _record_start(
    session: Session, version: Version, champion: ChampionRef | None, trial: Trial
) -> None:
    known = champion if champion and champion.adapter_digest == trial.champion else None
    facts = {
        **{name: value for name, value in asdict(trial).items() if name != "id"},
        "trial": trial.id,
        "adapter": version.adapter_digest,
        "champion_version": known.version if known else None,
    }
    session.record(STARTED, _subject(version), facts, f"{STARTED}:{trial.id}")


def _reported(
    session: Session, version: Version, trial: Trial, found: Figures, units: Sequence[Labelled]
) -> Trial:
    """Return the trial with the run that has its report; without MLflow's files it has none."""
    from flows.trial_report import write

    try:
        return replace(trial, report=write(session, version, trial, found, units))
    except ClrError as error:
        LOG.warning("trial     the report of %s is missing: %s", version.task, error)
        return trial
