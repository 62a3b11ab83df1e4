"""Sequences in files that no run holds: every format that is read, published files, damaged ones."""

from __future__ import annotations

import os
import shutil
from itertools import pairwise
from pathlib import Path

import h5py
import numpy as np
import orjson
import pytest
from pages import parsed
from starlette.testclient import TestClient

from headrace.errors import UserError
from headrace.export import Wanted, export
from headrace.formats.format import ReadableFormat
from headrace.formats.registry import SEQUENCES
from headrace.sequence.fim import transform
from headrace.sequence.provenance import beside
from headrace.tokens.definition import byte_level_definition
from headrace.tokens.engine import Texts
from headrace.tokens.load import open_file
from headrace.tokens.vocabulary import byte_alphabet
from headrace.view.app import application
from headrace.view.fim import BOTH
from headrace.view.target import Target

READABLE = [name for name, format in SEQUENCES.items() if isinstance(format, ReadableFormat)]
STAGES = ("stage1", "chat")


def opened(path: Path, **options) -> TestClient:
    return TestClient(application(Target(path, **options)), base_url="http://localhost")


def ids(row: dict) -> list[int]:
    return [index for segment in row["segments"] for run in segment["runs"] for index in run["ids"]]


@pytest.fixture(scope="module")
def tokenizer(target) -> Path:
    return beside(target.sequence("stage2"), "tokenizer").path / "tokenizer.json"


@pytest.fixture(scope="module")
def exported(viewed, tmp_path_factory):
    """Exports of two stages, made when they are asked for."""
    root = tmp_path_factory.mktemp("exports")

    def make(to: str) -> Path:
        wanted = Wanted(stages=STAGES)
        return root / to if (root / to).exists() else export(viewed, root / to, to, wanted, workers=0)

    return make


@pytest.mark.parametrize("to", READABLE)
def test_exports(to, exported, target, tokenizer):
    """All rows are the run's; so are sources and segments, where the format tells them."""
    with opened(exported(to), tokenizer=tokenizer) as client:
        told = client.get("/?format=json").json()
        assert (told["format"], [one["name"] for one in told["sequences"]]) == (to, list(STAGES))
        parsed(client.get("/"))
        for name in STAGES:
            sequence = target.sequence(name)
            rows = client.get(f"/sequences/{name}?rows=12&format=json").json()["rows"]
            other = client.get(f"/sequences/{name}?rows=1&row={len(sequence) - 1}&format=json").json()["rows"]
            assert [ids(row) for row in [*rows, *other]] == [
                *sequence.rows(0, 12).tolist(),
                *sequence.rows(len(sequence) - 1, len(sequence)).tolist(),
            ]
            if "segments" in SEQUENCES[to].keeps:
                for row in rows:
                    assert [one["length"] for one in row["segments"]] == sequence.segments(row["row"])[
                        "length"
                    ].tolist()
            page = parsed(client.get(f"/sequences/{name}?row=3&view=text"))
            assert page.all("article")
        assert client.get("/sequences/stage2?format=json").status_code == 404
        assert client.get("/records?format=json").status_code == 404


def test_a_published_file_alone(viewed, target, tokenizer, tmp_path):
    """Without a manifest: text, documents and parts of fill-in-the-middle follow from the tokens."""
    made = export(viewed, tmp_path / "all", "hdf5", Wanted(stages=("stage2",)), workers=0)
    [file] = (made / "stage2").glob("*.h5")
    alone = tmp_path / "published.h5"
    shutil.copy(file, alone)
    special = target.decoder("stage2").special
    sequence, seen = target.sequence("stage2"), set()
    with opened(alone, tokenizer=tokenizer) as client:
        assert client.get("/?format=json").json()["sequences"][0]["name"] == "rows"
        for row in range(0, 400, 40):
            told = client.get(f"/sequences/rows?row={row}&rows=40&view=text&format=json").json()["rows"]
            assert [ids(one) for one in told] == sequence.rows(row, row + 40).tolist()
            for one in told:
                own = sequence.rows(one["row"], one["row"] + 1)[0]
                for segment in one["segments"]:
                    assert special["eod"] not in own[segment["start"] : segment["start"] + segment["length"] - 1]
                    for run in segment["runs"]:
                        seen.add(run["part"])
                        sentinel = own[run["start"]] in [special[f"fim_{p}"] for p in ("prefix", "suffix", "middle")]
                        assert (run["part"] == "sentinel") == sentinel
    assert {"prefix", "suffix", "middle", "sentinel", None} <= seen
    with opened(alone) as client:
        page = parsed(client.get("/sequences/rows"))
        assert "No tokenizer is at hand" in page.text("main")
        assert str(sequence.rows(0, 1)[0, 5]) in page.text("section")


