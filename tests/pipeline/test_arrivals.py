"""Records of what arrived, what runs may read, the event, and arrivals by git."""

from __future__ import annotations

import base64
import errno
import json
import os
import shutil
import subprocess
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as tried
from hypothesis import strategies as st

from clr.data.content import content_digest
from clr.data.workspace import init_workspace
from clr.errors import ClrError, DataRefused, ServiceUnavailable, UsageError
from clr.settings import Settings
from flows import announce, arrivals, tracking
from flows.arrivals import Arrival
from tests.pipeline.watching import NOBODY, ROOT, git, known, watcher
from tests.waiting import until

DIGEST = "sha256:" + "ab" * 32


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    init_workspace(tmp_path / "plant")
    return Settings(workspace=tmp_path / "plant")


def make(folder: Path, *, words: str = "x") -> Path:
    for split in ("train", "test"):
        for label in ("bad", "good"):
            for number in range(3):
                path = folder / split / label / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(f"{words} {split} {label} {number}")
    return folder


def claim(settings: Settings, task: str = "caps", digest: str = DIGEST) -> Arrival | None:
    return arrivals.claim(settings, task, settings.inbox / task, digest, "folder")


def test_a_content_is_claimed_once_however_many_try(settings: Settings) -> None:
    code = (
        "import sys; from pathlib import Path; from clr.settings import Settings;"
        "from flows import arrivals; s = Settings(workspace=Path(sys.argv[1]));"
        f"print(sum(arrivals.claim(s, 'caps', Path('x'), {DIGEST!r}, 'folder') is not None"
        " for _ in range(20)))"
    )
    command = [sys.executable, "-c", code, str(settings.workspace)]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True) for _ in range(4)
    ]
    with ThreadPoolExecutor(8) as pool:
        mine = [one for one in pool.map(lambda _: claim(settings), range(40)) if one]
    theirs = [int(process.communicate()[0]) for process in running]
    assert len(mine) + sum(theirs) == 1
    assert [one.digest for one in arrivals.read_all(settings)] == [DIGEST]


def test_a_record_is_changed_whole_and_only_from_the_states_that_are_meant(
    settings: Settings,
) -> None:
    first = claim(settings)
    assert first is not None
    assert arrivals.update(settings, DIGEST, expect=("running",), state="done") is None
    running = arrivals.update(settings, DIGEST, expect=("seen",), state="running", flow_run="1")
    assert running == replace(first, state="running", flow_run="1")
    assert arrivals.get(settings, DIGEST) == running == arrivals.read_all(settings)[0]
    with pytest.raises(UsageError):
        arrivals.update(settings, DIGEST, state="lost")
    assert arrivals.get(settings, DIGEST) == running
    assert arrivals.update(settings, "sha256:" + "0" * 64, state="done") is None


def test_only_what_is_finished_can_be_claimed_again(settings: Settings) -> None:
    def again() -> Arrival | None:
        return arrivals.claim(
            settings, "caps", settings.inbox / "caps", DIGEST, "command", again=True
        )

    assert claim(settings) is not None
    assert again() is None
    arrivals.update(settings, DIGEST, state="done", result={"version": 1})
    assert claim(settings) is None
    new = again()
    assert new is not None
    assert (new.state, new.result, new.source) == ("seen", None, "command")


def test_a_damaged_record_is_none_and_is_written_anew(settings: Settings) -> None:
    claim(settings)
    (file,) = (settings.state / "arrivals").glob("*.json")
    for damage in (b"", b"{", b"[]", b'{"digest": "x"}', json.dumps({"digest": DIGEST}).encode()):
        file.write_bytes(damage)
        assert arrivals.get(settings, DIGEST) is None
        assert arrivals.read_all(settings) == []
    assert claim(settings) is not None


@pytest.mark.parametrize("digest", ["", "sha256:x", "../../up", "sha256:../../../etc/passwd"])
def test_what_is_no_digest_names_no_file(settings: Settings, digest: str) -> None:
    assert arrivals.get(settings, digest) is None
    with pytest.raises(UsageError):
        claim(settings, digest=digest)


