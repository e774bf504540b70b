"""A registry small enough to hold in the head: models, versions, tags, aliases, bytes, ledger.

It does whatever it is told, as MLflow does, and it answers what the policy asks. Numbers of
deleted versions are given out again, as MLflow gives them; sources never are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from clr.registry.acts import Act, Decision, ReleaseFacts, Review, State, VersionFacts
from clr.registry.roles import Policy

RELEASES = "clr-release"
ADAPTER, RELEASE = "clr.adapter_digest", "clr.release_digest"


@dataclass(frozen=True)
class Manifest:
    """What the bytes of a ``release.json`` say."""

    tasks: Mapping[str, tuple[int, str]]
    previous: str
    backbone: str = "backbone"


@dataclass
class Stored:
    """A registered version."""

    creator: str
    source: str
    tags: dict[str, str]
    card: str = "card"
    stage: str = ""


@dataclass
class Registry:
    """All that is stored; `served` and `ever` are history, which no act can undo."""

    policy: Policy
    models: dict[str, dict[int, Stored]] = field(default_factory=dict)
    model_tags: dict[str, dict[str, str]] = field(default_factory=dict)
    aliases: dict[str, dict[str, int]] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)  # digest of the file of a source
    manifests: dict[str, Manifest] = field(default_factory=dict)  # by digest
    ledger: list[tuple[str, int, Review]] = field(default_factory=list)
    served: dict[int, str] = field(default_factory=dict)  # release: its source
    ever: dict[tuple[str, int], str] = field(default_factory=dict)  # champion: its source
    count: int = 0

    def new(self) -> int:
        """Return a number that was never given out."""
        self.count += 1
        return self.count

    def upload(self, manifest: Manifest | None = None) -> tuple[str, str]:
        """Put a file where a new logged model is; return (source, digest)."""
        source, digest = f"models:/m-{self.new():032x}", f"sha256:{self.new():064x}"
        if manifest is not None:
            digest = next((d for d, m in self.manifests.items() if m == manifest), digest)
            self.manifests[digest] = manifest
        self.files[source] = digest
        return source, digest

    def path(self, source: str) -> str:
        """Return where the file of a source is in the artifact store."""
        return f"1/models/{source.removeprefix('models:/')}/artifacts/file"

    def stored(self, model: str, number: int) -> Stored | None:
        """Return a version, or None."""
        return self.models.get(model, {}).get(number)

    def registered(self, source: str) -> bool:
        """Say whether a version stands on this source."""
        return any(v.source == source for m in self.models.values() for v in m.values())

    def serving(self) -> ReleaseFacts | None:
        """Return the release in force."""
        return self.release(self.aliases.get(RELEASES, {}).get("champion", 0))

    def reviews(self, model: str, number: int) -> tuple[Review, ...]:
        """Return what was decided about this number of this model, whatever it was then."""
        return tuple(one for m, n, one in self.ledger if (m, n) == (model, number))

    # what the policy asks

    def version(self, model: str, number: int) -> VersionFacts | None:
        """Return the facts about a version."""
        found = self.stored(model, number)
        if found is None:
            return None
        tags, key = found.tags, found.tags.get("clr.key")
        older = (v for n, v in self.models[model].items() if n < number)
        return VersionFacts(
            model=model,
            number=number,
            creator=tags.get("clr.created_by", ""),
            verdict=tags.get("clr.verdict", ""),
            adapter=tags.get(RELEASE if model == RELEASES else ADAPTER, ""),
            actual=self.files.get(found.source, ""),
            source=found.source,
            gate_release=tags.get("clr.gate_release", ""),
            reviews=self.reviews(model, number),
            ever_champion=(model, number) in self.ever,
            twin=key is not None and any(v.tags.get("clr.key") == key for v in older),
        )

    def release(self, number: int) -> ReleaseFacts | None:
        """Return the facts about a release."""
        found = self.stored(RELEASES, number)
        if found is None:
            return None
        actual = self.files.get(found.source, "")
        says = self.manifests.get(actual, Manifest({}, "", ""))
        return ReleaseFacts(
            number=number,
            digest=found.tags.get(RELEASE, ""),
            actual=actual,
            previous=says.previous,
            tasks=says.tasks,
            served=number in self.served,
            backbone=says.backbone,
        )

    def state(self, act: Act) -> State:
        """Return what is known about the things `act` is about."""
        serving = self.serving()
        target = self.release(act.version) if act.model == RELEASES else None
        before = serving.tasks if serving else {}
        mine = self.models.get(act.model, {})
        about = act.path.split("/")
        return State(
            version=self.version(act.model, act.version),
            aliases=dict(self.aliases.get(act.model, {})),
            serving=serving,
            target=target,
            joining={
                task: self.version(f"clr-{task}", number)
                for task, (number, digest) in (target.tasks if target else {}).items()
                if before.get(task) != (number, digest)
            },
            model_ever_champion=any(model == act.model for model, _ in self.ever)
            or (act.model == RELEASES and bool(self.served)),
            model_reviewed=any(self.reviews(act.model, number) for number in mine),
            actual=self.files.get(act.source, ""),
            registered=len(about) > 2 and self.registered(f"models:/{about[2]}"),
            user_roles=self.policy.roles(act.name),
        )

    # what an act does

    def do(self, act: Act, who: str, decision: Decision) -> None:
        """Do an allowed act, as MLflow and the server around it would."""
        doing = getattr(self, "_" + act.kind.name.lower(), None)
        if doing is not None:
            doing(act, who, decision)

    def _create_model(self, act: Act, who: str, decision: Decision) -> None:
        self.models.setdefault(act.model, {})
        self.model_tags.setdefault(act.model, {}).update(act.tags)

    def _delete_model(self, act: Act, who: str, decision: Decision) -> None:
        self.models.pop(act.model, None)
        self.aliases.pop(act.model, None)
        self.model_tags.pop(act.model, None)

    def _rename_model(self, act: Act, who: str, decision: Decision) -> None:
        if act.model in self.models and act.name not in self.models:
            self.models[act.name] = self.models.pop(act.model)

    def _set_model_tag(self, act: Act, who: str, decision: Decision) -> None:
        self.model_tags.setdefault(act.model, {})[act.name] = act.value

    def _create_version(self, act: Act, who: str, decision: Decision) -> None:
        if act.model not in self.models:
            return
        born = {} if act.model == RELEASES else {"review": "pending"}
        tags = {**born, **act.tags, "clr.created_by": who}
        mine = self.models[act.model]
        mine[max(mine, default=0) + 1] = Stored(who, act.source, tags)

    def _copy_version(self, act: Act, who: str, decision: Decision) -> None:
        model, _, number = act.source.removeprefix("models:/").partition("/")
        found = self.stored(model, int(number))
        if found is not None and act.model in self.models:
            mine = self.models[act.model]
            mine[max(mine, default=0) + 1] = Stored(who, found.source, dict(found.tags))

    def _update_version(self, act: Act, who: str, decision: Decision) -> None:
        if found := self.stored(act.model, act.version):
            found.card = act.value

    def _stage_version(self, act: Act, who: str, decision: Decision) -> None:
        if found := self.stored(act.model, act.version):
            found.stage = act.value

    def _delete_version(self, act: Act, who: str, decision: Decision) -> None:
        if self.models.get(act.model, {}).pop(act.version, None):
            mine = self.aliases.get(act.model, {})
            for name in [name for name, number in mine.items() if number == act.version]:
                del mine[name]

    def _set_version_tag(self, act: Act, who: str, decision: Decision) -> None:
        found = self.stored(act.model, act.version)
        if found is None:
            return
        found.tags[act.name] = decision.value or act.value
        if act.name == "review" and decision.value:
            bound = (found.tags.get(ADAPTER, ""), found.source)
            review = Review(who, decision.value, *bound, authentication="mlflow-basic-auth")
            self.ledger.append((act.model, act.version, review))

    def _delete_version_tag(self, act: Act, who: str, decision: Decision) -> None:
        if found := self.stored(act.model, act.version):
            found.tags.pop(act.name, None)

    def _set_alias(self, act: Act, who: str, decision: Decision) -> None:
        if self.stored(act.model, act.version) is None:
            return
        self.aliases.setdefault(act.model, {})[act.name] = act.version
        if (act.model, act.name) == (RELEASES, "champion"):
            self._serve(act.version)

    def _serve(self, number: int) -> None:
        self.served[number] = self.models[RELEASES][number].source
        release = self.release(number)
        for task, (version, _) in (release.tasks if release else {}).items():
            found = self.stored(f"clr-{task}", version)
            self.ever.setdefault((f"clr-{task}", version), found.source if found else "")

    def _delete_alias(self, act: Act, who: str, decision: Decision) -> None:
        self.aliases.get(act.model, {}).pop(act.name, None)

    def _write_file(self, act: Act, who: str, decision: Decision) -> None:
        if (source := self._source(act.path)) in self.files:
            self.files[source] = act.value

    def _delete_file(self, act: Act, who: str, decision: Decision) -> None:
        self.files.pop(self._source(act.path), None)

    def _source(self, path: str) -> str:
        parts = [part for part in path.split("/") if part not in ("", ".", "..")]
        return f"models:/{parts[2]}" if len(parts) > 2 else ""
