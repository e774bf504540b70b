"""What is where: tasks, champions, candidates, reviews, the release in force, business cases."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from clr.errors import ClrError, ServiceUnavailable
from clr.registry.faults import redact
from flows.session import Session

if TYPE_CHECKING:
    from clr.registry.acts import Review
    from clr.registry.release import ChampionRef
    from clr.registry.roles import Policy
    from clr.registry.versions import Version

Result = dict[str, Any]


def read_status(session: Session) -> Result:
    """Return what ``clr status --json`` prints.

    That is tasks, release, services and warnings; health of each service, the queue, runs in
    progress and candidates that wait for review. What does not answer is said in `health` and
    `warnings`, and the rest is told. The number of calls to registry and ledger does not grow
    with the number of tasks.
    """
    from flows import observed
    from flows.standing import policy_of

    policy = policy_of(session)
    seen = observed.everything(session.settings)
    warnings = [*seen.pop("problems"), *_warnings(session, policy)]
    about: Result = {"services": _services(session, seen["health"]), "warnings": warnings, **seen}
    nothing: Result = {"tasks": [], "release": None, **about, "waiting": []}
    if not has_registry(session) or _is_gone(seen["health"]):
        return nothing
    try:
        return {**_registered(session, policy, warnings), **about}
    except ServiceUnavailable as error:
        warnings.append(f"THE REGISTRY DOES NOT ANSWER: {error.message}")
        return nothing


def watch_status(
    session: Session,
    show: Callable[[Result], str],
    seconds: float = 2.0,
    rounds: int = 0,
    read: Callable[[Session], Result] = read_status,
) -> None:
    """Show the status on the terminal, again and again.

    Args:
        session: the workspace.
        show: draws what `read` returns.
        seconds: pause between two looks.
        rounds: how many; 0: until Ctrl-C.
        read: what is looked at.
    """
    from rich.live import Live
    from rich.text import Text

    left = rounds
    with Live(auto_refresh=False, vertical_overflow="visible") as live:
        try:
            while True:
                live.update(Text(show(read(session))), refresh=True)
                left -= 1
                if left == 0:
                    return
                time.sleep(seconds)
        except KeyboardInterrupt:
            return


def _is_gone(health: Result) -> bool:
    return bool(health.get("registry", {}).get("state", "up") != "up")


def _registered(session: Session, policy: Policy, warnings: list[str]) -> Result:
    from clr.registry.overview import overview
    from clr.registry.releases import current_release

    there, release = overview(session.registry), current_release(session.registry)
    champions = release.tasks if release else {}
    reviews = _reviews(session, warnings)
    rows = [
        {
            **_task(name, aliases, there.versions[name], champions.get(name)),
            **_review(session, policy, reviews, there.versions[name], champions.get(name)),
        }
        for name, aliases in there.aliases.items()
    ]
    return {
        "tasks": rows,
        "release": release and _release(session, release, there.releases),
        "waiting": _waiting(session, there.versions),
    }


def _waiting(session: Session, versions: Mapping[str, Sequence[Version]]) -> list[Result]:
    """Return the candidates that nobody has decided about: {task, version, since, link}."""
    from clr.registry.versions import PENDING

    server = redact(session.settings.registry)
    return [
        {
            "task": name,
            "version": one.version,
            "since": _time(one.created),
            "link": f"{server}/#/models/clr-{name}/versions/{one.version}" if server else "",
        }
        for name, known in versions.items()
        for one in known
        if "candidate" in one.aliases and one.review == PENDING
    ]


def _time(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds")


def _release(session: Session, release: Any, known: Sequence[Version]) -> Result:
    made = next((one.created for one in known if one.version == release.version), 0)
    return {
        "version": release.version,
        "since": _time(made),
        "digest": release.digest,
        "backbone": session.settings.backbone,
        "backbone_digest": release.backbone,
        "tasks": len(release.tasks),
        "gate": release.gate,
        "router": release.router,
    }


def _task(
    name: str,
    aliases: Mapping[str, int],
    known: Sequence[Version],
    champion: ChampionRef | None,
) -> Result:
    serving = champion.version if champion else None
    last = known[-1] if known else None
    shown = next((one for one in known if one.version == serving), last)
    return {
        "name": name,
        "champion": serving,
        "candidate": aliases.get("candidate"),
        "versions": len(known),
        "accuracy": shown.accuracy if shown else None,
        "verdict": last.tags.get("clr.verdict") if last else None,
    }


def _review(
    session: Session,
    policy: Policy,
    reviews: Mapping[str, tuple[Review, ...]],
    known: Sequence[Version],
    champion: ChampionRef | None,
) -> Result:
    """Return how far the review of the candidate is, else of the last version.

    And what the champion's approval rests on.
    """
    from clr.registry.names import PROMOTION
    from flows.standing import tally, with_reviews

    said: Result = {"review": None, "approvals": None, "evidence": None, "promotion": None}
    if not known:
        return said
    version = next((one for one in known if "candidate" in one.aliases), known[-1])
    found = reviews.get(f"clr-{version.task}/{version.version}", ())
    said["review"] = version.review
    said["approvals"] = (
        str(tally(session, with_reviews(version, found), policy))
        if found
        else version.tags.get("clr.approvals")  # a ledger that is elsewhere is told by the tags
        or f"0 of {policy.quorum_for(version.task)}"
    )
    said["promotion"] = version.tags.get(PROMOTION)
    serving = next((one for one in known if champion and one.version == champion.version), None)
    if serving is not None:
        said["evidence"] = _evidence(serving, reviews)
    return said


def _evidence(champion: Version, reviews: Mapping[str, tuple[Review, ...]]) -> str | None:
    """Return how the people are known who approved a champion, the strongest; None: nobody is."""
    from clr.registry.acts import AUTHENTICATED
    from clr.registry.reviews import APPROVED

    kinds = {
        one.authentication
        for one in reviews.get(f"clr-{champion.task}/{champion.version}", ())
        if one.decision == APPROVED
        and one.adapter == champion.adapter_digest
        and one.source in ("", champion.source)
    }
    return AUTHENTICATED if AUTHENTICATED in kinds else min(kinds, default=None)


def _reviews(session: Session, warnings: list[str]) -> dict[str, tuple[Review, ...]]:
    from clr.registry.reviews import every_review
    from flows import retained

    try:
        warnings += retained.warnings(session)
        return every_review(session.ledger)
    except ClrError as error:  # what serves is told all the same
        warnings.append(f"THE LEDGER CANNOT BE READ: {error}")
        return {}


def _warnings(session: Session, policy: Policy) -> list[str]:
    from clr.registry.roles import warnings

    if session.settings.registry:
        return list(warnings(policy))
    # without a server there are no users that a policy could speak of
    return [one for one in warnings(policy) if not policy.four_eyes and "FOUR EYES" in one]


def has_registry(session: Session) -> bool:
    """Say whether there is a registry to ask; opening one would make it."""
    return bool(session.settings.registry) or (session.settings.state / "mlflow.db").exists()


def _services(session: Session, health: Result) -> Result:
    url = redact(session.settings.registry) or f"embedded, {session.settings.state / 'mlflow.db'}"
    others = {name: one["address"] for name, one in health.items() if one["address"]}
    return {**others, "registry": url}
