"""The ledger of a registry server on another machine, for an auditor who has nothing but a user.

All rows are fetched and verified here, as those of a file are (`clr.audit.ledger.Ledger`). What
the server's owner could change for every reader alike, its keys and the end of the chain, is
compared with what was seen at the first look and at the last one, which this machine keeps.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import quote, urlsplit

import sqlalchemy as sa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from clr.audit.anchor import Anchor
from clr.audit.chain import Entry, Problem
from clr.audit.heads import keep_head, read_head
from clr.audit.ledger import Ledger
from clr.audit.part import MOST_ROWS, Part, parse_part
from clr.audit.personal import Disclosure
from clr.audit.signing import Head, Signer, trust, trusted_keys
from clr.audit.store import PERSONAL, TABLE, Store
from clr.errors import IntegrityBroken, ServiceUnavailable, UsageError
from clr.registry.acts import Kind
from clr.registry.faults import calling, redact
from clr.registry.roles import Policy, parse_policy

if TYPE_CHECKING:
    from clr.registry.store import Registry
    from clr.settings import Settings

LOG = logging.getLogger("clr")
LEDGER = "/api/2.0/clr/ledger"
EXPORTS = f"{LEDGER}/exports"

Fetch = Callable[[int], tuple[Part, str | None]]


def is_elsewhere(settings: Settings) -> bool:
    """Say whether the registry is a server's whose ledger is not here: no file, no database."""
    here = settings.ledger_url or settings.registry_file.exists()
    here = here or (settings.state / "ledger" / "ledger.db").exists()
    return bool(settings.registry_url) and not here


