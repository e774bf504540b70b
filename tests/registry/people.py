"""People and facts for the specifications of the policy, and ways to ask it."""

from __future__ import annotations

from clr.registry.acts import Act, Decision, Kind, ReleaseFacts, Review, State, VersionFacts
from clr.registry.policy import decide
from clr.registry.roles import ROLES, Policy

A, B, C = ("sha256:" + letter * 64 for letter in "abc")
R1, R2 = ("sha256:" + digit * 64 for digit in "12")
SOURCE, OTHER = "models:/m-1", "models:/m-2"
PEOPLE = {
    "tess": {"trainer"},
    "alice": {"reviewer"},
    "bob": {"reviewer"},
    "carol": {"trainer", "reviewer"},
    "ruth": {"release"},
    "ada": {"admin"},
    "otto": {"auditor"},
    "all": set(ROLES),
    "odd": {"auditor", "trainer"},
    "nina": set(),
}
POLICY = Policy(users={name: frozenset(roles) for name, roles in PEOPLE.items()})
WORKERS = {"tess", "carol", "ruth", "ada", "all", "odd"}
VERSION = VersionFacts(
    "clr-animals", 1, creator="tess", verdict="passed", adapter=A, actual=A, source=SOURCE
)
SERVING = ReleaseFacts(1, R1, R1, "", {"vehicles": (1, C)}, served=True)
NEXT = ReleaseFacts(2, R2, R2, R1, {"vehicles": (1, C), "animals": (1, A)})
NOW = State(version=VERSION, serving=SERVING)


def ask(
    who: str, kind: Kind, state: State = NOW, policy: Policy = POLICY, **act: object
) -> Decision:
    about = {"model": "clr-animals", "version": 1, "endpoint": "_handler", **act}
    decision = decide(Act(kind, **about), policy.principal(who), state, policy)  # type: ignore[arg-type]
    assert decision.allowed != bool(decision.sentence), "a sentence exactly where it is refused"
    if decision.sentence:
        assert_sentence(decision.sentence)
    return decision


def assert_sentence(said: str) -> None:
    """A refusal is one to three whole sentences that fit into an error box."""
    assert 50 < len(said) < 420, said
    assert said.endswith("."), said
    assert all(c.isprintable() for c in said), said


def allowed(who: str, kind: Kind, state: State = NOW, **act: object) -> bool:
    return ask(who, kind, state, **act).allowed  # type: ignore[arg-type]


def refused(who: str, kind: Kind, state: State = NOW, **act: object) -> str:
    decision = ask(who, kind, state, **act)  # type: ignore[arg-type]
    assert not decision.allowed
    return decision.sentence


def who_may(kind: Kind, state: State = NOW, **act: object) -> set[str]:
    return {who for who in PEOPLE if allowed(who, kind, state, **act)}


def approve(who: str, adapter: str = A, source: str = SOURCE, decision: str = "approved") -> Review:
    return Review(who, decision, adapter, source, authentication="mlflow-basic-auth")
