"""What the server itself writes: who registered a version, and what a review amounts to."""

from __future__ import annotations

from mlflow.entities.model_registry import ModelVersionTag
from mlflow.protos import model_registry_pb2 as proto

from clr.audit.ledger import Ledger
from clr.registry.acts import AUTHENTICATED, Act, Decision, Kind
from clr.registry.reviews import APPROVED, REJECTED, tally
from clr.registry.roles import Policy
from clr.registry.server.asked import Malformed
from clr.registry.server.facts import version_facts
from clr.registry.server.inside import registry_store, request_message
from clr.registry.server.readers import body
from clr.registry.store import RELEASE_MODEL
from clr.registry.versions import PENDING

CREATED_BY = "clr.created_by"


def request_body(act: Act, user: str, decision: Decision) -> None:
    """Put the server's own tags into a creation, and the plain word into a review.

    They are stored in the same transaction as the rest. Flask keeps the parsed body, so the
    handler reads the very object that is changed here; that it does is checked.

    Raises:
        Malformed: the handler would not see the change.
    """
    if act.kind is Kind.CREATE_VERSION:
        _add_tags({CREATED_BY: user} | ({} if act.model == RELEASE_MODEL else {"review": PENDING}))
    elif act.kind is Kind.SET_VERSION_TAG and decision.value:
        body()["value"] = decision.value
        _see(request_message(proto.SetModelVersionTag).value == decision.value)


def _add_tags(tags: dict[str, str]) -> None:
    raw = body()
    others = [one for one in raw.get("tags") or [] if one.get("key") not in tags]
    raw["tags"] = [*others, *({"key": k, "value": v} for k, v in tags.items())]
    seen = request_message(proto.CreateModelVersion).tags
    _see(tags.items() <= {tag.key: tag.value for tag in seen}.items())


def _see(there: bool) -> None:
    if not there:
        raise Malformed("Send the request's body as one plain JSON object.")


def review_tags(act: Act, ledger: Ledger, policy: Policy) -> None:
    """Write how far the review of a version is: by whom, when, and whether it is enough.

    Until enough people have approved, ``review`` says ``pending`` again. Decisions that were
    all taken without a server have tags of their own.
    """
    version = version_facts(act.model, act.version, None, ledger)
    if version is None:
        return
    count = tally(version, policy)
    decided = [one for one in version.reviews if one.source == version.source]
    if not any(one.authentication == AUTHENTICATED for one in decided):
        return
    people = dict.fromkeys(one.reviewer for one in decided)
    word = REJECTED if count.rejections else APPROVED if count.reached else PENDING
    tags: dict[str, str] = {
        "clr.reviewed_by": ", ".join(people),
        "clr.reviewed_at": decided[-1].time,
        "clr.approvals": str(count),
        "review": word,
    }
    store = registry_store()
    for key, value in tags.items():
        store.set_model_version_tag(
            name=act.model,
            version=str(act.version),
            tag=ModelVersionTag(key, value),  # type: ignore[no-untyped-call]
        )