def test_the_digest_is_of_name_paths_and_bytes(tmp_path: Path) -> None:
    one, two = make(tmp_path / "one"), make(tmp_path / "two")
    cache = tmp_path / "cache"
    first = content_digest(one, "caps", cache)
    assert content_digest(two, "caps", cache) == first == content_digest(one, "caps", cache)
    assert content_digest(one, "lids", cache) != first
    for clutter in (".DS_Store", "READY", "train/.hidden"):
        (one / clutter).write_text("x")
    assert content_digest(one, "caps", cache) == first
    (one / "train" / "READY").write_text("x")  # only at the top it says something
    assert content_digest(one, "caps", cache) != first
    (one / "train" / "READY").unlink()
    file = one / "train/good/1.png"
    before = file.stat()
    file.write_text(file.read_text()[::-1])
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))  # as a careless copy does
    assert content_digest(one, "caps", cache) != first
    file.rename(one / "train/good/7.png")
    assert content_digest(two, "caps", cache) == first


def test_a_link_or_a_pipe_is_not_opened(tmp_path: Path) -> None:
    folder = make(tmp_path / "one")
    first = content_digest(folder, "caps")
    os.mkfifo(folder / "train/pipe.png")
    (folder / "train/link.png").symlink_to("/dev/zero")
    assert content_digest(folder, "caps") != first


def test_a_second_digest_reads_no_file(tmp_path: Path) -> None:
    folder, cache = make(tmp_path / "one"), tmp_path / "cache"
    for path in folder.rglob("*.png"):
        os.utime(path, (1, 1))
    until(lambda: False, 2.1)  # what has just changed is read again
    first = content_digest(folder, "caps", cache)
    (kept,) = cache.iterdir()
    values = json.loads(kept.read_bytes())
    assert len(values) == 12
    assert content_digest(folder, "caps", cache) == first
    shown = next(iter(values))
    values[shown][-1] = "sha256:other"  # what is kept is believed
    kept.write_text(json.dumps(values))
    assert content_digest(folder, "caps", cache) != first


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("incoming/caps", True),
        ("data/caps", True),
        (".clr/unpacked/01/caps", True),
        ("", False),
        ("..", False),
        ("incoming/../../elsewhere", False),
        ("/etc", False),
        (".clr", False),
        (".clr/server/secrets", False),
        (".git/objects", False),
        (".dvc/cache", False),
        (".clr/unpacked", False),
        ("incoming/link", False),
        ("incoming/nul\0", False),
    ],
)
def test_an_event_names_only_what_may_be_read(settings: Settings, path: str, allowed: bool) -> None:
    (settings.inbox / "link").symlink_to("/etc")
    if allowed:
        assert arrivals.confine(settings, path) == (settings.workspace / path).resolve()
        assert arrivals.confine(settings, settings.workspace / path)
    else:
        with pytest.raises(UsageError, match="outside"):
            arrivals.confine(settings, path)


@given(st.lists(st.sampled_from(["..", ".", "incoming", "caps", "/", "~", "link", "a b"])))
@tried(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_path_leads_out(settings: Settings, parts: list[str]) -> None:
    link = settings.inbox / "link"
    if not link.is_symlink():
        link.symlink_to(settings.workspace.parent)
    try:
        found = arrivals.confine(settings, "/".join(parts))
    except UsageError:
        return
    assert found.is_relative_to(settings.workspace.resolve())
    assert found == found.resolve()


def test_what_a_person_named_on_this_machine_may_lie_anywhere(
    settings: Settings, tmp_path: Path
) -> None:
    mine = make(tmp_path / "mine")
    with pytest.raises(UsageError):
        arrivals.confine(settings, mine, DIGEST)
    arrivals.claim(settings, "mine", mine, DIGEST, "command")
    assert arrivals.confine(settings, mine, DIGEST) == mine
    with pytest.raises(UsageError):  # that record opens no other folder
        arrivals.confine(settings, tmp_path / "other", DIGEST)


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "running"),
        (ServiceUnavailable("The lock is taken.", fix="Wait."), "running"),
        (DataRefused("No image.", fix="Add some."), "refused"),
        (UsageError("No such setting.", fix="Correct it."), "failed"),
        (RuntimeError("a bug"), "failed"),
    ],
    ids=lambda one: type(one).__name__,
)
def test_what_may_pass_by_itself_is_tried_again(
    error: Exception, state: str, settings: Settings
) -> None:
    claim(settings)
    assert arrivals.update(settings, DIGEST, expect=("seen",), state="running")

    def work() -> dict[str, object]:
        raise error

    with pytest.raises(ClrError) as caught:
        tracking.through(settings, DIGEST, work)
    found = arrivals.get(settings, DIGEST)
    assert found is not None
    assert (found.state, found.result) == (state, caught.value.as_dict())


