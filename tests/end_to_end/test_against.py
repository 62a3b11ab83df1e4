"""`deduplicate.against` as a user meets it: earlier runs and files, what is redone, what is said, what is refused."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest
from small_run import prose, published

import headrace as package
from commands import headrace
from headrace import inquiry
from headrace.errors import UserError
from headrace.flow.events import read_events
from headrace.planning.forecast import plan
from headrace.recipe.load import load_recipe

NEAR = {"verify": True, "threshold": 0.7}


def write(path: Path, texts: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))


def altered(text: str) -> str:
    return text.replace(" ", " again ", 1)


@pytest.fixture(scope="module")
def texts() -> list[str]:
    rng = random.Random(4)
    return [prose(rng, 80) for _ in range(60)]


@pytest.fixture
def folder(tmp_path, texts) -> Path:
    """Documents of an earlier run, others in a folder, and new ones, of which some are like them."""
    write(tmp_path / "old" / "1.jsonl", [*texts[:20], texts[0]])
    write(tmp_path / "known" / "1.jsonl", texts[20:30])
    write(tmp_path / "new" / "1.jsonl", [texts[3], altered(texts[4]), texts[22], altered(texts[23]), *texts[30:], "x"])
    write(tmp_path / "new" / "2.jsonl", [texts[31], altered(texts[32]), texts[40]])
    return tmp_path


def recipe(folder: Path, source: str, against: list | None = None, **near) -> package.Recipe:
    deduplicate = {"near": {**NEAR, **near}, **({} if against is None else {"against": against})}
    return load_recipe(
        {
            "name": source,
            "sources": {source: {"files": f"{folder}/{source}/*.jsonl"}},
            "filters": {"short": {}},
            "deduplicate": deduplicate,
            "split": {"validation": 0.1},
        }
    )


def run(made: package.Recipe, out: Path, workers: int = 0, **options) -> Path:
    package.run(made, out, workers=workers, memory=400 << 20, **options)
    return out


def removed(out: Path) -> dict[str, int]:
    from headrace.run_folder import artifact

    return artifact(out, "verdicts").manifest.counts["new"]["removed"]


def test_it_redoes_global_steps_only_and_bytes_are_the_same_for_any_number_of_workers(folder):
    old = run(recipe(folder, "old"), folder / "run-old")
    before = published(old)
    out = run(recipe(folder, "new"), folder / "run-new")
    assert removed(out) == {"short": 1, "duplicate": 3}
    seen = len(list(read_events(out)))
    made = recipe(folder, "new", [str(old), {"files": str(folder / "known")}])
    run(made, out, 2)
    state = {
        event["artifact"].rpartition("-")[0]: event["state"]
        for event in list(read_events(out))[seen:]
        if event["event"] == "artifact" and event["state"] != "started"
    }
    assert state == {
        "documents": "present",
        "measures": "present",
        "signatures": "present",
        "reference-signatures-0": "published",
        "reference-documents-1": "published",
        "reference-signatures-1": "published",
        "duplicates": "published",
        "verdicts": "published",
    }
    assert removed(out) == {"short": 1, "reference": 4, "duplicate": 3}
    assert published(old) == before
    for workers in (1, 3):
        assert published(run(made, folder / f"with-{workers}", workers)).items() <= published(out).items()
    assert "Copies of reference documents" in (out / "report" / "index.html").read_text()
    # A plan counts them, and knows what is there.
    told = plan(made, out)
    assert [(r.documents, r.run, r.signed > 0) for r in told.references] == [(20, True, False), (10, False, True)]
    assert {node.name for node in told.graph if node.name.startswith("reference") and node.done} == {
        "reference-signatures-0",
        "reference-documents-1",
        "reference-signatures-1",
    }

    # Why says where the other is, and shows both while its text is there.
    copy, near, of_files = (inquiry.ask(out, f"new:1.jsonl:{row}") for row in (0, 1, 3))
    assert copy["verdict"]["evidence"] | {"jaccard": 1} == {
        "kept_id": copy["document"]["id"],
        "kept_row": 3,
        "kept_source": "old",
        "kept_file": "1.jsonl",
        "kept_origin_row": 3,
        "method": "exact",
        "component_size": 2,
        "jaccard": 1,
        "against": 0,
    }
    assert near["reference"] == str(old)
    assert near["verdict"]["evidence"]["jaccard"] == round(near["pair"]["jaccard"], 6) < 1
    assert of_files["reference"] == str(folder / "known")
    assert of_files["pair"]["jaccard"] > 0.7
    shown = headrace("why", out, "new:1.jsonl:1").stdout
    assert f"like a document of {old}" in shown
    assert "| the reference document: true Jaccard" in shown
    shutil.move(old, folder / "elsewhere")
    assert inquiry.ask(out, "new:1.jsonl:1")["pair"] is None
    # Where the earlier run lies is no part of what it is.
    moved = recipe(folder, "new", [str(folder / "elsewhere"), {"files": str(folder / "known")}])
    assert published(run(moved, out)).keys() == published(folder / "with-1").keys() | published(out).keys()
    assert list(read_events(out))[-1]["event"] == "finished"


def test_an_earlier_run_that_grows_has_new_copies_found(folder, texts):
    old = run(recipe(folder, "old"), folder / "run-old")
    made = recipe(folder, "new", [str(old)])
    out = run(made, folder / "run-new")
    assert removed(out) == {"short": 1, "reference": 2, "duplicate": 3}
    write(folder / "old" / "2.jsonl", texts[50:52])
    run(recipe(folder, "old"), old)
    seen = len(list(read_events(out)))
    run(made, out)
    states = [e for e in list(read_events(out))[seen:] if e["event"] == "artifact" and e["state"] == "published"]
    assert [e["artifact"].rpartition("-")[0] for e in states] == ["reference-signatures-0", "duplicates", "verdicts"]
    assert removed(out) == {"short": 1, "reference": 4, "duplicate": 3}
    assert published(run(made, folder / "anew")).items() <= published(out).items()


def test_other_parameters_and_normalisation(folder):
    """Signatures of another shape are not used; text that is normalised otherwise is said."""
    old = run(recipe(folder, "old", values=96), folder / "run-old", until="verdicts")
    made = recipe(folder, "new", [str(old)])
    heard: list[dict] = []
    out = run(made, folder / "run-new", until="verdicts", listener=heard.append)
    assert removed(out) == {"short": 1, "reference": 2, "duplicate": 3}
    assert json.loads((out / "references.json").read_text())["runs"]["0"]["signatures"] is None
    plain = made.model_copy(update={"documents": made.documents.model_copy(update={"normalise": "none"})})
    run(plain, folder / "run-plain", until="verdicts", listener=heard.append)
    assert any("normalised by 'nfc', this recipe's by 'none'" in e.get("text", "") for e in heard)


def test_what_is_refused(folder):
    old, out = folder / "run-old", folder / "run-new"

    def refusal(against: list) -> UserError:
        with pytest.raises(UserError) as error:
            run(recipe(folder, "new", against), out, until="verdicts")
        return error.value

    run(recipe(folder, "old"), old, until="documents")
    told = refusal([str(old)])
    assert "has not made its verdicts" in told.what
    assert "deduplicate.against.0" in told.where
    assert "Run its recipe again" in told.fix
    run(recipe(folder, "old"), old)
    run(recipe(folder, "new", [str(old)]), out)
    for mine in (out, out / "artifacts", folder):
        assert "compared with itself" in refusal([str(old), str(mine)]).what
    [documents] = (old / "artifacts").glob("documents-*")
    assert "Name the run" in refusal([str(documents)]).fix
    assert "does not exist" in refusal([str(folder / "nowhere")]).what
    # A damaged file of it is found when it is read, and its run is left as it is.
    [verdicts] = (old / "artifacts").glob("verdicts-*/00000.parquet")
    data = bytearray(verdicts.read_bytes())
    data[len(data) // 2] ^= 1
    verdicts.write_bytes(data)
    shutil.rmtree(out)
    told = refusal([str(old)])
    assert "its digest differs" in told.what
    assert str(verdicts) in told.where
    assert "--verify" in told.fix
    assert verdicts.exists()
    verdicts.write_bytes(data[:-1])
    assert "bytes instead of" in refusal([str(old)]).what
    for wrong, words in (
        ({"against": ["a", "a"]}, "appears twice"),
        ({"against": "a", "near": None, "exact": False}, "Nothing says what is like"),
    ):
        with pytest.raises(UserError, match=words):
            load_recipe({"name": "x", "sources": {"a": {"files": "a"}}, "deduplicate": wrong})
