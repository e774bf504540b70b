"""Look up what the policy needs to know about an act: registry, files, ledger.

What served once is told by the ledger, through acts that the policy allows only then: the
alias ``previous`` is put on the release in force, ``champion`` of a task on the version that
the release in force names. Embedded mode writes ``release.activated`` instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlflow.exceptions import MlflowException

from clr.audit.ledger import Ledger
from clr.core.files import sha256_bytes
from clr.errors import IntegrityBroken
from clr.registry.acts import Act, Kind, ReleaseFacts, State, VersionFacts
from clr.registry.names import ACTIVATED, reserved
from clr.registry.release import RELEASE_FILE, parse_release
from clr.registry.reviews import read_reviews, registrar
from clr.registry.roles import Policy
from clr.registry.server.asked import Asked, Refusal
from clr.registry.server.files import (
    actual,
    any_registered,
    experiment_registered,
    registered_bytes,
)
from clr.registry.server.inside import registry_store, tracking_store
from clr.registry.store import KEY_TAG, RELEASE_MODEL, model_name
from clr.registry.versions import CHAMPION, PREVIOUS

_TRACKING = {
    Kind.TRACK,
    Kind.FINISH_RUN,
    Kind.DELETE_TRACKED,
    Kind.WRITE_FILE,
    Kind.DELETE_FILE,
}
_USERS = {Kind.MANAGE_USER, Kind.SET_PASSWORD}
_BLIND = {
    Kind.READ,
    Kind.EXPORT,
    Kind.OTHER,
    Kind.WEBHOOK,
    Kind.CREATE_MODEL,
    Kind.UPDATE_MODEL,
    Kind.RENAME_MODEL,
    Kind.SET_MODEL_TAG,
    Kind.DELETE_MODEL_TAG,
    Kind.COPY_VERSION,
    Kind.UPDATE_VERSION,
    Kind.STAGE_VERSION,
}
_FREE = {Kind.SET_VERSION_TAG, Kind.DELETE_VERSION_TAG}


def gather(asked: Asked, ledger: Ledger, policy: Policy) -> State:
    """Return what is known about the things that `asked` is about.

    Raises:
        Refusal: a new version names a run that did not make its logged model.
        MlflowException: the registry cannot be read.
    """
    act = asked.act
    if act.kind in _BLIND:
        return State()
    if act.kind in _USERS:
        return State(user_roles=policy.roles(act.name))
    if act.kind in _TRACKING:
        return State(registered=_registered(asked))
    if act.kind is Kind.CREATE_VERSION:
        _one_origin(asked)
        return State(actual=actual(act.model, act.source))
    if act.kind in _FREE and not reserved(act.name):
        return State()
    return _about_model(act, ledger)


def _registered(asked: Asked) -> bool:
    if asked.experiment:
        return experiment_registered(asked.experiment)
    if asked.act.kind is Kind.DELETE_FILE and not asked.ids:
        return True  # a folder above runs and models: what is registered may lie in it
    return any_registered(asked.ids)


def _one_origin(asked: Asked) -> None:
    """Refuse a version whose source, logged model and run do not belong together."""
    act = asked.act
    if act.source != f"models:/{asked.model_id}":
        return  # the policy says which sources there are
    try:
        made_by = tracking_store().get_logged_model(asked.model_id).source_run_id
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return
    if asked.run_id != made_by:
        raise Refusal(
            f"The logged model {asked.model_id} was made by run {made_by}, not by "
            f"{asked.run_id[:40] or 'no run'}. Register it with the run that made it: its "
            "evidence is what a reviewer reads.",
            asked,
        )


def _about_model(act: Act, ledger: Ledger) -> State:
    aliases = _aliases(act.model)
    serving = release_at(aliases_of_release(act, aliases).get(CHAMPION, 0), ledger)
    if act.kind is Kind.DELETE_MODEL:
        return _whole_model(act.model, aliases, serving, ledger)
    version = version_facts(act.model, act.version, serving, ledger) if act.version else None
    if act.model != RELEASE_MODEL:
        return State(version=version, aliases=aliases, serving=serving)
    target = release_at(act.version, ledger) if act.version else None
    joining = _joining(target, serving, ledger) if act.kind is Kind.SET_ALIAS else {}
    return State(version, aliases, serving, target, joining)


def aliases_of_release(act: Act, aliases: Mapping[str, int]) -> Mapping[str, int]:
    """Return the aliases of ``clr-release``, which are `aliases` where the act is about it."""
    return aliases if act.model == RELEASE_MODEL else _aliases(RELEASE_MODEL)


def _aliases(model: str) -> dict[str, int]:
    from mlflow.store.model_registry.dbmodels.models import SqlRegisteredModelAlias as Alias

    # asking for the model would read its latest versions with their tags as well
    with registry_store().ManagedSessionMaker() as session:
        query = session.query(Alias.alias, Alias.version).filter(Alias.name == model)
        return {str(alias): int(number) for alias, number in query}


def _found(look: Any) -> Any | None:
    """Return what `look` finds; None where MLflow says that there is no such thing."""
    try:
        return look()
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def stored_version(model: str, number: int) -> Any | None:
    """Return MLflow's version, or None."""
    store = registry_store()
    return _found(lambda: store.get_model_version(name=model, version=str(number)))