def test_a_file_in_the_style_of_crystalcoder(shared, tmp_path):
    """Rows as CrystalCoder published them (ids, mask, labels) with its tokenizer and its FIM: documents are found, and
    their parts are the text, to the byte."""
    file = shared / "fixtures" / "tokenizers" / "crystalcoder.json"
    engine = open_file(file)
    texts = [f"def f{i}(x):\n    return x + {i}  # é中😀 {'y' * (i % 9)}\n" for i in range(40)]
    keys = np.arange(2 * len(texts), dtype=np.uint64).reshape(-1, 2)
    made = transform(Texts.of(texts), keys, engine, 7, 1.0, 0.5)
    eod = engine.special["eod"]
    stream = [np.append(made.tokens[a:b], eod) for a, b in pairwise(made.offsets.tolist())]
    flat, length = np.concatenate(stream), 256
    rows = [flat[at : at + length + 1] for at in range(0, len(flat) - length, length)]
    data = np.stack([np.stack([row[:-1], np.ones(length, np.int64), row[1:]]) for row in rows]).astype(np.int32)
    with h5py.File(tmp_path / "train_packed_fim_0.h5", "w") as out:
        out.create_dataset("data", data=data, chunks=(1, 3, length), compression="gzip")
        out.attrs["n_examples"] = len(rows)
    with opened(tmp_path / "train_packed_fim_0.h5", tokenizer=file) as client:
        told = client.get(f"/sequences/rows?rows={len(rows)}&format=json").json()["rows"]
        assert [ids(row) for row in told] == [row.tolist() for row in rows]
        whole = {}
        for segment in (segment for row in told for segment in row["segments"]):
            parts = {
                run["part"]: bytes.fromhex(" ".join(run["bytes"])) for run in segment["runs"] if not run["special"]
            }
            whole[tuple(i for run in segment["runs"] for i in run["ids"])] = parts
        seen = 0
        for text, tokens in zip(texts, stream, strict=True):
            parts = whole.get(tuple(tokens.tolist()))
            if parts is not None:  # it is not cut by the end of a row
                seen += 1
                said = b"".join(parts.get(part, b"") for part in ("prefix", "middle", BOTH, "suffix"))
                assert said == b" " + text.encode()  # the tokenizer begins texts with a space
        assert seen > 20
        page = parsed(client.get("/sequences/rows?row=1"))
        assert {"suffix", "prefix", "middle"} <= {tag for text in page.all("b", class_="tag") for tag in text.split()}


