"""``policy.yaml``: who has which role, who may review what, and what is refused with its line."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from clr.errors import ServiceUnavailable, UsageError
from clr.registry.roles import (
    POLICY_TEMPLATE,
    ROLES,
    SERVICES,
    Policy,
    add_user,
    load_policy,
    parse_policy,
    policy_path,
    remove_user,
    warnings,
)

HOUSE = """\
schema: clr.policy/1
users:
  alice: [reviewer]
  bob: [reviewer, trainer]
  carol: [auditor]
  dave: trainer          # one role may stand without brackets
  eve: []                # suspended
review:
  quorum: 1
  reviewers: [alice, bob]
  tasks:
    animals: {quorum: 2}
    vehicles: {reviewers: [bob]}
"""


def wrong(text: str) -> str:
    with pytest.raises(UsageError) as caught:
        parse_policy(text)
    assert caught.value.fix
    return str(caught.value)


class TestReading:
    def test_the_file_that_init_writes_is_a_policy_without_users(self):
        policy = parse_policy(POLICY_TEMPLATE)
        assert not policy.users
        assert (policy.quorum, policy.four_eyes, policy.embedded_review) == (1, True, True)
        assert policy.roles("anybody") == frozenset()

    def test_without_a_file_the_default_holds(self, tmp_path: Path):
        assert load_policy(policy_path(tmp_path)) == Policy()

    def test_users_have_the_roles_that_are_written_and_they_add_up(self):
        policy = parse_policy(HOUSE)
        assert policy.roles("bob") == {"reviewer", "trainer"}
        assert policy.roles("dave") == {"trainer"}
        assert policy.roles("eve") == frozenset()
        assert policy.principal("carol").roles == {"auditor"}

    def test_names_are_compared_letter_by_letter(self):
        policy = parse_policy(HOUSE)
        for stranger in ("Alice", "alice ", "аlice", "ａlice", "alice\u200b", ""):
            assert policy.roles(stranger) == frozenset()
            assert not policy.may_review(stranger, "vehicles")

    def test_services_have_their_role_whatever_the_file_says(self):
        assert {user: min(parse_policy(HOUSE).roles(user)) for user in SERVICES} == dict(SERVICES)

    def test_the_digest_is_that_of_the_bytes(self):
        assert parse_policy(HOUSE).digest != parse_policy(HOUSE + "# a word\n").digest

    def test_a_policy_cannot_be_changed_after_it_was_read(self):
        with pytest.raises(TypeError):
            parse_policy(HOUSE).users["mallory"] = frozenset(ROLES)  # type: ignore[index]


class TestWhoMayReview:
    def test_it_takes_the_role_and_a_place_in_the_list(self):
        policy = parse_policy(HOUSE)
        assert policy.reviewers_of("apparel") == ("alice", "bob")
        assert policy.reviewers_of("animals") == ("alice", "bob"), "no list of its own"
        assert policy.reviewers_of("vehicles") == ("bob",)
        assert not policy.may_review("dave", "apparel")

    def test_without_a_list_it_is_everybody_with_the_role(self):
        policy = parse_policy("schema: clr.policy/1\nusers: {a: [reviewer], b: [trainer]}")
        assert policy.reviewers_of("x") == ("a",)

    def test_services_and_admins_do_not_review(self):
        policy = parse_policy("schema: clr.policy/1\nusers: {root: [admin], a: [reviewer]}")
        for user in (*SERVICES, "root"):
            assert not policy.may_review(user, "x")

    def test_a_task_may_ask_for_more_approvals(self):
        policy = parse_policy(HOUSE)
        assert (policy.quorum_for("animals"), policy.quorum_for("apparel")) == (2, 1)


class TestMistakes:
    @pytest.mark.parametrize(
        ("text", "line", "names"),
        [
            ("schema: clr.policy/1\nusers: {a: [boss]}", 2, "boss"),
            ("schema: clr.policy/1\nusers:\n  a: [trainer]\n  b: [Reviewer]\n", 4, "Reviewer"),
            ("schema: clr.policy/1\nusers:\n  Alice: []\n", 3, "Alice"),
            ("schema: clr.policy/1\nusers:\n  'a b': []\n", 3, "a b"),
            ("schema: clr.policy/1\nusers:\n  7: []\n", 3, "7"),
            ("schema: clr.policy/1\nusers:\n  ? {a: 1}\n  : []\n", 3, "not a user name"),
            ("schema: clr.policy/1\nusers:\n  ? [a]\n  : []\n", 3, "not a user name"),
            ("schema: clr.policy/1\nreview:\n  ? [quorum]\n  : 1\n", 3, "no field"),
            ("schema: clr.policy/1\nusers:\n  a: {trainer: yes}\n", 3, "a"),
            ("schema: clr.policy/1\nusers:\n  a: [1]\n", 3, "a"),
            ("schema: clr.policy/1\nusers: [a]\n", 2, "users"),
            ("schema: clr.policy/1\nusers:\n  admin: [reviewer]\n", 3, "admin"),
            ("schema: clr.policy/1\nusers:\n  clr-release: [reviewer]\n", 3, "clr-release"),
            ("schema: clr.policy/1\nusers:\n  a: []\n  a: [admin]\n", 4, "a"),
            ("schema: clr.policy/1\nfour_eyes: off\n", 2, "off"),
            ("schema: clr.policy/1\nfour_eyes: 0\n", 2, "0"),
            ("schema: clr.policy/1\nfour_eyes:\n", 2, "None"),
            ("schema: clr.policy/1\nfour_eye: false\n", 2, "four_eye"),
            ("schema: clr.policy/1\nembedded_review: 'false'\n", 2, "false"),
            ("schema: clr.policy/1\nreview:\n  quorum: 0\n", 3, "0"),
            ("schema: clr.policy/1\nreview:\n  quorum: true\n", 3, "True"),
            ("schema: clr.policy/1\nreview:\n  quorum: 1.5\n", 3, "1.5"),
            ("schema: clr.policy/1\nreview:\n  quorum: 1000\n", 3, "1000"),
            ("schema: clr.policy/1\nreview:\n  quorum:\n", 3, "None"),
            ("schema: clr.policy/1\nreview:\n  reviewers: [x]\n", 3, "x"),
            ("schema: clr.policy/1\nreview:\n  reviewers:\n", 3, "reviewers"),
            ("schema: clr.policy/1\nreview:\n  tasks:\n    Animals: {}\n", 4, "Animals"),
            ("schema: clr.policy/1\nreview:\n  tasks:\n    release: {}\n", 4, "release"),
            ("schema: clr.policy/1\nreview:\n  tasks:\n    a: {quorun: 2}\n", 4, "quorun"),
            ("schema: clr.policy/1\nreview: [", 2, "YAML"),
        ],
    )
    def test_line_and_field_are_named(self, text: str, line: int, names: str):
        said = wrong(text)
        assert f"line {line}" in said or (names == "YAML" and "line" in said)
        assert names == "YAML" or names in said

    @pytest.mark.parametrize(
        "text",
        ["", "[]", "users: {}", "schema: clr.policy/2", "\x00", "&a [*a]", "x" * (1 << 20) + "x"],
    )
    def test_what_is_no_policy_says_so(self, text: str):
        assert wrong(text)

    def test_tags_of_yaml_make_no_objects(self):
        assert wrong("schema: clr.policy/1\nusers: !!python/object/apply:os.system ['true']")

    def test_a_quorum_that_cannot_be_reached_is_refused(self):
        listed = "schema: clr.policy/1\nusers: {a: [reviewer], b: [reviewer]}\nreview:\n"
        assert "only 1" in wrong(listed + "  quorum: 2\n  reviewers: [a]\n")
        assert "only 1" in wrong(listed + "  quorum: 2\n  tasks:\n    t: {reviewers: [b]}\n")
        assert "only 2" in wrong(listed + "  reviewers: [a, b]\n  tasks:\n    t: {quorum: 3}\n")
        parse_policy(listed + "  quorum: 2\n  reviewers: [a, b]\n")

    def test_a_file_that_cannot_be_read_is_an_error_and_not_the_default(self, tmp_path: Path):
        path = policy_path(tmp_path)
        path.parent.mkdir()
        path.write_bytes(b"schema: \xff\n")
        with pytest.raises(UsageError, match="UTF-8"):
            load_policy(path)
        path.unlink()
        path.mkdir()
        with pytest.raises(UsageError, match="cannot be read"):
            load_policy(path)


class TestWarnings:
    def test_a_house_in_order_gives_none(self):
        assert warnings(parse_policy("schema: clr.policy/1\nusers: {a: [reviewer]}")) == ()

    def test_four_eyes_off_is_said_loudly(self):
        text = "schema: clr.policy/1\nusers: {a: [reviewer]}\nfour_eyes: false"
        assert warnings(parse_policy(text))[0].startswith("FOUR EYES ARE OFF")

    def test_one_person_who_could_do_two_steps_is_named(self):
        text = "schema: clr.policy/1\nusers: {a: [reviewer, release], b: [trainer, release]}"
        said = " ".join(warnings(parse_policy(text)))
        assert "a has the roles release and reviewer" in said
        assert "b has the roles release and trainer" in said

    def test_too_few_reviewers_are_told(self):
        assert "nothing can be promoted" in warnings(parse_policy(POLICY_TEMPLATE))[0]


class TestWriting:
    def test_users_are_added_a_line_each_and_comments_stay(self, tmp_path: Path):
        path = policy_path(tmp_path)
        path.parent.mkdir()
        path.write_text(POLICY_TEMPLATE)
        assert add_user(path, "alice", ["reviewer"]).roles("alice") == {"reviewer"}
        policy = add_user(path, "bob", ["trainer", "auditor"])
        assert policy == load_policy(path)
        assert policy.users == {"alice": {"reviewer"}, "bob": {"trainer", "auditor"}}
        lines = path.read_text().splitlines()
        assert "  alice: [reviewer]" in lines
        assert "  bob: [trainer, auditor]" in lines
        kept = [line for line in POLICY_TEMPLATE.splitlines() if line != "users: {}"]
        assert set(kept) <= set(lines)

    def test_adding_again_gives_exactly_the_new_roles(self, tmp_path: Path):
        path = policy_path(tmp_path)
        add_user(path, "alice", ["reviewer", "reviewer"])
        assert add_user(path, "alice", ["trainer"]).roles("alice") == {"trainer"}

    def test_no_file_starts_from_the_template(self, tmp_path: Path):
        path = policy_path(tmp_path)
        add_user(path, "alice", ["reviewer"])
        assert "four_eyes: true" in path.read_text()

    @pytest.mark.parametrize("name", ["admin", "clr-trainer", "Alice", "", "a b", "a" * 64, "а"])
    def test_names_that_are_none_change_nothing(self, tmp_path: Path, name: str):
        path = policy_path(tmp_path)
        add_user(path, "alice", ["reviewer"])
        before = path.read_bytes()
        with pytest.raises(UsageError):
            add_user(path, name, ["reviewer"])
        with pytest.raises(UsageError):
            add_user(path, "bob", ["owner"])
        assert path.read_bytes() == before
        assert [one.name for one in path.parent.iterdir()] == ["policy.yaml"]

    def test_who_is_listed_as_reviewer_keeps_the_role(self, tmp_path: Path):
        path = policy_path(tmp_path)
        path.parent.mkdir()
        path.write_text(HOUSE)
        with pytest.raises(UsageError, match="does not have the role reviewer"):
            add_user(path, "bob", ["trainer"])

    def test_removing_takes_a_user_out_of_every_list(self, tmp_path: Path):
        path = policy_path(tmp_path)
        path.parent.mkdir()
        path.write_text(HOUSE.replace("{quorum: 2}", "{quorum: 1}"))
        policy = remove_user(path, "alice")
        assert policy.reviewers == {"bob"}
        assert "alice" not in path.read_text()
        assert "# one role may stand without brackets" in path.read_text()

    def test_removing_never_turns_a_list_into_everybody(self, tmp_path: Path):
        path = policy_path(tmp_path)
        path.parent.mkdir()
        path.write_text(HOUSE)
        with pytest.raises(UsageError, match="only one in a list"):
            remove_user(path, "bob")
        with pytest.raises(UsageError, match="quorum"):
            remove_user(path, "alice")
        assert path.read_text() == HOUSE

    def test_an_unknown_user_cannot_be_removed(self, tmp_path: Path):
        with pytest.raises(UsageError, match="no user 'zoe'"):
            remove_user(policy_path(tmp_path), "zoe")
        assert not policy_path(tmp_path).exists()

    def test_a_file_with_a_mistake_is_left_alone(self, tmp_path: Path):
        path = policy_path(tmp_path)
        path.parent.mkdir()
        path.write_text("schema: clr.policy/1\nfour_eyes: perhaps\n")
        with pytest.raises(UsageError, match="line 2"):
            add_user(path, "alice", ["reviewer"])
        assert path.read_text().endswith("perhaps\n")

    def test_what_cannot_be_written_is_said(self, tmp_path: Path):
        (tmp_path / "mlflow").write_text("a file where the folder should be")
        with pytest.raises(ServiceUnavailable, match="cannot be written"):
            add_user(policy_path(tmp_path), "alice", ["reviewer"])

    def test_many_at_once_lose_nobody(self, tmp_path: Path):
        path = policy_path(tmp_path)
        names = [f"user{number}" for number in range(12)]
        threads = [threading.Thread(target=add_user, args=(path, n, ["auditor"])) for n in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(load_policy(path).users) == sorted(names)