def version_facts(
    model: str, number: int, serving: ReleaseFacts | None, ledger: Ledger
) -> VersionFacts | None:
    """Return the facts about a version; None where there is none."""
    found = stored_version(model, number)
    if found is None:
        return None
    tags, source = dict(found.tags or {}), str(found.source or "")
    digest = "clr.release_digest" if model == RELEASE_MODEL else "clr.adapter_digest"
    return VersionFacts(
        model=model,
        number=number,
        creator=tags.get("clr.created_by", "")
        or registrar(ledger, model, number, tags.get("clr.adapter_digest", "")),
        verdict=tags.get("clr.verdict", ""),
        adapter=tags.get(digest, ""),
        actual=actual(model, source),
        source=source,
        gate_release=tags.get("clr.gate_release", ""),
        reviews=tuple(read_reviews(ledger, model, number)),
        ever_champion=bool({CHAMPION, PREVIOUS} & set(found.aliases or ()))
        or _ever_champion(model, number, serving, ledger),
        twin=_twin(model, number, tags.get(KEY_TAG, "")),
    )


def _twin(model: str, number: int, key: str) -> bool:
    """Say whether an older version of the model has the same idempotency key."""
    from mlflow.store.model_registry.dbmodels.models import SqlModelVersionTag as Tag

    if not key:
        return False
    with registry_store().ManagedSessionMaker() as session:
        query = session.query(Tag.version).filter(
            Tag.name == model, Tag.key == KEY_TAG, Tag.value == key, Tag.version < number
        )
        older = [int(row[0]) for row in query]
    return any(stored_version(model, one) is not None for one in older)


def _ever_champion(model: str, number: int, serving: ReleaseFacts | None, ledger: Ledger) -> bool:
    if model == RELEASE_MODEL:
        return _served(number, serving, ledger)
    named = serving.tasks.get(model.removeprefix("clr-")) if serving else None
    if named is not None and named[0] == number:
        return True
    moved = ledger.entries(f"{model}/{number}", Kind.SET_ALIAS.value)
    return any(entry.payload.get("name") in (CHAMPION, PREVIOUS) for entry in moved)


def _served(number: int, serving: ReleaseFacts | None, ledger: Ledger) -> bool:
    if serving is not None and serving.number == number:
        return True
    subject = f"{RELEASE_MODEL}/{number}"
    if any(True for _ in ledger.entries(subject, ACTIVATED)):
        return True
    moved = ledger.entries(subject, Kind.SET_ALIAS.value)
    return any(entry.payload.get("name") == PREVIOUS for entry in moved)


def _whole_model(
    model: str, aliases: Mapping[str, int], serving: ReleaseFacts | None, ledger: Ledger
) -> State:
    """Return what is known about a model as a whole, all of its versions looked at."""
    from mlflow.store.model_registry.dbmodels.models import SqlModelVersion

    with registry_store().ManagedSessionMaker() as session:
        query = session.query(SqlModelVersion.version).filter(SqlModelVersion.name == model)
        numbers = [int(row[0]) for row in query]
    return State(
        aliases=aliases,
        serving=serving,
        model_ever_champion=bool({CHAMPION, PREVIOUS} & aliases.keys())
        or any(_ever_champion(model, one, serving, ledger) for one in numbers),
        model_reviewed=any(read_reviews(ledger, model, one) for one in numbers),
    )


def next_number(model: str) -> int:
    """Return the number that the next version of `model` gets, as MLflow counts."""
    from mlflow.store.model_registry.dbmodels.models import SqlModelVersion
    from sqlalchemy import func

    with registry_store().ManagedSessionMaker() as session:
        newest = session.query(func.max(SqlModelVersion.version)).filter(
            SqlModelVersion.name == model
        )
        return int(newest.scalar() or 0) + 1


def release_at(number: int, ledger: Ledger) -> ReleaseFacts | None:
    """Return the release with this number; None where there is none.

    A release whose file is damaged has no tasks, and an `actual` that is not its digest.
    """
    found = stored_version(RELEASE_MODEL, number) if number else None
    if found is None:
        return None
    tags = dict(found.tags or {})
    data = registered_bytes(str(found.source or ""), RELEASE_FILE)
    tasks: dict[str, tuple[int, str]] = {}
    previous = backbone = ""
    if data is not None:
        try:
            release = parse_release(data, version=number)
            previous, backbone = release.previous, release.backbone
            tasks = {t: (ref.version, ref.adapter_digest) for t, ref in release.tasks.items()}
        except IntegrityBroken:
            pass
    champion = CHAMPION in (found.aliases or ())
    return ReleaseFacts(
        number=number,
        digest=tags.get("clr.release_digest", ""),
        actual="" if data is None else sha256_bytes(data),
        previous=previous,
        tasks=tasks,
        served=champion or _served(number, None, ledger),
        backbone=backbone,
    )


def _joining(
    target: ReleaseFacts | None, serving: ReleaseFacts | None, ledger: Ledger
) -> dict[str, VersionFacts | None]:
    """Return the facts of every version that `target` names and `serving` does not."""
    before = serving.tasks if serving else {}
    named = target.tasks if target else {}
    return {
        task: version_facts(model_name(task), ref[0], serving, ledger)
        for task, ref in named.items()
        if before.get(task) != ref
    }
