"""A run at a URL: the same bytes as on a disk, wherever and whenever machines die, and nothing is fetched in vain."""

from __future__ import annotations

import json
import os
from itertools import count
from pathlib import Path

import pytest
import toy_graph

from headrace.errors import UserError
from headrace.flow import eviction
from headrace.flow import lease as lease_module
from headrace.flow import remote as remote_module
from headrace.flow.artifact import Artifact, DamagedArtifact
from headrace.flow.coordinating import coordinating, holder
from headrace.flow.events import EventLog
from headrace.flow.executors.inline import InlineExecutor
from headrace.flow.mirror import local_path, mirror_of, working_folder
from headrace.flow.runner import make
from headrace.flow.step import topological
from headrace.flow.storage import write_json
from object_store import Proxy, environment, serving
from quick import quick

NAMES = count()


@pytest.fixture(scope="module")
def server():
    with serving() as made:
        yield made


@pytest.fixture
def proxy(server, monkeypatch, tmp_path):
    monkeypatch.setattr(remote_module, "PAUSE", 0.001)
    monkeypatch.setattr(lease_module, "LAPSE", 0.3)
    monkeypatch.setattr(lease_module, "LOOK", 0.05)
    made = Proxy(server.host, server.port)
    with environment(made.url, HEADRACE_CACHE=str(tmp_path / "cache")):
        yield made
    made.close()


@pytest.fixture
def url(proxy):
    return f"s3://bucket/runs/{next(NAMES)}"


@pytest.fixture
def another_machine(monkeypatch, tmp_path):
    """From now on there is an empty cache."""

    def arrive() -> None:
        monkeypatch.setenv("HEADRACE_CACHE", str(tmp_path / f"cache-{next(NAMES)}"))

    return arrive


def run(place: Path | str) -> Path:
    """Build the toys in this process; returns the folder."""
    folder = local_path(place)
    with coordinating(folder) as lease:
        write_json(folder / "toy.json", {"rows": 50})
        log = EventLog(folder)
        try:
            steps = toy_graph.targets(folder)
            executor = InlineExecutor(folder, steps, 1 << 20)
            make(topological(steps), folder, executor, log, 1 << 20, check=lease.check)
        finally:
            log.close()
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    """Every byte that was published, which is fetched and compared with its digest."""
    found = {}
    for path in sorted((folder / "artifacts").iterdir()):
        artifact = Artifact.open(path, verify=True)
        for entry in artifact.entries:
            index = next((k for k, shard in enumerate(artifact.shards) if shard is entry), None)
            name = entry["name"]
            file = artifact.file_path(name) if index is None else artifact.shard_path(index)
            found[f"{path.name}/{name}"] = file.read_bytes()
        found[f"{path.name}/manifest.json"] = (path / "manifest.json").read_bytes()
    return found


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    return contents(run(tmp_path_factory.mktemp("expected") / "run"))


def test_the_bytes_are_those_of_a_disk(url, proxy, expected, another_machine):
    folder = run(url)
    assert contents(folder) == expected
    another_machine()
    folder = working_folder(url)
    assert sorted(path.name for path in (folder / "artifacts").iterdir()) == sorted(
        {name.split("/")[0] for name in expected}
    )
    assert contents(folder) == expected
    remote = mirror_of(folder).remote
    assert not [key for key, _ in remote.names("artifacts") if ".partial" in key], "nothing unfinished is left"


class Killed(BaseException):
    """What stands for SIGKILL: nothing reaches the store from then on."""


def killed_at(monkeypatch: pytest.MonkeyPatch, moment: int, answered: bool) -> None:
    """Die at a request: before it reaches the store, or when it was carried out."""
    left, real = [moment], remote_module.Remote._trying

    def trying(self, key, request):
        left[0] -= 1
        if left[0] < 0 or (left[0] == 0 and not answered):
            raise Killed
        answer = real(self, key, request)
        if left[0] == 0:
            left[0] = -1
            raise Killed
        return answer

    monkeypatch.setattr(remote_module.Remote, "_trying", trying)


@pytest.mark.parametrize("moment", quick(range(1, 90), 30, 55))
@pytest.mark.parametrize("other", [False, True])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_killed_at_any_request_and_resumed(url, proxy, monkeypatch, expected, another_machine, moment, other):
    with monkeypatch.context() as patch:
        killed_at(patch, moment, answered=moment % 2 == 0)
        try:
            run(url)
        except Killed:
            pass
        else:
            pytest.skip("it was done before")
    if other:
        another_machine()
    assert contents(run(url)) == expected


def test_what_is_there_is_not_done_again(url, proxy, another_machine):
    run(url)
    another_machine()
    proxy.asked.clear()
    folder = run(url)
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    assert {event["state"] for event in events if event["event"] == "artifact"} == {"started", "published", "present"}
    written = [one.path for one in proxy.asked if one.method == "PUT" and "/artifacts/" in one.path]
    assert written == []
    read = [one.path for one in proxy.asked if "/artifacts/" in one.path and "list-type" not in one.path]
    assert all("manifest.json" in path for path in read), "no shard is fetched to see that it is there"