def test_the_published_chat_sample(shared):
    """CrystalChat's rows with CrystalCoder's tokenizer: ids, masks, markers."""
    file = shared / "fixtures" / "crystalcoder" / "crystalchat_packed_sample.jsonl"
    with opened(file, tokenizer=shared / "fixtures" / "tokenizers" / "crystalcoder.json") as client:
        row = client.get("/sequences/rows?format=json").json()["rows"][0]
        runs = [run for segment in row["segments"] for run in segment["runs"]]
        assert {run["loss"] for run in runs} == {True, False}
        assert any("<|im_end|>" in run["text"] for run in runs if run["special"])
        assert len(client.get("/sequences/rows").content) < 1_000_000


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: os.truncate(path, path.stat().st_size // 2)])
def test_files_that_change_are_told(exported, tmp_path, tokenizer, damage):
    """Gone or cut short while they are shown: never more than a page that says so."""
    for to in READABLE:
        folder = tmp_path / to
        shutil.copytree(exported(to), folder)
        with opened(folder, tokenizer=tokenizer) as client:
            assert client.get("/sequences/chat?row=2&format=json").status_code == 200
            for path in folder.rglob("*"):
                if path.is_file() and path.name != "manifest.json" and "chat" in str(path.relative_to(folder)):
                    damage(path)
            answer = client.get("/sequences/chat?row=2&format=json")
            assert answer.status_code == 409, (to, answer.text)
            assert answer.json()["error"]
            assert client.get("/sequences/stage1?row=2&format=json").status_code == 200
            shutil.rmtree(folder)
            for url in ("/sequences/stage1", "/stages/stage1/steps/1"):
                answer = client.get(url, headers={"accept": "text/html"})
                assert answer.status_code in (404, 409), (to, url)
                assert "alert" in answer.text


def test_a_damaged_sequence_beside_good_ones(exported, tmp_path, tokenizer):
    """The others are shown; the start page says what is wrong with it."""
    folder = tmp_path / "export"
    shutil.copytree(exported("hdf5"), folder)
    for file in (folder / "chat").glob("*.h5"):
        os.truncate(file, 100)
    with opened(folder, tokenizer=tokenizer) as client:
        told = client.get("/?format=json").json()["sequences"]
        wrong = [one["wrong"] is not None for one in told]
        answer = client.get("/sequences/chat?format=json")
        assert answer.status_code == 409
        assert "chat" in answer.json()["where"]
        assert answer.json()["fix"]
        assert client.get("/sequences/stage1?format=json").status_code == 200
        assert wrong in ([False, False], [False, True])
        parsed(client.get("/"))


def test_a_wrong_tokenizer(exported, tmp_path):
    """Ids that it does not know are told; as ids, rows are still shown."""
    (tmp_path / "tokenizer.json").write_bytes(orjson.dumps(byte_level_definition(byte_alphabet(), [])))
    client = opened(exported("arrow"), tokenizer=tmp_path / "tokenizer.json")
    answer = client.get("/sequences/stage1?format=json")
    assert answer.status_code == 409
    assert "tokenizer" in answer.json()["fix"]
    assert client.get("/sequences/stage1?view=ids&format=json").status_code == 200


def test_what_cannot_be_opened(tmp_path):
    """Is refused before a server is started, with what is read."""
    (tmp_path / "strange.bin").write_bytes(b"\0" * 100)
    (tmp_path / "empty").mkdir()
    for name, said in (("strange.bin", "Nothing here"), ("empty", "Nothing here"), ("none", "There is no such file")):
        with pytest.raises(UserError, match=said):
            Target(tmp_path / name)


def test_megatron_rows_that_nobody_masked(exported, tmp_path, tokenizer):
    """Files of somebody else, without the companions of headrace: every target carries loss."""
    for suffix in (".bin", ".idx"):
        shutil.copy(exported("megatron") / f"stage1{suffix}", tmp_path)
    with opened(tmp_path / "stage1.bin", tokenizer=tokenizer) as client:
        row = client.get("/sequences/rows?format=json").json()["rows"][0]
        loss = np.array([run["loss"] for segment in row["segments"] for run in segment["runs"] for _ in run["ids"]])
        assert loss[1:].all()
        assert not loss[0]


@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.parametrize(("there", "lacks"), [("phase.bin", "phase.idx"), ("phase.idx", "phase.bin")])
def test_half_of_a_pair_names_the_other(tmp_path, there, lacks, folder):
    (tmp_path / there).write_bytes(bytes(range(200)))
    with pytest.raises(UserError, match=f"{lacks} is missing"):
        Target(tmp_path if folder else tmp_path / there)
