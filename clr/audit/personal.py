"""Personal data of the ledger: refs in the hashed rows, names and words beside them (pure).

A row names a person as ``person:<hex>`` and holds free text as ``words:<hex>``, where the hex
is an HMAC-SHA256 under a random key of 256 bits. Key and value are in a table beside the ledger
(`clr.audit.store.PERSONAL`). While they are there, the HMAC binds them to the signed row: no
other value fits it. When they are deleted, nobody can find the name by trying names, and the row
and its hash stay as they are (crypto-shredding; NIST SP 800-88 calls it cryptographic erase).

Which fields of a payload are personal is told by their names, at any depth: `PEOPLE`, `WORDS`
and `SENTENCES`. An act about somebody's account has that person as its subject. Any other
subject is text that the caller chose, also where it looks like a ref.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from clr.audit.chain import REF, Entry, canonical, entry, is_ref

PEOPLE = frozenset({"reviewer", "os_user", "user"})
"""Fields whose text is somebody's name."""

WORDS = frozenset({"reason", "value"})
"""Fields whose text is what somebody wrote; it goes with who is named beside it, or who acted."""

SENTENCES = frozenset({"sentence"})
"""Fields whose text is ours but may name people."""

_PERSONAL = PEOPLE | WORDS | SENTENCES
_FIELDS = (*sorted(_PERSONAL), "kind")

ERASED = "person.erased"
"""The act that records an erasure; its payload lists every ref whose value is gone."""

PERSON, TEXT = "person", "words"
_PERSON, _NAMED, _WRITTEN = f"{PERSON}:", f'"{PERSON}:', f'"{TEXT}:'
# exact on canonical JSON: a quote inside a text has a backslash before it
_REF_FIELD = re.compile(rf'("(?:{"|".join(sorted(_PERSONAL))})":)"({REF.pattern})"')
_IN_TEXT = re.compile(r"[\w.@-]+")

Values = Mapping[str, str]
"""{ref: what it stands for}."""


@dataclass(frozen=True)
class Disclosure:
    """What a ref stands for, as it is stored.

    Attributes:
        ref: ``person:<hex>`` or ``words:<hex>``.
        owner: ref of the person it belongs to; for a name itself; empty for our own sentences.
        key: 64 hex digits of randomness.
        value: the text, as a JSON string, which any database keeps as it is.
    """

    ref: str
    owner: str
    key: str
    value: str

    @property
    def text(self) -> str:
        """The name, or the words; of a damaged row what it holds, which still may name somebody."""
        try:
            return str(json.loads(self.value))
        except ValueError:
            return self.value

    def fits(self) -> bool:
        """Say whether the value is the one that the ref was made of."""
        kind, _, digest = self.ref.partition(":")
        try:
            json.loads(self.value)
            return hmac.compare_digest(_digest(self.key, kind, self.value), digest)
        except (ValueError, TypeError):
            return False


def is_name(ref: str) -> bool:
    """Say whether a ref stands for somebody's name, and not for words."""
    return ref.startswith(_PERSON)


def name_of(name: str) -> Disclosure:
    """Give a person a ref; a new one each time."""
    made = _disclose(PERSON, name, "")
    return Disclosure(made.ref, made.ref, made.key, made.value)


def words_of(text: str, owner: str) -> Disclosure:
    """Give a text a ref.

    Args:
        text: somebody's words.
        owner: ref of that person; empty where it is a sentence of ours.
    """
    return _disclose(TEXT, text, owner)


def stored_text(text: str) -> str:
    """Return a text in the form in which `Disclosure.value` has it."""
    return canonical(text, "The text")


def _disclose(kind: str, text: str, owner: str) -> Disclosure:
    key, value = secrets.token_hex(32), stored_text(text)
    return Disclosure(f"{kind}:{_digest(key, kind, value)}", owner, key, value)


def _digest(key: str, kind: str, value: str) -> str:
    message = f"{kind}:{value}".encode()
    return hmac.new(bytes.fromhex(key), message, hashlib.sha256).hexdigest()


def has_personal(payload: str) -> bool:
    """Say whether a payload's text has a field that may be personal, or tells a kind of act."""
    return any(f'"{name}":' in payload for name in _FIELDS)


def about_a_person(action: str, payload: Mapping[str, Any]) -> bool:
    """Say whether the subject of an act is a user: a change of an account, or one that failed."""
    kind = payload.get("kind") if action in ("refused", "act.failed") else action
    return isinstance(kind, str) and kind.startswith("user.")


# --- hiding and showing --------------------------------------------------------------------


