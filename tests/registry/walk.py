"""A long walk of random people through a small registry; most of what they do makes sense."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random

from clr.registry.acts import Act, Kind
from clr.registry.roles import ROLES, Policy, TaskReview
from clr.registry.trial import Trial
from tests.registry.mutants import Decide
from tests.registry.oracle import broken, broken_by
from tests.registry.small_registry import ADAPTER, RELEASE, RELEASES, Manifest, Registry, Stored

PEOPLE = {
    "tess": {"trainer"}, "alice": {"reviewer"}, "bob": {"reviewer"}, "ada": {"admin"},
    "carol": {"trainer", "reviewer"}, "ruth": {"release"}, "otto": {"auditor"},
    "max": set(ROLES), "nina": set(),
}  # fmt: skip
USERS = {name: frozenset(roles) for name, roles in PEOPLE.items() if roles}
HOUSE = Policy(users=USERS)
HOUSES = (
    HOUSE,
    replace(HOUSE, quorum=2),
    replace(HOUSE, four_eyes=False),
    replace(HOUSE, users={**USERS, "alice": frozenset({"trainer"}), "bob": frozenset()}),
    replace(HOUSE, tasks={"a": TaskReview(2), "b": TaskReview(reviewers=frozenset({"carol"}))}),
)
REVIEWERS = ("alice", "bob", "carol", "max")
TASKS = ("a", "b", "c")
TAGS = (
    "review", "Review", "ｒｅｖｉｅｗ", "rеview", "review.reason", "clr.verdict", "clr_verdict",
    "clr.created_by", "clr.gate_release", "clr.gate_digest", "clr.promotion",
    "clr.trial",
    "clr.adapter_digest", "mlflow.prompt.is_prompt", "note",
)  # fmt: skip
WORDS = ("approved", " Approved ", "承認", "rejected", "pending", "passed", "yes", "x" * 6000)
ALIASES = ("candidate", "challenger", "champion", "previous", "Champion", "chаmpion", "prod")
PLACES = ("{}", "{}/../file", "/{}", "{}%2e", f"2/models/m-{'f' * 32}/artifacts/file")


class Broken(Exception):
    """A rule was broken; the last acts are told."""


class Walk:
    """One registry and the people around it."""

    def __init__(self, seed: int, judge: Decide) -> None:
        self.random, self.judge = Random(seed), judge
        self.registry = Registry(self.random.choice(HOUSES))
        self.written: dict[str, str] = {}
        self.trace: list[str] = []
        self.count: Counter[tuple[Kind, bool]] = Counter()
        self.moves: Counter[str] = Counter()  # of the alias that decides what serves

    def walk(self, steps: int) -> None:
        """Take so many steps.

        Raises:
            Broken: something was allowed that breaks a rule.
        """
        sensible = (self.register, self.push, self.push, self.push, self.settle, self.back,
                    self.compare)  # fmt: skip
        others = (self.anything, self.anything, self.clear, self.outside)
        for _ in range(steps):
            self.random.choice(sensible if self.random.random() < 0.6 else others)()

    def ask(self, who: str, kind: Kind, **about: object) -> bool:
        """Let `who` try something; it is done if it is allowed."""
        act = Act(kind, **about)  # type: ignore[arg-type]
        registry = self.registry
        state, policy = registry.state(act), registry.policy
        decision = self.judge(act, policy.principal(who), state, policy)
        self.count[kind, decision.allowed] += 1
        if not decision.allowed:
            return False
        self.trace.append(f"{who}: {act}"[:400])
        if kind is not Kind.READ and (wrong := broken_by(registry, act, who)):
            self.fail(wrong)
        if (act.model, act.name, kind) == (RELEASES, "champion", Kind.SET_ALIAS) and state.target:
            new = "promoted" if state.joining else "retired"
            self.moves["back" if state.target.served else new] += 1
        registry.do(act, who, decision)
        if kind is Kind.CREATE_VERSION and registry.registered(act.source):
            self.written.setdefault(act.source, registry.files.get(act.source, ""))
        if wrong := broken(registry, self.written):
            self.fail(wrong)
        return True

    def fail(self, wrong: str) -> None:
        raise Broken("\n".join([wrong, *self.trace[-12:]]))

    # things that people ought to do, with something left out now and then

    def register(self) -> None:
        """A trainer registers a version, mostly of what passed against what serves."""
        random, registry = self.random, self.registry
        model = f"clr-{random.choice(TASKS)}"
        who = random.choice(("tess", "carol", "max", self.anybody()))
        if model not in registry.models:
            self.ask(who, Kind.CREATE_MODEL, model=model)
        source, digest = registry.upload()
        serving = registry.serving()
        tags = {
            ADAPTER: digest if random.random() < 0.95 else self.a_digest(),
            "clr.verdict": "passed" if random.random() < 0.9 else "refused",
            "clr.gate_release": serving.digest if serving and random.random() < 0.9 else "",
            "clr.key": f"key{random.randrange(40)}",
        }
        if random.random() < 0.1:
            tags[random.choice(TAGS)] = random.choice(WORDS)
        if self.ask(who, Kind.CREATE_VERSION, model=model, source=source, tags=tags):
            number = max(registry.models[model], default=0)
            self.ask(who, Kind.SET_ALIAS, model=model, version=number, name="candidate")

    def push(self) -> None:
        """A version is reviewed, judged again, written into a release, and made to serve."""
        random, registry = self.random, self.registry
        model, version = self.a_version()
        about = {"model": model, "version": version}
        able = random.choice((REVIEWERS, REVIEWERS, sorted(PEOPLE)))
        for who in random.sample(able, random.randrange(4)):
            word = "rejected" if random.random() < 0.05 else random.choice(("Approved", "承認"))
            self.ask(who, Kind.SET_VERSION_TAG, name="review", value=word, **about)
            if random.random() < 0.1:
                self.outside()
        serving = registry.serving()
        if random.random() < 0.6:
            digest = serving.digest if serving else ""
            name = {"name": "clr.gate_release", "value": digest}
            self.ask("ruth", Kind.SET_VERSION_TAG, **name, **about)
        if random.random() < 0.1:
            self.anything()
        if number := self.write(model, version):
            self.ask("ruth", Kind.SET_ALIAS, model=RELEASES, version=number, name="previous")
            mover = "ruth" if random.random() < 0.9 else self.anybody()
            self.ask(mover, Kind.SET_ALIAS, model=RELEASES, version=number, name="champion")
            self.settle()

    def compare(self) -> None:
        """A trial of a version is started, or ended."""
        random, (model, version) = self.random, self.a_version()
        who, about = "ruth" if random.random() < 0.8 else self.anybody(), {"model": model}
        share = random.choice((0.0, 0.05, 0.1, 0.5))
        told = Trial("0" * 32, share, self.a_digest(), "2026-01-01T00:00:00Z").text()
        self.ask(who, Kind.SET_VERSION_TAG, name="clr.trial", value=told, version=version, **about)
        self.ask(who, Kind.SET_ALIAS, name="challenger", version=version, **about)
        if random.random() < 0.5:
            self.ask(who, Kind.DELETE_ALIAS, name="challenger", **about)

    def write(self, model: str, version: int) -> int:
        """The service writes a release; now and then one that nobody should let serve."""
        random, registry = self.random, self.registry
        serving, task = registry.serving(), model.removeprefix("clr-")
        facts = registry.version(model, version)
        before = dict(serving.tasks) if serving else {}
        tasks = {**before, task: (version, facts.adapter if facts else self.a_digest())}
        previous, backbone = serving.digest if serving else "", "backbone"
        other = random.choice(TASKS)
        match random.choice(("right",) * 6 + ("chain", "two", "swap", "bytes", "retire",
                             "same", "ghost", "backbone")):  # fmt: skip
            case "chain":
                previous = random.choice((self.a_digest(), ""))
            case "two":
                second = self.registry.version(f"clr-{other}", 1)
                tasks[other] = (1, second.adapter if second else self.a_digest())
            case "swap":
                tasks.pop(other, None)
            case "bytes":
                tasks[task] = (version, self.a_digest())
            case "retire":
                tasks = {name: ref for name, ref in before.items() if name != other}
            case "same":
                tasks = before
            case "ghost":
                tasks[task] = (99, self.a_digest())
            case "backbone":
                backbone = "another"
        if RELEASES not in registry.models:
            self.ask("ruth", Kind.CREATE_MODEL, model=RELEASES)
        source, digest = registry.upload(Manifest(tasks, previous, backbone))
        tags = {RELEASE: digest}
        if not self.ask("ruth", Kind.CREATE_VERSION, model=RELEASES, source=source, tags=tags):
            return 0
        return max(registry.models[RELEASES])

    def settle(self) -> None:
        """The service repeats in the aliases what the release says, or something else."""
        serving = self.registry.serving()
        for task in TASKS:
            number = serving.tasks.get(task, (0, ""))[0] if serving else 0
            if self.random.random() < 0.05:
                number = max(self.registry.models.get(f"clr-{task}", {}), default=0)
            now = self.registry.aliases.get(f"clr-{task}", {}).get("champion", 0)
            about = {"model": f"clr-{task}"}
            if now and now != number:
                self.ask("ruth", Kind.SET_ALIAS, name="previous", version=now, **about)
                self.ask("ruth", Kind.DELETE_ALIAS, name="champion", **about)
            if number and now != number:
                self.ask("ruth", Kind.SET_ALIAS, name="champion", version=number, **about)

    def back(self) -> None:
        """Somebody makes another release serve, one that served before or not."""
        number = self.random.choice((*self.registry.models.get(RELEASES, ()), 1))
        who = self.random.choice(("ruth", "max", self.anybody()))
        self.ask(who, Kind.SET_ALIAS, model=RELEASES, version=number, name="champion")
        self.settle()

    def clear(self) -> None:
        """Somebody clears away what he thinks nobody needs."""
        who = self.random.choice(("ada", "max", self.anybody()))
        model, version = self.a_version()
        if self.random.random() < 0.3:
            model = RELEASES
            version = self.random.choice((*self.registry.models.get(RELEASES, ()), 1))
        kind = Kind.DELETE_MODEL if self.random.random() < 0.2 else Kind.DELETE_VERSION
        self.ask(who, kind, model=model, version=version)

    # things that just happen

    def outside(self) -> None:
        """The policy is edited, or a disk or an intruder changes bytes."""
        if self.random.random() < 0.6:
            self.registry.policy = self.random.choice(HOUSES)
            return
        model, number = self.a_version()
        model = RELEASES if self.random.random() < 0.2 else model
        if found := self.registry.stored(model, number):
            self.swap(found, ever=(model, number) in self.registry.ever or model == RELEASES)

    def swap(self, found: Stored, *, ever: bool) -> None:
        """Whoever has the disk or the database changes a file, its digest, or the version."""
        digest, deed = self.a_digest(), self.random.choice(("file", "digest", "version", "source"))
        if deed in ("version", "source") and not ever:  # what served is gone then, as we know
            found.source = self.registry.upload()[0]
        if deed == "source":
            digest = found.tags.get(ADAPTER, digest)
        if deed in ("digest", "version"):
            found.tags[ADAPTER] = digest
        self.registry.files[found.source] = self.written[found.source] = digest

    def anything(self) -> None:
        """Anybody tries anything."""
        random, registry = self.random, self.registry
        model, version = self.a_version()
        sources = sorted(registry.files) or ["models:/m-0"]
        place = registry.path(random.choice(sources))
        kind = random.choice(list(Kind))
        names: tuple[str, ...] = (*TAGS, *ALIASES, *PEOPLE, "clr-renamed")
        if kind in (Kind.SET_ALIAS, Kind.DELETE_ALIAS):
            names = ALIASES
        elif kind in (Kind.SET_VERSION_TAG, Kind.DELETE_VERSION_TAG, Kind.SET_MODEL_TAG):
            names = TAGS
        elif kind in (Kind.MANAGE_USER, Kind.SET_PASSWORD):
            names = (*("guest", "nina") * 4, *PEOPLE)
        source = random.choice((*sources, f"models:/{model}/{version}"))
        digest = registry.files.get(source, "")
        self.ask(
            self.anybody(),
            kind,
            model=random.choice((model, model, model, RELEASES, "Clr-a", "clr-new", "other")),
            version=version,
            name=random.choice(names),
            value=random.choice((*WORDS, self.a_digest())),
            tags=random.choice(({}, {random.choice(TAGS): "approved"}, {ADAPTER: digest})),
            source=source,
            path=random.choice(PLACES).format(place),
            endpoint=random.choice(("create_user", "delete_user", "grant", "unheard_of")),
        )

    def anybody(self) -> str:
        return self.random.choice(sorted(PEOPLE))

    def a_version(self) -> tuple[str, int]:
        models = sorted(self.registry.models.keys() - {RELEASES}) or ["clr-a"]
        model = self.random.choice(models)
        numbers = sorted(self.registry.models.get(model, ()))[-3:] or [1]
        return model, self.random.choice(numbers)

    def a_digest(self) -> str:
        return f"sha256:{self.registry.new():064x}"
