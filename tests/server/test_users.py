"""`clr users`: logins in MLflow's database, roles in policy.yaml, a line in the ledger each."""

from __future__ import annotations

import getpass
import json
import os
import stat
from contextlib import chdir
from pathlib import Path

import pytest
from click.testing import CliRunner

from clr.audit.ledger import open_ledger
from clr.data.workspace import init_workspace
from clr.errors import ServiceUnavailable, UsageError
from clr.registry.roles import load_policy, policy_path
from clr.registry.server.templates import TEMPLATES
from clr.registry.server.users import ensure_services, open_logins
from clr.settings import load_settings
from flows import session, users
from flows.cli import main

PASSWORD = "correct horse battery"


class Workspace:
    def __init__(self, root: Path) -> None:
        init_workspace(root, TEMPLATES)
        self.root = root

    def clr(self, *arguments: str, password: str = "", **options):
        session._session.cache_clear()
        environment = {"CLR_PASSWORD": password or None}
        with chdir(self.root):
            return CliRunner().invoke(main, ["users", *arguments], env=environment, **options)

    def add(self, name: str, *roles: str, password: str = PASSWORD):
        return self.clr("add", name, *[f"--role={role}" for role in roles], password=password)

    def can_sign_in(self, name: str, password: str = PASSWORD) -> bool:
        with open_logins(load_settings(self.root)) as logins:
            return logins.is_right(name, password)

    def roles(self, name: str) -> set[str]:
        return set(load_policy(policy_path(self.root)).roles(name))

    def ledger(self) -> list[tuple[str, ...]]:
        entries = open_ledger(self.root / ".clr").entries()
        return [(one.action, one.subject, one.actor, one.authentication) for one in entries]


@pytest.fixture
def workspace(tmp_path):
    return Workspace(tmp_path / "plant")


def test_a_new_user_can_sign_in_and_has_the_roles(workspace):
    done = workspace.add("alice", "reviewer", "auditor")
    assert done.exit_code == 0, done.output
    assert done.stdout == "alice can sign in now; roles: auditor, reviewer.\n"
    assert workspace.can_sign_in("alice")
    assert not workspace.can_sign_in("alice", "correct horse batterx")
    assert workspace.roles("alice") == {"reviewer", "auditor"}
    me = (getpass.getuser(), "local-os-user")
    assert workspace.ledger() == [("user.added", "alice", *me)]


def test_who_has_no_name_on_this_machine_acts_under_its_number(workspace, monkeypatch):
    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", unknown)
    done = workspace.add("alice", "reviewer")
    assert done.exit_code == 0, done.output
    assert {one[2] for one in workspace.ledger()} == {f"uid-{os.getuid()}"}


def test_no_password_is_kept_in_clear_or_readable_by_others(workspace):
    workspace.add("alice", "reviewer")
    files = [path for path in workspace.root.rglob("*") if path.is_file()]
    assert not [path for path in files if PASSWORD.encode() in path.read_bytes()]
    assert stat.S_IMODE((workspace.root / ".clr" / "auth.db").stat().st_mode) == 0o600


def test_an_existing_user_gets_the_role_besides_and_keeps_the_password(workspace):
    workspace.add("alice", "reviewer")
    done = workspace.add("alice", "trainer", password="")
    assert done.stdout == "alice could sign in already; roles: reviewer, trainer.\n"
    assert workspace.roles("alice") == {"reviewer", "trainer"}
    assert workspace.can_sign_in("alice")
    workspace.add("alice", "trainer", password="another password")
    assert workspace.can_sign_in("alice", "another password")
    assert workspace.roles("alice") == {"reviewer", "trainer"}


def test_comments_of_the_policy_stay(workspace):
    workspace.add("alice", "reviewer")
    text = policy_path(workspace.root).read_text()
    assert "  alice: [reviewer]\n" in text
    assert "# Who may do what on the registry server." in text


def test_the_list_names_everybody_who_can_sign_in_or_has_a_role(workspace):
    workspace.add("alice", "reviewer")
    policy = policy_path(workspace.root)
    policy.write_text(policy.read_text().replace("users:\n", "users:\n  zoe: [auditor]\n"))
    settings = load_settings(workspace.root)
    with open_logins(settings) as logins:
        ensure_services(settings, logins)
        logins.put("nina", PASSWORD)
    assert json.loads(workspace.clr("list", "--json").stdout) == [
        {"name": "admin", "roles": ["admin"], "login": True},
        {"name": "alice", "roles": ["reviewer"], "login": True},
        {"name": "clr-release", "roles": ["release"], "login": True},
        {"name": "clr-server", "roles": ["auditor"], "login": True},
        {"name": "clr-trainer", "roles": ["trainer"], "login": True},
        {"name": "nina", "roles": [], "login": True},
        {"name": "zoe", "roles": ["auditor"], "login": False},
    ]
    assert "nina" in workspace.clr("list").stdout