class ServedLedger(Ledger):
    """The ledger of a guarded registry server, read through it; `append` notes exports only."""

    def __init__(self, registry: Registry, state: Path) -> None:
        """Ask for nothing yet.

        Args:
            registry: guarded.
            state: ``CLR_HOME`` of whoever reads, where heads and keys seen are kept.
        """
        self._registry = registry
        self._seen = state / "audited" / quote(urlsplit(registry.uri).netloc.rpartition("@")[2], "")
        self._copy = _Copy(redact(registry.uri), self._fetch)
        super().__init__(self._copy, state / "keys", self._seen / "head.json", trailing=False)

    @property
    def policy(self) -> Policy:
        """The review policy of the server's workspace.

        Raises:
            UsageError: its file is not one.
            ServiceUnavailable: the server cannot be asked.
        """
        text = self._copy.load().policy
        return Policy() if text is None else parse_policy(text, f"The policy of {self._copy.name}")

    def head(self) -> Head | None:
        """Return the newest signed head that the server has.

        Raises:
            ServiceUnavailable: it cannot be asked.
            IntegrityBroken: it does not answer with a ledger.
        """
        return self._copy.load().part.head

    def verify(self, anchors: Sequence[Anchor] = ()) -> list[Problem]:
        """Fetch all rows anew; return what is broken in them, or since the last look."""
        self._copy.forget()
        try:
            last = read_head(self.head_path)
        except IntegrityBroken as error:
            return [Problem(0, "unreadable", error.message, error.fix)]
        seen = [Anchor(last, f"of your last look ({self.head_path})")] if last else []
        problems = super().verify([*anchors, *seen])
        if not problems and (newest := self._copy.load().newest):
            keep_head(self.head_path, newest)
        return [self._with_fix(one) for one in problems]

    def append(
        self,
        action: str,
        subject: str,
        payload: Mapping[str, Any] | None = None,
        *,
        actor: str,
        authentication: str,
        key: str | None = None,
    ) -> Entry:
        """Have the server note an export, under the name that it knows by password.

        Raises:
            UsageError: another act, or one that the server does not take.
            ServiceUnavailable: the server cannot be asked, or writes no ledger now.
        """
        if action != Kind.EXPORT.value:
            self._refuse(f"{action} of {subject}")
        answer = self._ask("POST", EXPORTS, json={"subject": subject, **(payload or {})})
        self._copy.forget()
        try:
            return Entry(**answer["entry"])
        except (TypeError, KeyError) as error:
            raise _strange(self._copy.name) from error

    def _key(self) -> Signer:
        self._refuse("other act")

    def _refuse(self, what: str) -> NoReturn:
        raise UsageError(
            f"The ledger is kept by {self._copy.name}, which takes no {what} from another machine.",
            fix="Do this on the server's machine. A machine that onboards needs the ledger itself: "
            "set CLR_LEDGER_URL.",
        )

    def _trusted(self) -> dict[str, Ed25519PublicKey]:
        """Return the keys of the first look; at the first look they are what the server says."""
        place = self._seen / "keys"
        if not place.is_dir() and (offered := self._copy.load().part.keys):
            _keep_keys(place, "".join(offered))
            LOG.warning(
                "First look at the ledger of %s: the key %s is trusted from now on. Compare it "
                "with the one that the server's owner names.",
                self._copy.name, ", ".join(trusted_keys(place)),
            )  # fmt: skip
        return trusted_keys(place)

    def _with_fix(self, problem: Problem) -> Problem:
        if problem.kind != "unknown-key":
            return problem
        fix = (
            f"Ask the server's owner, by another way than this server, whose key it is. If it is "
            f"in order, put its .pub file into {self._seen / 'keys'}."
        )
        return replace(problem, fix=fix)

    def _fetch(self, since: int) -> tuple[Part, str | None]:
        found = self._ask("GET", LEDGER, params={"since": since, "limit": MOST_ROWS})
        policy = found.get("policy")
        if policy is not None and not isinstance(policy, str):
            raise _strange(self._copy.name)
        return parse_part(found, since), policy

    def _ask(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        from mlflow.utils.credentials import get_default_host_creds
        from mlflow.utils.rest_utils import http_request, verify_rest_response

        uri, name = self._registry.uri, self._copy.name
        with calling(uri, "read the ledger" if method == "GET" else "note an export of an audit"):
            login = get_default_host_creds(uri)  # type: ignore[no-untyped-call]
            answer = http_request(login, path, method, **options)  # type: ignore[no-untyped-call]
            if answer.status_code == 404:
                raise ServiceUnavailable(
                    f"The registry {name} does not tell its ledger.",
                    fix="It is older than this command: ask for its upgrade.",
                )
            if answer.status_code == 400:
                raise UsageError(f"The registry {name} says: {answer.json().get('message')}")
            verify_rest_response(answer, path)
            found: dict[str, Any] = answer.json()
            return found


class _Loaded:
    """What the server told at one time."""

    def __init__(self, part: Part, policy: str | None) -> None:
        self.part, self.policy = part, policy
        self.newest: Head | None = None


class _Copy(Store):
    """All rows of the server in memory: nothing stays of what is erased there."""

    def __init__(self, name: str, fetch: Fetch) -> None:
        self.path, self.name = None, name
        self._fetch = fetch
        self._loaded: _Loaded | None = None

    def load(self) -> _Loaded:
        """Fetch everything, unless that was done."""
        if self._loaded is None:
            self.engine = sa.create_engine("sqlite://", poolclass=sa.StaticPool)
            with self._translated(), self.engine.begin() as connection:
                TABLE.create(connection)
                PERSONAL.create(connection)
                self._loaded = self._fill(connection)
        return self._loaded

    def _fill(self, connection: sa.Connection) -> _Loaded:
        part, policy = self._fetch(0)
        loaded = _Loaded(part, policy)
        personal: dict[str, Disclosure] = {}
        while part.rows:
            connection.execute(TABLE.insert(), list(part.rows))
            personal |= {one.ref: one for one in part.personal}
            last = part.rows[-1]
            loaded.newest = Head(last["seq"], last["hash"], last["key_id"], last["signature"])
            if not part.more:
                break
            part, _ = self._fetch(last["seq"])
        if personal:
            connection.execute(PERSONAL.insert(), [vars(one) for one in personal.values()])
        return loaded

    def forget(self) -> None:
        """Fetch everything anew at the next look."""
        if self._loaded is not None:
            self.engine.dispose()
        self._loaded = None

    @contextmanager
    def reading(self) -> Iterator[sa.Connection | None]:
        """Open the copy."""
        self.load()
        with self._translated(), self.engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """Refuse: nothing is written to somebody else's ledger."""
        raise UsageError(
            f"The ledger of {self.name} is only read from here.", fix="Go to the server's machine."
        )
        yield

    def scrub(self) -> None:
        """Do nothing: there is no file."""

    def missing_triggers(self, connection: sa.Connection) -> list[str]:
        """Return what the server says of its own."""
        return list(self.load().part.unprotected)


def _keep_keys(place: Path, pems: str) -> None:
    try:
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh = Path(tempfile.mkdtemp(dir=place.parent, prefix=".keys-"))
        trust(fresh, pems)
        with suppress(FileExistsError):
            fresh.rename(place)
    except OSError as error:
        raise ServiceUnavailable(
            f"The keys of the server's ledger cannot be kept in {place}: {error.strerror}.",
            fix="Make CLR_HOME writable for this user.",
        ) from error


def _strange(name: str) -> IntegrityBroken:
    return IntegrityBroken(
        f"{name} does not answer as a registry server does.", fix="Correct CLR_REGISTRY_URL."
    )
