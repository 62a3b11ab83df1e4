"""Objects of a store: what is written is read, whatever the network does, and refusals are in the user's words."""

from __future__ import annotations

import os
import threading
from itertools import count

import pytest

from headrace.errors import UserError
from headrace.flow import remote as remote_module
from headrace.flow.cloud import normal
from headrace.flow.remote import Remote, Spoilt
from headrace.flow.storage import digest_file
from object_store import Proxy, environment, serving

NAMES = count()
PIECE = 5 << 20  # the least that S3 takes as a part of an object


@pytest.fixture(scope="module")
def server():
    with serving() as made:
        yield made


@pytest.fixture
def proxy(server, monkeypatch):
    monkeypatch.setattr(remote_module, "PAUSE", 0.001)
    monkeypatch.setattr(remote_module, "PIECE", PIECE)
    made = Proxy(server.host, server.port)
    with environment(made.url):
        yield made
    made.close()


@pytest.fixture
def store(proxy):
    return Remote(f"s3://bucket/place-{next(NAMES)}/")


def test_what_is_written_is_read(store, tmp_path):
    store.put("a/b", b"hello")
    assert store.read("a/b")[0] == b"hello"
    large = tmp_path / "large"
    large.write_bytes(os.urandom(1000) * (2 * PIECE // 1000))
    store.put("large", large)
    digest = digest_file(large)
    head = store.head("large")
    assert (head.bytes, head.digest) == (large.stat().st_size, digest)
    store.fetch("large", tmp_path / "again")
    assert digest_file(tmp_path / "again") == digest
    assert [bytes(one) for one in store.ranges("large", [(5, 9), (PIECE, PIECE + 7)])] == [
        large.read_bytes()[5:9],
        large.read_bytes()[PIECE : PIECE + 7],
    ]
    store.copy("large", "a/copy")
    assert store.head("a/copy").digest == digest
    assert sorted(key for key, _ in store.names("a")) == ["a/b", "a/copy"]
    folders, objects = store.folders()
    assert (folders, [key for key, _ in objects]) == (["a"], ["large"])
    store.delete(["a/b", "a/copy", "none"])
    assert [*store.names("a")] == []
    with pytest.raises(FileNotFoundError):
        store.read("a/b")
    with pytest.raises(FileNotFoundError):
        store.fetch("a/b", tmp_path / "none")
    assert store.head("a/b") is None


def test_an_empty_file_is_a_file(store, tmp_path):
    (tmp_path / "empty").touch()
    store.put("empty", tmp_path / "empty")
    store.fetch("empty", tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == b""


def test_a_key_is_created_once(store):
    first = store.create("manifest", b"one")
    assert first
    assert store.create("manifest", b"two") is None
    assert store.create("manifest", b"one") == first, "the same bytes again are no conflict"
    assert store.swap("manifest", b"three", "another") is None
    second = store.swap("manifest", b"three", first)
    assert second not in (None, first)
    assert store.read("manifest")[0] == b"three"


FAULTS = ["drop", "lose", 500, 503]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_put_whose_answer_is_lost_is_no_conflict(store, proxy, fault):
    left = [fault]
    proxy.fault = lambda asked: left.pop() if asked.method == "PUT" and left else None
    etag = store.create("manifest", b"one")
    assert etag
    assert not left
    assert store.create("manifest", b"two") is None
    left.append(fault)
    assert store.swap("manifest", b"two", etag)


@pytest.mark.parametrize("fault", [*FAULTS, "truncate", "spoil"])
def test_what_is_fetched_is_whole(store, proxy, tmp_path, fault):
    data = tmp_path / "data"
    data.write_bytes(os.urandom(PIECE + 99))
    digest = digest_file(data)
    store.put("data", data)
    left = [fault] * 3
    proxy.fault = lambda asked: left.pop() if asked.method == "GET" and left else None
    store.fetch("data", tmp_path / "again", data.stat().st_size, digest)
    assert digest_file(tmp_path / "again") == digest
    assert not left
    left.append(fault)
    small = store.put("small", b"x" * 100) and store.read("small")[0]
    assert small == b"x" * 100
    assert not left


def test_a_spoilt_object_is_told(store, tmp_path):
    store.put("a", b"x", digest="0" * 32)
    with pytest.raises(Spoilt, match="digest differs"):
        store.read("a")
    with pytest.raises(Spoilt, match="digest differs"):
        store.fetch("a", tmp_path / "a")


def test_one_of_many_creates_a_key(store):
    store.put("warm", b"")
    made: list[int] = []

    def create(number: int) -> None:
        if Remote(store.url).create("key", b"%d" % number):
            made.append(number)

    threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1
    assert store.read("key")[0] == b"%d" % made[0]


def test_a_forked_process_fetches(store, tmp_path):
    store.put("a", b"hello")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            store.fetch("a", tmp_path / "a")
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert (tmp_path / "a").read_bytes() == b"hello"


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (403, "AccessDenied", "refuses access"),
        (403, "InvalidAccessKeyId", "does not accept the credentials"),
        (403, "SignatureDoesNotMatch", "does not accept the credentials"),
        (403, "RequestTimeTooSkewed", "clock"),
        (400, "AuthorizationHeaderMalformed", "another region"),
        (301, "PermanentRedirect", "another region"),
        (404, "NoSuchBucket", "no such bucket"),
    ],
)
def test_refusals_are_told(store, proxy, monkeypatch, status, code, words):
    answer = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
    monkeypatch.setattr("object_store.ERROR", answer)
    proxy.fault = lambda asked: status
    with pytest.raises(UserError, match=words) as told:
        store.put("a", b"x")
    assert "secret-for-tests" not in str(told.value)


def test_no_such_bucket(proxy):
    with pytest.raises(UserError, match="no such bucket"):
        Remote("s3://no-such-bucket/runs/x").put("a", b"x")
    with pytest.raises(UserError, match="no such bucket"):
        Remote("s3://no-such-bucket/runs/x").folders()


def test_no_credentials(proxy, monkeypatch, tmp_path):
    pytest.importorskip("boto3")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(UserError, match="no credentials"):
        Remote("s3://bucket/x").read("a")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://a/b", "no storage of this kind"),
        ("hf://datasets/a/b", "not opened in place"),
        ("s3:///runs", "names no bucket"),
        ("s3://key:secret@bucket/x", "holds credentials"),
        ("s3://bucket/a/../b", "parts that are no names"),
    ],
)
def test_urls_that_cannot_be(url, words):
    with pytest.raises(UserError, match=words) as told:
        normal(url)
    assert "secret" not in str(told.value)


def test_urls_that_are_the_same():
    assert normal("s3:/bucket//a/b/") == normal("s3://bucket/a/b") == "s3://bucket/a/b"
    assert normal("gs://bucket") == "gs://bucket"