@pytest.mark.parametrize("fault", quick(["drop", "lose", "truncate", "spoil", 500, 503], "lose", "truncate"))
def test_faults_of_the_storage_change_no_byte(url, proxy, expected, fault, another_machine):
    number = count()
    proxy.fault = lambda asked: fault if next(number) % 5 == 3 else None
    assert contents(run(url)) == expected
    another_machine()
    assert contents(working_folder(url)) == expected


def test_a_store_that_does_not_know_conditions(url, proxy, expected, monkeypatch):
    monkeypatch.setattr(lease_module, "SETTLE", 0.05)
    proxy.fault = lambda asked: 501 if asked.headers.get("if-none-match") or asked.headers.get("if-match") else None
    assert contents(run(url)) == expected
    assert contents(run(url)) == expected


def test_a_store_that_ignores_conditions(url, proxy, expected, monkeypatch):
    monkeypatch.setattr(lease_module, "SETTLE", 0.05)
    proxy.without = {"if-none-match", "if-match"}
    assert contents(run(url)) == expected
    assert contents(run(url)) == expected


def test_a_damaged_shard_is_told_and_built_again(url, proxy, expected, another_machine):
    folder = run(url)
    mirror = mirror_of(folder)
    key = next(key for key, _ in mirror.remote.names("artifacts") if "/numbers-" in key or key.endswith("00000.npy"))
    mirror.remote.put(key, b"something else")
    another_machine()
    with pytest.raises(DamagedArtifact, match=r"bytes|digest differs"):
        contents(working_folder(url))


def test_one_coordinator_at_a_time(url, proxy, another_machine, monkeypatch):
    monkeypatch.setattr(lease_module, "LAPSE", 30.0)
    monkeypatch.setattr(lease_module, "BEAT", 0.05)
    folder = local_path(url)
    with coordinating(folder):
        assert holder(folder)["process"] == os.getpid()
        another_machine()
        assert holder(local_path(url))["process"] == os.getpid()
        with pytest.raises(UserError, match="Another headrace run"), coordinating(local_path(url)):
            pass
    assert holder(local_path(url)) is None
    with coordinating(local_path(url)):
        pass


def test_one_that_was_silent_too_long_publishes_nothing(url, proxy, another_machine, monkeypatch):
    monkeypatch.setattr(lease_module, "BEAT", 1000.0)  # as if it were stopped
    first, cache = local_path(url), os.environ["HEADRACE_CACHE"]
    with coordinating(first) as lease:
        another_machine()
        with coordinating(local_path(url)) as second:
            assert second.fence == lease.fence + 1
        monkeypatch.setenv("HEADRACE_CACHE", cache)
        monkeypatch.setattr(lease_module, "GIVE_UP", 0.0)
        with pytest.raises(UserError, match="lost the run"):
            write_json(first / "recipe.yaml", {})
        with pytest.raises(UserError, match="lost the run"):
            lease.check()


def test_a_folder_that_machines_share_has_a_lease_too(tmp_path, monkeypatch):
    monkeypatch.setattr(lease_module, "BEAT", 0.05)
    monkeypatch.setattr("headrace.flow.coordinating._machine", lambda: "one")
    folder = tmp_path / "run"
    with coordinating(folder) as lease:
        assert holder(folder)["process"] == os.getpid()
        other = lease_module.InFolder(folder)
        with pytest.raises(UserError, match="Another headrace run"):
            lease_module.Lease(other, str(folder), "two")
        assert lease.fence == 1
    monkeypatch.setattr(lease_module, "LAPSE", 0.1)
    monkeypatch.setattr(lease_module, "LOOK", 0.02)
    with coordinating(folder) as lease:
        assert lease.fence == 2


def test_nothing_of_the_credentials_is_kept(url, proxy):
    folder = run(url)
    for path in folder.rglob("*"):
        if path.is_file():
            assert b"secret-for-tests" not in path.read_bytes()
    remote = mirror_of(folder).remote
    for key, _ in remote.names(""):
        assert b"secret-for-tests" not in remote.read(key)[0]


def test_a_folder_is_no_mirror(tmp_path):
    assert working_folder(tmp_path) == tmp_path
    assert working_folder(f"file://{tmp_path}/a%20b") == tmp_path / "a b"
    assert mirror_of(tmp_path) is None


def test_a_mirror_keeps_to_its_budget(url, proxy, expected, another_machine, monkeypatch):
    run(url)
    another_machine()
    monkeypatch.setattr(eviction, "GRACE", -1.0)
    monkeypatch.setenv("HEADRACE_CACHE_BYTES", "4000")
    folder = working_folder(url)
    assert contents(folder) == expected, "what was deleted is fetched again"
    held = sum(path.stat().st_size for path in folder.rglob("*.npy"))
    assert held < sum(len(data) for name, data in expected.items() if name.endswith(".npy"))
    assert contents(folder) == expected


def test_what_is_not_in_the_store_is_not_deleted(tmp_path, monkeypatch):
    monkeypatch.setattr(eviction, "GRACE", -1.0)
    written, fetched = tmp_path / "written", tmp_path / "fetched"
    for path in (written, fetched):
        path.write_bytes(b"x" * 100)
    fetched.chmod(0o444)
    eviction.evict(tmp_path, 0)
    assert (written.exists(), fetched.exists()) == (True, False)