def test_a_removed_user_has_neither_role_nor_login(workspace):
    workspace.add("alice", "reviewer")
    workspace.add("bob", "reviewer")
    done = workspace.clr("remove", "alice")
    assert done.exit_code == 0, done.output
    assert workspace.roles("alice") == set()
    assert not workspace.can_sign_in("alice")
    assert workspace.can_sign_in("bob")
    assert workspace.ledger()[-1][:2] == ("user.removed", "alice")
    again = workspace.clr("remove", "alice")
    assert (again.exit_code, "no user alice" in again.stderr) == (2, True)


def test_a_new_password_replaces_the_old_one(workspace):
    workspace.add("alice", "reviewer")
    done = workspace.clr("passwd", "alice", password="another password")
    assert done.exit_code == 0, done.output
    assert workspace.can_sign_in("alice", "another password")
    assert not workspace.can_sign_in("alice")
    assert workspace.ledger()[-1][:2] == ("user.password", "alice")
    assert workspace.clr("passwd", "carl", password=PASSWORD).exit_code == 2


@pytest.mark.parametrize("command", [("add", "--role=admin"), ("remove",), ("passwd",)])
@pytest.mark.parametrize("name", ["admin", "clr-release", "clr-server", "clr-trainer"])
def test_the_servers_own_users_are_not_touched(workspace, command, name):
    done = workspace.clr(command[0], name, *command[1:], password=PASSWORD)
    assert done.exit_code == UsageError.exit_code
    assert name in done.stderr
    assert workspace.ledger() == []


@pytest.mark.parametrize("name", ["Alice", "a b", "-a", "../a", "ä", "a" * 64, "a:b", ""])
def test_a_name_that_cannot_be_one_is_refused(workspace, name):
    done = workspace.clr("add", "--role=reviewer", "--", name, password=PASSWORD)
    assert done.exit_code == UsageError.exit_code
    assert workspace.ledger() == []


@pytest.mark.parametrize(
    ("password", "why"), [("short", "fewer than 12"), ("pässword-pässword", "ASCII")]
)
def test_a_password_that_cannot_be_one_is_refused_without_showing_it(workspace, password, why):
    done = workspace.add("alice", "reviewer", password=password)
    assert (done.exit_code, why in done.stderr) == (UsageError.exit_code, True)
    assert password not in done.stderr
    assert workspace.roles("alice") == set()
    assert not workspace.can_sign_in("alice", password)


def test_without_terminal_and_variable_no_password_is_made_up(workspace):
    done = workspace.add("alice", "reviewer", password="")
    assert (done.exit_code, "CLR_PASSWORD" in done.stderr) == (UsageError.exit_code, True)


def test_an_unknown_role_is_refused(workspace):
    assert workspace.add("alice", "boss").exit_code == 2
    assert workspace.add("alice").exit_code == 2


def test_a_broken_policy_is_named_and_nothing_is_changed(workspace):
    policy_path(workspace.root).write_text("schema: clr.policy/1\nusers: [alice]\n")
    done = workspace.add("alice", "reviewer")
    assert (done.exit_code, "policy.yaml" in done.stderr) == (UsageError.exit_code, True)
    assert not workspace.can_sign_in("alice")


@pytest.mark.parametrize("step", ["_record", "add_user"])
def test_an_interrupted_add_leaves_nobody_with_a_role_and_is_completed_by_the_same(
    workspace, monkeypatch, step
):
    def stop(*_: object, **__: object) -> None:
        raise ServiceUnavailable("The disk is full.")

    with monkeypatch.context() as patched:
        patched.setattr(users, step, stop)
        assert workspace.add("alice", "reviewer").exit_code == 7
    assert workspace.roles("alice") == set()
    assert workspace.add("alice", "reviewer").exit_code == 0
    assert workspace.roles("alice") == {"reviewer"}
    assert workspace.can_sign_in("alice")


def test_service_users_get_the_passwords_of_their_files_and_follow_them(workspace, monkeypatch):
    settings = load_settings(workspace.root)
    with open_logins(settings) as logins:
        everybody = {"admin", "clr-release", "clr-server", "clr-trainer"}
        assert set(ensure_services(settings, logins)) == everybody
        assert ensure_services(settings, logins) == ()
        held = (settings.state / "secrets" / "trainer.password").read_text().strip()
        assert logins.is_right("clr-trainer", held)
        monkeypatch.setenv("CLR_TRAINER_PASSWORD", "given by somebody")
        assert ensure_services(settings, logins) == ("clr-trainer",)
        assert logins.is_right("clr-trainer", "given by somebody")
        assert not logins.is_right("clr-trainer", held)
        flags = {one.username: one.is_admin for one in logins._store.list_users()}
    assert flags == {"admin": True} | dict.fromkeys(everybody - {"admin"}, False)
