"""What is on trial in the registry: the alias ``challenger`` and the tag ``clr.trial``."""

from __future__ import annotations

import logging

from clr.errors import ClrError, UsageError
from clr.registry.faults import calling
from clr.registry.names import TRIAL
from clr.registry.store import Registry, model_name
from clr.registry.trial import Trial, parse_trial
from clr.registry.versions import CHALLENGER, Version, get_version, set_version_tags, tasks

_LOG = logging.getLogger("clr")


def trials(registry: Registry) -> dict[str, tuple[Version, Trial]]:
    """Return what is on trial, by task.

    An alias without the tag that belongs to it, set by nobody's command, is no trial.

    Raises:
        ServiceUnavailable: the registry cannot be asked.
    """
    found = {}
    for task, aliases in tasks(registry).items():
        if CHALLENGER in aliases:
            try:
                found[task] = trial_of(registry, task)
            except UsageError as error:
                _LOG.warning("trial     %s: %s", task, error.message)
    return found


def trial_of(registry: Registry, task: str) -> tuple[Version, Trial]:
    """Return the version of a task that is on trial.

    Raises:
        UsageError: none is.
    """
    try:
        version = get_version(registry, task, CHALLENGER)
    except UsageError as error:
        raise UsageError(
            f"No trial of {task} runs.", fix="`clr ab start TASK VERSION` starts one."
        ) from error
    return version, parse_trial(version.tags.get(TRIAL, ""))


def describe(registry: Registry, version: Version, trial: Trial) -> None:
    """Write what a trial is, and what came of it, into the tag of its challenger."""
    set_version_tags(registry, version, {TRIAL: trial.text()})


def begin(registry: Registry, version: Version, trial: Trial) -> None:
    """Put a version on trial: described first, since from the alias on it answers."""
    describe(registry, version, trial)
    name = model_name(version.task)
    with calling(registry.uri, f"put version {version.version} of {name} on trial"):
        registry.client.set_registered_model_alias(name, CHALLENGER, str(version.version))


def finish(registry: Registry, version: Version, trial: Trial) -> None:
    """End a trial: described first, since the alias says that something is left to do."""
    try:
        describe(registry, version, trial)
    except ClrError as error:
        # a version that was rejected meanwhile is described no more (policy_versions.trial)
        _LOG.warning("trial     the end of %s cannot be described: %s", version.task, error)
    name = model_name(version.task)
    with calling(registry.uri, f"end the trial of {name}"):
        registry.client.delete_registered_model_alias(name, CHALLENGER)