@pytest.mark.parametrize("address", [NOBODY, "http://[::1/api", "here"])
def test_without_a_server_nothing_is_lost(
    address: str, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", address)
    before = claim(settings)
    with pytest.raises(ServiceUnavailable, match="Prefect"):
        announce.tell_all(settings)
    assert arrivals.get(settings, DIGEST) == before


def test_the_server_has_the_event_and_is_told_again_until_a_run_names_it(
    settings: Settings, prefect_api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", prefect_api)
    make(settings.inbox / "told")
    digest = arrivals.digest_folder(settings, settings.inbox / "told", "told")
    claim(settings, "told", digest)
    assert announce.tell_all(settings) == 0  # what it told just now is counted the next time
    told = arrivals.get(settings, digest)
    assert told is not None
    assert (told.state, told.attempts) == ("announced", 1)

    def events() -> list[dict[str, object]]:
        body = {"filter": {"event": {"name": ["clr.task.arrived"]},
                           "resource": {"id": ["clr.task.told"]}}}  # fmt: skip
        found: list[dict[str, object]] = _post(prefect_api, "/events/filter", body)["events"]
        return found

    (event,) = until(events)
    assert event["payload"] == {
        "task": "told", "path": "incoming/told", "digest": digest, "source": "folder", "images": 12,
    }  # fmt: skip
    assert announce.tell_all(settings) == 1
    assert arrivals.get(settings, digest) == told  # it is not late yet
    for jump in ("2020-01-01T00:00:00+00:00", "2090-01-01T00:00:00+00:00"):  # either way
        arrivals.update(settings, digest, announced_at=jump)
        announce.tell_all(settings)
    again = arrivals.get(settings, digest)
    assert again is not None
    assert again.attempts == 3
    assert until(lambda: len(events()) == 3)

    run = _run_of(prefect_api, digest)
    arrivals.update(settings, digest, announced_at="2020-01-01T00:00:00+00:00")
    announce.tell_all(settings)
    found = arrivals.get(settings, digest)
    assert found is not None
    assert (found.attempts, found.flow_run) == (3, run)


def _run_of(api: str, digest: str) -> str:
    """A flow run that names an arrival, as the deployment's trigger makes one."""
    flow = _post(api, "/flows/", {"name": announce.FLOW})
    body = {
        "flow_id": flow["id"],
        "parameters": {"arrival": digest},
        "state": {"type": "SCHEDULED"},
    }
    return str(_post(api, "/flow_runs/", body)["id"])


def _post(api: str, path: str, body: object) -> dict[str, list[dict[str, object]]]:
    request = urllib.request.Request(
        api + path, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        found: dict[str, list[dict[str, object]]] = json.load(answer)
    return found


def test_the_password_is_sent_to_the_server(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading
    from http.server import BaseHTTPRequestHandler, HTTPServer

    seen: list[str | None] = []

    class Server(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.append(self.headers["Authorization"])
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(401)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Server) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{server.server_port}/api")
        monkeypatch.setenv("PREFECT_API_AUTH_STRING", "clr:secret")
        claim(settings)
        with pytest.raises(ServiceUnavailable, match="401") as refusal:
            announce.tell_all(settings)
    assert seen == ["Basic " + base64.b64encode(b"clr:secret").decode()]
    assert "secret" not in str(refusal.value)


def pin(settings: Settings, *, message: str = "data") -> str:
    """Version data/ as it is, push it to the DVC remote, commit data.dvc."""
    from clr.data import dvc, listing, objects
    from clr.data.check import pinned_files

    with dvc.open_repo(settings) as repo:
        objects.add(repo)
        files = set(pinned_files(settings.workspace).values())
        objects.push(repo, {*files, listing.pinned_oid(settings.workspace)})
    git(settings.workspace, "add", "-f", "data.dvc", ".gitignore", ".dvcignore")
    git(settings.workspace, "commit", "-qm", message)
    return git(settings.workspace, "rev-parse", "HEAD")


def test_tasks_that_a_commit_changes_arrive_from_the_workspace_and_from_a_bare_remote(
    settings: Settings, tmp_path: Path
) -> None:
    """The author's workspace, a bare remote, and a plant that watches it: one DVC remote."""
    shared = tmp_path / "dvc-remote"
    author = settings.model_copy(update={"dvc_remote": str(shared)})
    make(author.workspace / "data" / "old", words="old")
    pin(author)
    git(tmp_path, "init", "-q", "--bare", "-b", "main", "origin.git")
    git(author.workspace, "remote", "add", "origin", tmp_path / "origin.git")
    git(author.workspace, "push", "-q", "origin", "HEAD:main")
    git(tmp_path, "clone", "-q", "origin.git", "far")
    init_workspace(tmp_path / "far")
    far = Settings(
        workspace=tmp_path / "far", dvc_remote=str(shared), git_remote=str(tmp_path / "origin.git")
    )
    fast = {"CLR_DVC_REMOTE": str(shared), "CLR_GIT_POLL_SECONDS": "0.5"}
    with (
        watcher(author, **fast),
        watcher(far, **fast, CLR_GIT_REMOTE=far.git_remote) as log,
    ):
        for one, places in ((author, {"workspace"}), (far, {"workspace", "remote"})):
            state = one.state / "git.json"
            assert until(
                lambda s=state, p=places: s.exists() and json.loads(s.read_bytes()).keys() >= p, 60
            ), log.read_text()
            assert known(one) == {}  # what was there from the beginning does not arrive

        make(author.workspace / "data" / "new", words="new")
        make(author.workspace / "data" / "old", words="older")
        commit = pin(author)
        git(author.workspace, "push", "-q", "origin", "HEAD:main")
        for one in (author, far):
            assert until(lambda s=one: known(s).keys() == {"new", "old"}, 60), (
                one.workspace / "watch.log"
            ).read_text()
            for task in ("new", "old"):
                found = known(one)[task]
                place = arrivals.location(one, found)
                assert (found.source, found.origin) == ("git", commit)
                assert place.is_relative_to(one.unpacked)
                assert found.digest == content_digest(author.workspace / "data" / task, task)
                assert content_digest(place, task) == found.digest

        # a commit that changes no data, and one that goes back, bring nothing new
        git(author.workspace, "commit", "-q", "--allow-empty", "-m", "words")
        shutil.rmtree(author.workspace / "data" / "new")
        last = pin(author)
        assert until(
            lambda: (
                json.loads((author.state / "git.json").read_bytes())["workspace"]["commit"] == last
            ),
            60,
        )
        assert len(arrivals.read_all(author)) == 2


def test_a_hook_names_a_commit_and_damaged_objects_are_refused(
    settings: Settings, tmp_path: Path
) -> None:
    from clr.errors import IntegrityBroken
    from flows.git_arrivals import take_commit
    from flows.session import Session

    make(settings.workspace / "data" / "caps")
    commit = pin(settings)
    session = Session(settings)
    with pytest.raises(UsageError, match="no commit"):
        take_commit(session, "0" * 40, "workspace")
    with pytest.raises(UsageError, match="no commit"):
        take_commit(session, "--output=/tmp/x", "workspace")
    victim = next(
        path
        for path in (settings.workspace / ".dvc/cache/files/md5").glob("*/*")
        if not path.name.endswith(".dir") and path.stat().st_size
    )
    content = victim.read_bytes()
    victim.chmod(0o644)
    victim.write_bytes(b"changed")
    with pytest.raises(IntegrityBroken, match="corrupt"):
        take_commit(session, commit, "workspace")
    assert not list(settings.unpacked.glob("*"))
    victim.write_bytes(content)
    (new,) = take_commit(session, commit, "workspace")
    assert new.task == "caps"
    assert take_commit(session, commit, "workspace") == []