def hidden(
    payload: Mapping[str, Any], actor: str, person: Callable[[str], str], words: Callable[..., str]
) -> Any:
    """Return a payload with refs in place of names and words.

    Args:
        payload: JSON values only.
        actor: ref of who acts.
        person: gives the ref of a name.
        words: gives the ref of (text, owner).
    """

    def hide(name: str, text: str, beside: Mapping[str, Any]) -> str:
        if name in PEOPLE:
            return person(text)
        if name in SENTENCES:
            return words(text, "")
        reviewer = beside.get("reviewer")
        return words(text, person(reviewer) if isinstance(reviewer, str) and reviewer else actor)

    return _changed(payload, hide)


def _changed(value: Any, change: Callable[[str, str, Mapping[str, Any]], str]) -> Any:
    """Return JSON with other personal texts; `change` gets field, text and what is beside it."""
    if isinstance(value, Mapping):
        return {
            name: change(name, inner, value)
            if isinstance(inner, str) and inner and name in _PERSONAL
            else _changed(inner, change)
            for name, inner in value.items()
        }
    return [_changed(one, change) for one in value] if isinstance(value, list) else value


def show(text: str, values: Values) -> str:
    """Return a text with what its refs stand for; words in turn with the people they name."""

    def shown_ref(found: re.Match[str]) -> str:
        value = values.get(found[0], placeholder(found[0]))
        return value if found[1] == PERSON else _names(value, values)

    return REF.sub(shown_ref, text)


def _names(words: str, values: Values) -> str:
    def name(found: re.Match[str]) -> str:
        return values.get(found[0], placeholder(found[0])) if found[1] == PERSON else found[0]

    return REF.sub(name, words)


def placeholder(ref: str) -> str:
    """Return what stands in place of an erased value: ``erased person 1a2b3c4d``."""
    kind, _, digest = ref.partition(":")
    return f"erased {kind} {digest[:8]}"


def with_refs(text: str, names: Mapping[str, str]) -> str:
    """Return a text with the refs of the people it names, so that it outlives their erasure.

    Args:
        text: somebody's words, or a sentence of ours.
        names: {name: ref}; only names like those of users are found, letter by letter.
    """

    def ref(found: re.Match[str]) -> str:
        name = found[0].rstrip(".@-")
        return names[name] + found[0][len(name) :] if name in names else found[0]

    return _IN_TEXT.sub(ref, text)


def mentions(text: str, name: str) -> bool:
    """Say whether a text has a name in it as a word, in upper or lower case."""
    return re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text, re.IGNORECASE) is not None


def shown_entry(row: dict[str, Any], values: Values) -> Entry:
    """Return the entry of a stored row, with names and words in place of refs.

    Raises:
        IntegrityBroken: the stored payload is no longer a JSON object.
    """
    actor, subject, key, payload = row["actor"], row["subject"], row["key"], row["payload"]
    if actor in values:
        row["actor"] = values[actor]
    elif is_ref(actor):
        row["actor"] = placeholder(actor)
    else:
        return entry(row)
    row["stored"] = {"actor": actor, "subject": subject, "payload": payload, "key": key}
    if _names_subject(row):
        row["subject"] = show(subject, values)
    if key is not None:
        row["key"] = key.replace(actor, row["actor"])
    if _NAMED in payload or _WRITTEN in payload:
        row["payload"] = _REF_FIELD.sub(lambda one: _shown_field(one, values), payload)
    return entry(row)


def _shown_field(found: re.Match[str], values: Values) -> str:
    return f"{found[1]}{json.dumps(show(found[2], values))}"


def names_openly(row: Mapping[str, Any], name: str) -> bool:
    """Say whether a name, as a word by itself, is in a stored row, where nothing can erase it."""
    text = "\n".join(str(row[field]) for field in ("actor", "subject", "key", "payload"))
    return name in text and any(one in (name, f"{name}.") for one in _IN_TEXT.findall(text))


def refs_of(row: Mapping[str, Any]) -> list[str]:
    """Return the refs of a stored row; none of one from before there were refs.

    The only ref that is ever put into a key is the actor's (`clr.audit.chain.ACTOR`).
    """
    actor, payload = row["actor"], row["payload"]
    if not is_ref(actor):
        return []
    found = [actor]
    if _names_subject(row):
        found.append(row["subject"])
    if _NAMED in payload or _WRITTEN in payload:
        found += (one[2] for one in _REF_FIELD.finditer(payload))
    return found


def _names_subject(row: Mapping[str, Any]) -> bool:
    """Say whether the subject of a stored row is the ref of a person, and not just looks so."""
    action, subject = row["action"], row["subject"]
    if not (subject.startswith(_PERSON) and is_ref(subject)):
        return False
    if action == ERASED or about_a_person(action, {}):
        return True
    try:
        payload = json.loads(row["payload"])
    except ValueError:
        return False  # a payload that somebody changed is told by the chain
    return isinstance(payload, dict) and about_a_person(action, payload)
