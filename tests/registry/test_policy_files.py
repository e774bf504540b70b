"""The policy as a table of attempts: runs, files, webhooks, accounts and passwords."""

from __future__ import annotations

import pytest

from clr.registry.acts import Kind, State
from clr.registry.names import unsafe_path
from tests.registry.people import PEOPLE, WORKERS, allowed, refused, who_may

RUN = "0123456789abcdef" * 2


class TestTracking:
    def test_those_who_run_write(self):
        for kind in (Kind.TRACK, Kind.DELETE_TRACKED, Kind.FINISH_RUN):
            assert who_may(kind) == WORKERS
        for kind in (Kind.WRITE_FILE, Kind.DELETE_FILE):
            assert who_may(kind, path=f"1/{RUN}/artifacts/gate/gate.json") == WORKERS
        assert who_may(Kind.WRITE_FILE, path=f"1/models/m-{RUN}/artifacts/MLmodel") == WORKERS
        assert who_may(Kind.WRITE_FILE, path="artifacts/x", name=f"m-{RUN}") == WORKERS

    @pytest.mark.parametrize(
        "path", ["1", "1/models", "x/page.html", f"1/{RUN}", f"m-{RUN}", f"1/{RUN[:31]}/x"]
    )
    def test_files_belong_to_a_run_or_a_logged_model(self, path: str):
        assert who_may(Kind.WRITE_FILE, path=path) == set()
        assert who_may(Kind.DELETE_FILE, path=path) == WORKERS, "what lies about may go"

    def test_what_a_registered_version_stands_on_is_written_once(self):
        registered = State(registered=True)
        for kind in (Kind.TRACK, Kind.DELETE_TRACKED, Kind.WRITE_FILE, Kind.DELETE_FILE):
            assert who_may(kind, registered, path="1/run/artifacts/x") == set()
        assert who_may(Kind.FINISH_RUN, registered) == WORKERS

    @pytest.mark.parametrize(
        "path",
        ["", "/", "/etc/passwd", "..", "1/../2/x", "1//x", "1/x/", "./x", "1/./x", "1\\..\\x",
         "1/x\x00",
         "1/%2e%2e/x", "1/%2E./x", "1%2fx", "1/%252e%252e/x", "1/%5c..", "1/\u2025/x", "1/．．/x",
         "1／..／x", "1/ .. /x", "1/x\n", "1/\u202ex", "1/\ud800", "x" * 1001, "1/＼x"],
    )  # fmt: skip
    def test_a_path_that_could_lead_elsewhere_is_nobody_s(self, path: str):
        for kind in (Kind.WRITE_FILE, Kind.DELETE_FILE):
            assert who_may(kind, path=path) == set()

    @pytest.mark.parametrize(
        "path",
        ["1/a/artifacts/x.json", "0/models/m-1/artifacts/MLmodel", "1/画像/猫.png", "1/50%", "1/…"],
    )
    def test_a_plain_path_is_plain(self, path: str):
        assert not unsafe_path(path)


class TestUsers:
    def test_webhooks_and_rights_come_from_files(self):
        assert who_may(Kind.WEBHOOK) == set()
        for endpoint in (
            "update_user_admin",
            "grant_user_permission",
            "create_role",
            "<lambda>",
            "",
        ):
            assert who_may(Kind.MANAGE_USER, endpoint=endpoint, name="new") == set()

    def test_an_admin_keeps_accounts_that_have_no_role(self):
        for endpoint in ("create_user", "delete_user"):
            assert who_may(Kind.MANAGE_USER, endpoint=endpoint, name="new") == {"ada", "all"}
            for name in ("alice", "ada", "admin", "clr-release", ""):
                assert who_may(Kind.MANAGE_USER, endpoint=endpoint, name=name) == set()
            has = State(user_roles=frozenset({"reviewer"}))
            assert who_may(Kind.MANAGE_USER, has, endpoint=endpoint, name="new") == set()

    @pytest.mark.parametrize("name", ["Alice", "a b", "аlice", "alice\n", "-a", "a" * 64])
    def test_an_account_cannot_be_named_like_somebody_else(self, name: str):
        assert who_may(Kind.MANAGE_USER, endpoint="create_user", name=name) == set()
        assert who_may(Kind.MANAGE_USER, endpoint="delete_user", name=name) == {"ada", "all"}

    def test_everybody_sets_his_own_password_and_nobody_another_s(self):
        for who in set(PEOPLE) - {"nina"}:
            assert who_may(Kind.SET_PASSWORD, name=who) == {who}
        assert who_may(Kind.SET_PASSWORD, name="nina") == {"ada", "all"}
        assert who_may(Kind.SET_PASSWORD, name="") == set()

    def test_the_password_of_a_service_is_set_on_the_machine(self):
        for who in ("clr-trainer", "clr-release"):
            assert "clr users passwd" in refused(who, Kind.SET_PASSWORD, name=who)
        assert allowed("admin", Kind.SET_PASSWORD, name="admin")
