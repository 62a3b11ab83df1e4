"""Whatever happens to a file of a run: the next run mends it, and ends with the same bytes."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
import toy_graph
from safetensors import SafetensorError

from headrace.errors import UserError
from headrace.flow.artifact import Artifact, DamagedArtifact
from headrace.flow.damage import rebuilding_damaged
from headrace.flow.events import LOG, EventLog, read_events
from headrace.flow.executors.inline import InlineExecutor
from headrace.flow.lock import lock, locked
from headrace.flow.runner import make
from headrace.flow.step import topological
from headrace.flow.storage import SealError, explain_os_error, explaining_os_errors, read_sealed, write_sealed


def attempt(run: Path, verify: bool = False, phases: int = -1) -> list[str]:
    """Make everything, or stop when so many phases have begun; the notices."""
    said: list[str] = []

    def hear(event) -> None:
        nonlocal phases
        if event["event"] == "phase":
            phases -= 1
            if phases == 0:
                raise KeyboardInterrupt
        if event["event"] == "notice":
            said.append(event["text"])

    log = EventLog(run, hear)
    steps = topological(toy_graph.targets(run))
    try:
        rebuilding_damaged(
            lambda: make(steps, run, InlineExecutor(run, steps, 1 << 26), log, 1 << 26, verify) and None, run, log
        )
    finally:
        log.close()
    return said


def prepare(run: Path) -> Path:
    run.mkdir()
    (run / "toy.json").write_bytes(orjson.dumps({"shards": 3, "rows": 50}))
    return run


def contents(run: Path) -> dict[str, bytes]:
    base = run / "artifacts"
    return {str(p.relative_to(base)): p.read_bytes() for p in sorted(base.rglob("*")) if p.is_file()}


def flip(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes() or b" ")
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def cut(path: Path, rng: random.Random) -> None:
    os.truncate(path, rng.randrange(max(1, path.stat().st_size)))


def delete(path: Path, rng: random.Random) -> None:
    path.unlink()


def garbage(path: Path, rng: random.Random) -> None:
    path.write_bytes(rng.randbytes(100))


DAMAGE: list[Callable[[Path, random.Random], None]] = [flip, cut, delete, garbage]


@pytest.fixture(scope="module")
def expected(tmp_path_factory) -> dict[str, bytes]:
    run = prepare(tmp_path_factory.mktemp("expected") / "run")
    attempt(run)
    return contents(run)


@pytest.mark.parametrize("damage", DAMAGE)
def test_any_file_of_a_finished_run(tmp_path, expected, damage):
    rng = random.Random(damage.__name__)
    run = prepare(tmp_path / "run")
    attempt(run)
    for name in expected:
        damage(run / "artifacts" / name, rng)
        said = attempt(run, verify=True)
        assert contents(run) == expected, name
        folder = name.split("/")[0]
        assert any("damaged" in text and folder in text for text in said), name
    assert len(list((run / "damaged").iterdir())) == len(expected)


@pytest.mark.parametrize("phases", [1, 2, 3])
@pytest.mark.parametrize("damage", DAMAGE)
def test_any_file_of_a_run_that_was_stopped(tmp_path, expected, damage, phases):
    rng = random.Random(damage.__name__)
    for number in range(100):
        run = prepare(tmp_path / f"run{number}")
        with pytest.raises(KeyboardInterrupt):
            attempt(run, phases=phases)
        files = sorted(p for p in run.rglob("*") if p.is_file() and p.name != "toy.json")
        if number == len(files):
            return
        damage(files[number], rng)
        attempt(run, verify=True)
        assert contents(run) == expected, files[number]


def test_damage_is_found_by_whoever_reads_it_first(tmp_path, expected):
    """Without ``verify``: a shard is compared when the next step reads it, and made anew in the same run."""
    run = prepare(tmp_path / "run")
    attempt(run)
    shuffled = topological(toy_graph.targets(run))[-1]
    numbers = next(iter(shuffled.inputs().values()))
    for path in sorted((run / "artifacts" / shuffled.name).iterdir()):
        path.unlink()
    (run / "artifacts" / shuffled.name).rmdir()
    path = run / "artifacts" / numbers.name / "00001.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    said = attempt(run)
    assert contents(run) == expected
    assert len(said) == 1
    assert "00001.npy" in said[0]


def test_what_is_damaged_again_and_again_stops_the_run(tmp_path, monkeypatch):
    run = prepare(tmp_path / "run")

    def damaged() -> None:
        (run / "artifacts" / "toy-1").mkdir(parents=True, exist_ok=True)
        raise DamagedArtifact("It is damaged.", "there", artifact="toy-1")

    log = EventLog(run)
    with pytest.raises(DamagedArtifact):
        rebuilding_damaged(damaged, run, log)
    log.close()
    assert [path.name for path in (run / "damaged").iterdir()] == ["toy-1-1"]


def test_events_are_read_whatever_became_of_the_log(tmp_path):
    rng = random.Random(0)
    for damage in (*DAMAGE, lambda path, rng: os.truncate(path, path.stat().st_size - 20)):
        (tmp_path / LOG).unlink(missing_ok=True)
        for start in (0, 5):
            log = EventLog(tmp_path)
            for number in range(start, start + 5):
                log.emit("artifact", artifact=f"a{number}", state="published", seconds=0.5)
            log.close()
            if start == 0:
                damage(tmp_path / LOG, rng)
        told = [event["artifact"] for event in read_events(tmp_path)]
        assert told[-5:] == [f"a{number}" for number in range(5, 10)]
        assert all(event["seconds"] == 0.5 for event in read_events(tmp_path))


def test_a_sealed_file_is_read_as_written_or_not_at_all(tmp_path):
    path, rng = tmp_path / "a.json", random.Random(0)
    value = {"b": [1, 2.5, None, "x"], "a": {"é": True}}
    write_sealed(path, value)
    assert read_sealed(path) == value
    whole = path.read_bytes()
    for bit in range(8 * len(whole)):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        path.write_bytes(data)
        try:
            assert read_sealed(path) == value  # a bit of white space
        except SealError:
            continue
    cut(path, rng)
    with pytest.raises(SealError):
        read_sealed(path)


def test_a_lock_is_asked_about_without_being_taken(tmp_path):
    with lock(tmp_path):
        assert locked(tmp_path)
        with pytest.raises(UserError, match="Another headrace run"), lock(tmp_path):
            pass
        assert locked(tmp_path)  # asking and failing let go of nothing
    assert not locked(tmp_path)
    before = sorted(tmp_path.iterdir())
    os.chmod(tmp_path, 0o555)
    os.chmod(tmp_path / ".lock", 0o444)
    assert not locked(tmp_path)
    assert sorted(tmp_path.iterdir()) == before
    assert not locked(tmp_path / "absent")


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        OSError("123 requested and 45 written"),
        OSError("[Errno 28] Error writing bytes to file. Detail: [errno 28] No space left on device"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        OSError("Can't write data (file write failed: errno = 28, error message = 'No space left on device')"),
        RuntimeError("PytorchStreamWriter failed writing file: file write failed, Disk quota exceeded"),
    ],
)
def test_a_full_disk_is_told_in_whatever_words_it_comes(error):
    told = explain_os_error(error, "somewhere")
    assert told is not None
    assert "is full" in told.what or "quota" in told.what
    assert told.where == "somewhere"
    with pytest.raises(UserError), explaining_os_errors("somewhere"):
        raise ValueError("a library's own") from error


@pytest.mark.parametrize("error", [ValueError("nothing"), FileNotFoundError(2, "No such file"), KeyError("a")])
def test_what_is_no_refusal_stays_what_it_is(error):
    assert explain_os_error(error) is None
    with pytest.raises(type(error)), explaining_os_errors():
        raise error


def test_a_checked_artifact_compares_each_file_once(tmp_path, expected):
    run = prepare(tmp_path / "run")
    attempt(run)
    [folder] = (run / "artifacts").glob("numbers-*")
    artifact = Artifact.open(folder, verify=True)
    path = artifact.shard_path(0)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert artifact.shard_path(0) == path
    with pytest.raises(DamagedArtifact):
        Artifact.open(folder, verify=True).shard_path(0)
    (folder / "manifest.json").write_text((folder / "manifest.json").read_text().replace("150", "151"))
    with pytest.raises(DamagedArtifact):
        Artifact.open(folder)
