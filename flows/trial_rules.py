"""Whether a trial may start, by the policy of the registry, where no server enforces it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from clr.errors import ReviewRefused
from clr.registry.names import TRIAL
from clr.registry.versions import CHALLENGER
from flows.session import Session

if TYPE_CHECKING:
    from clr.registry.acts import ReleaseFacts
    from clr.registry.trial import Trial
    from clr.registry.versions import Version


def require(session: Session, version: Version, trial: Trial) -> None:
    """See that the policy lets a version be tried as a trial says.

    A guarded server is asked by the acts themselves; one that is a file here trusts its user,
    as it does everywhere, but holds to the same rules about versions.

    Raises:
        ReviewRefused: it does not; with its sentence.
    """
    from clr.registry.acts import Act, Kind, Principal, State
    from clr.registry.policy import decide
    from clr.registry.roles import RELEASE
    from clr.registry.store import model_name
    from clr.registry.versions import tasks
    from flows.standing import facts, policy_of

    if session.registry.guarded:
        return
    model = model_name(version.task)
    known = replace(facts(session, version), actual=_actual(session, version))
    aliases = tasks(session.registry).get(version.task, {})
    state = State(known, aliases, _serving(session))
    who, policy = Principal("-", frozenset({RELEASE})), policy_of(session)
    for act in (
        Act(Kind.SET_VERSION_TAG, "", model, version.version, TRIAL, trial.text()),
        Act(Kind.SET_ALIAS, "", model, version.version, CHALLENGER),
    ):
        decision = decide(act, who, state, policy)
        if not decision.allowed:
            raise ReviewRefused(decision.sentence, fix="No trial was started.")


def _actual(session: Session, version: Version) -> str:
    from clr.core.files import sha256_file
    from clr.registry.fetch import fetch_adapter
    from clr.registry.local import scratch

    with scratch(session.registry) as folder:
        return sha256_file(fetch_adapter(session.registry, version.task, version.version, folder))


def _serving(session: Session) -> ReleaseFacts | None:
    from clr.registry.acts import ReleaseFacts
    from clr.registry.releases import current_release

    release = current_release(session.registry)
    if release is None:
        return None
    tasks = {task: (ref.version, ref.adapter_digest) for task, ref in release.tasks.items()}
    return ReleaseFacts(release.version, release.digest, release.digest, release.previous, tasks)
