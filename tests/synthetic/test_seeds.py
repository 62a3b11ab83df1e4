"""Synthetic sources in a run: the same bytes from the same answers, whoever works and whatever is killed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import xxhash
from model_server import ModelServer, Plain, code_answer, completion, number_of

import headrace
from headrace import run_folder
from headrace.documents.store import read_columns
from headrace.errors import UserError
from headrace.flow.journal import read_journal
from headrace.inquiry import ask
from headrace.planning.forecast import plan
from headrace.report.gather import gather
from headrace.view.pages.document.draw import draw_facts
from headrace.view.pages.document.load import Document, load
from headrace.view.target import Target

LANGUAGES = ("python", "java", "c")
AT_ONCE = 4  # requests under way, answered but not yet read ones among them


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Documents in three languages with licenses, some of them copies, which must not inspire."""
    folder = tmp_path_factory.mktemp("corpus")
    rng = random.Random(1)
    lines = []
    for i in range(240):
        text = "\n".join(" ".join(f"v{rng.randrange(10**6)}" for _ in range(8)) for _ in range(20))
        told = {"text": text, "language": LANGUAGES[i % 3], "license": rng.choice(["MIT", "GPL-3.0-only OR MIT"])}
        lines.append(json.dumps(told))
    (folder / "a.jsonl").write_text("\n".join(lines + lines[:60]) + "\n")
    return folder


def answer(prompt, body):
    """What the server says: mostly a file of the wanted language; some of it is wrong in one way or another."""
    kind = number_of(body) % 10
    language = next(name for name in LANGUAGES if f"from a {name} file" in prompt)
    text = code_answer(prompt, body).replace("```python", f"```{language}")
    if kind == 0:
        return "I would rather not."
    if kind == 1:
        shown = prompt.split("\n\n")[1]
        return f"```{language}\n{shown}\n```"
    if kind == 2:
        return f"```{language}\nalways the same\n```"
    if kind == 3:
        return f"```{language}\n# {number_of(body)}\n" + "x = x + 1\n" * 100 + "```"
    return text


def recipe(corpus, url, **more):
    section = {
        "method": "files",
        "count": 60,
        "seeds": {"languages": {"python": 0.5}},
        "copied": 0.5,
        "server": {"url": url, "model": "m", "backoff": 0.01, "concurrency": AT_ONCE, "price": {"output": 2}},
    }
    return {
        "name": "small",
        "sources": {"a": {"files": str(corpus / "a.jsonl")}},
        "deduplicate": {"near": None},
        "synthetic": {"hq": section | more},
    }


def run(data, out, **more):
    headrace.run(headrace.load_recipe(data), out, until="verdicts", **more)
    return run_folder.digest(out)["artifacts"]


def documents(out, source="hq"):
    """The documents of a source with their verdicts."""
    docs, verdicts = run_folder.artifact(out, "documents"), run_folder.artifact(out, "verdicts")
    rows = []
    for shard in range(len(docs.shards)):
        judged = read_columns(verdicts.shard_path(shard)).to_pylist()
        rows += [{**a, **b} for a, b in zip(read_columns(docs.shard_path(shard)).to_pylist(), judged, strict=True)]
    return [row for row in rows if row["source"] == source]


@pytest.fixture(scope="module")
def made(corpus, tmp_path_factory):
    """A finished run, its digests and what the server was asked."""
    out = tmp_path_factory.mktemp("made") / "run"
    notices = []
    with ModelServer(answer) as server:
        digests = run(
            recipe(corpus, server.url), out, workers=0, listener=lambda e: notices.append(e.get("text")) if e else None
        )
        return out, digests, server.bodies, [text for text in notices if text]


def test_documents_are_kept_until_there_are_enough_and_each_other_has_its_reason(made):
    out, _, _, notices = made
    rows = documents(out)
    kept = [row for row in rows if row["keep"]]
    assert len(kept) == 60
    assert rows[-1]["keep"]
    assert {row["reason"] for row in rows if not row["keep"]} == {
        "synthetic:parse",
        "synthetic:copied",
        "synthetic:duplicate",
        "synthetic:repeats",
    }
    evidence = {row["reason"]: json.loads(row["evidence"]) for row in rows if row["reason"]}
    assert evidence["synthetic:parse"] == {"error": "no fenced code"}
    assert evidence["synthetic:copied"]["limit"] == 0.5
    assert "x = x + 1" in evidence["synthetic:repeats"]["loop"]
    assert all("always the same" in row["text"] for row in rows if row["reason"] == "synthetic:duplicate")
    counts = run_folder.artifact(out, "synthetic", "hq").manifest.counts
    assert counts["written"] == len(rows) == counts["kept"] + sum(counts["findings"].values())
    assert any("60 documents kept" in text for text in notices)


def test_half_of_the_requests_are_inspired_by_python_and_none_by_what_is_removed(made):
    out, _, _, _ = made
    rows = documents(out)
    share = sum(row["language"] == "python" for row in rows) / len(rows)
    assert 0.45 < share < 0.55
    others = [row["language"] for row in rows if row["language"] != "python"]
    assert 0.3 < others.count("java") / len(others) < 0.7
    removed = {row["id"] for row in documents(out, "a") if not row["keep"]}
    kept = {row["id"] for row in documents(out, "a") if row["keep"]}
    assert removed <= kept  # copies have the ids of what they are copies of
    seeds = [json.loads(row["meta"])["synthetic"]["seeds"][0] for row in rows]
    assert set(seeds) <= kept
    assert len(set(seeds)) > 0.9 * len(seeds)


def test_a_document_leads_to_its_seeds_their_licenses_and_the_answer(made):
    out, _, _, _ = made
    seeds = {row["id"]: row for row in documents(out, "a")}
    answers = {entry.get("key"): entry for entry in read_journal(out / "answers" / "hq.jsonl")}
    for row in documents(out):
        about = json.loads(row["meta"])["synthetic"]
        seed = seeds[about["seeds"][0]]
        assert about["licenses"] == [seed["license"]]
        assert row["license"] == seed["license"]
        assert row["language"] in (seed["language"], None)
        assert (about["generator"], about["method"], len(about["prompt"])) == ("m", "files", 32)
        body = json.loads(answers[about["requests"][0]]["body"])
        assert row["text"] in body["choices"][0]["message"]["content"]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_the_same_bytes_from_the_same_answers_without_a_server(workers, made, corpus, tmp_path):
    out, digests, _, _ = made
    data = recipe(corpus, "http://127.0.0.1:9/v1")
    data["synthetic"]["hq"]["server"]["key"] = "A_KEY_THAT_IS_NOT_SET"
    (tmp_path / "run" / "answers").mkdir(parents=True)
    (tmp_path / "run" / "answers" / "hq.jsonl").write_bytes((out / "answers" / "hq.jsonl").read_bytes())
    assert run(data, tmp_path / "run", workers=workers) == digests


def test_recorded_answers_in_a_file_are_enough(made, corpus, tmp_path):
    out, _, _, _ = made
    recorded = {"answers": str(out / "answers" / "hq.jsonl"), "server": {"model": "m"}}
    run(recipe(corpus, None, **recorded), tmp_path / "run", workers=0)
    columns = ("id", "text", "meta", "keep", "reason", "evidence")
    assert [{c: row[c] for c in columns} for row in documents(tmp_path / "run")] == [
        {c: row[c] for c in columns} for row in documents(out)
    ]
    lines = (out / "answers" / "hq.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "some.jsonl").write_bytes(b"".join(lines[: len(lines) // 2]))
    with pytest.raises(UserError, match="lack one that is needed"):
        run(recipe(corpus, None, **recorded | {"answers": str(tmp_path / "some.jsonl")}), tmp_path / "run2", workers=0)


def test_a_recipe_that_asks_for_more_asks_only_for_that(made, corpus, tmp_path):
    out, _, asked, _ = made
    (tmp_path / "run" / "answers").mkdir(parents=True)
    (tmp_path / "run" / "answers" / "hq.jsonl").write_bytes((out / "answers" / "hq.jsonl").read_bytes())
    with ModelServer(answer) as server:
        run(recipe(corpus, server.url, count=80), tmp_path / "run", workers=0)
        assert server.bodies
        kept = [body for body in map(json.dumps, server.bodies) if body in set(map(json.dumps, asked))]
        recorded = {e["key"] for e in read_journal(out / "answers" / "hq.jsonl") if "key" in e}
        assert len(kept) <= len(asked) - len(recorded)  # what was under way when there was enough
    assert sum(row["keep"] for row in documents(tmp_path / "run")) == 80


def test_a_worker_that_is_killed_asks_nothing_twice_but_what_was_under_way(made, corpus, tmp_path):
    _, digests, _, _ = made
    killed = []

    def fault(body, before):
        if len(server.bodies) == 40 and not killed:  # an event of the server's: the fortieth request
            for process in map(int, workers_of(tmp_path / "run")):
                killed.append(process)
                os.kill(process, signal.SIGKILL)
        return None

    with ModelServer(answer, fault) as server:
        assert run(recipe(corpus, server.url), tmp_path / "run", workers=1) == digests
        again = [key for key, count in server.seen.items() if count > 1]
        assert killed
        assert len(again) <= AT_ONCE
    died = [e for e in read_journal(tmp_path / "run" / "events.jsonl") if e["event"] == "died"]
    assert died


def workers_of(out):
    """The processes that generate for a run: those that have its journal open."""
    journal = str((out / "answers" / "hq.jsonl").resolve())
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            files = [os.readlink(f"/proc/{process}/fd/{fd}") for fd in os.listdir(f"/proc/{process}/fd")]
        except OSError:
            continue
        if journal in files and int(process) != os.getpid():
            yield process


@pytest.mark.parametrize("after", [1, 17, 70])
def test_a_run_that_is_killed_goes_on_where_it_was(after, made, corpus, tmp_path):
    """The whole run is killed when so many answers are kept; the next one asks for the rest only."""
    _, digests, _, _ = made
    (tmp_path / "recipe.yaml").write_text("")
    with ModelServer(answer) as server:
        data = recipe(corpus, server.url)
        (tmp_path / "recipe.yaml").write_text(json.dumps(data))
        command = [str(Path(sys.executable).with_name("headrace")), "run", "recipe.yaml", "--out", "run"]
        process = subprocess.Popen(
            [*command, "--workers", "2", "--until", "verdicts"], cwd=tmp_path, stdout=subprocess.DEVNULL
        )
        journal = tmp_path / "run" / "answers" / "hq.jsonl"
        while process.poll() is None and not (journal.exists() and journal.read_bytes().count(b"\n") >= after):
            time.sleep(0.005)
        process.kill()
        process.wait()
        kept, torn = journal.read_bytes(), random.Random(after).randrange(1, 60)
        journal.write_bytes(kept[:-torn])  # what a loss of power leaves
        assert run(data, tmp_path / "run", workers=2) == digests
        assert sum(count - 1 for count in server.seen.values()) <= AT_ONCE + 1  # and the torn line


def test_a_server_that_lies_slows_down_and_fails_makes_the_same_documents(made, corpus, tmp_path):
    _, digests, _, _ = made
    rng = random.Random(8)
    kinds = [
        Plain(500, b"oops"),
        Plain(429, b"", {"retry-after": "0.01"}),
        Plain(body=b"<html>"),
        Plain(body=completion("cut " * 100), cut=30),
        Plain(body=b'{"choices": "yes"}'),
    ]

    def fault(body, before):
        return rng.choice(kinds) if before < 2 and rng.random() < 0.3 else None

    notices = []
    with ModelServer(answer, fault, delay=0.002) as server:
        out = tmp_path / "run"
        assert (
            run(recipe(corpus, server.url), out, workers=0, listener=lambda e: notices.append(e.get("text", "")))
            == digests
        )
    assert any("trouble with the server" in text and "rubbish" in text for text in notices)


def test_a_server_that_cuts_answers_off_and_repeats_itself_is_reported(corpus, tmp_path):
    def fault(body, before):
        return Plain(body=completion("```python\nx = 1\n```", "length")) if number_of(body) % 2 else None

    with ModelServer(lambda prompt, body: "the same " * 20, fault) as server:
        run(recipe(corpus, server.url, count=10, most=3), tmp_path / "run", workers=0)
    rows = documents(tmp_path / "run")
    assert {row["reason"] for row in rows} == {"synthetic:truncated", "synthetic:parse"}
    counts = run_folder.artifact(tmp_path / "run", "synthetic", "hq").manifest.counts
    assert counts["items"] == 30


def test_requests_without_an_answer_are_listed(corpus, tmp_path):
    def fault(body, before):
        return Plain(400, b'{"error": {"message": "no"}}') if number_of(body) % 4 == 0 else None

    with ModelServer(answer, fault) as server:
        run(recipe(corpus, server.url, count=20), tmp_path / "run", workers=0)
    artifact = run_folder.artifact(tmp_path / "run", "synthetic", "hq")
    failed = [json.loads(line) for line in artifact.file_path("failed.jsonl").read_bytes().splitlines()]
    assert len(failed) == artifact.manifest.counts["findings"]["failed"] > 0
    assert all(one["error"] == "HTTP 400: no" for one in failed)
    assert artifact.rows == len(documents(tmp_path / "run"))


def test_seeds_that_a_condition_chooses(corpus, tmp_path):
    seeds = {"where": "language == 'java' and lines > 3", "count": 7}
    with ModelServer(answer) as server:
        run(recipe(corpus, server.url, count=20, seeds=seeds), tmp_path / "run", workers=0)
    rows = documents(tmp_path / "run")
    assert {row["language"] for row in rows if row["keep"]} == {"java"}
    assert len({json.loads(row["meta"])["synthetic"]["seeds"][0] for row in rows}) == 7
    none = recipe(corpus, "http://127.0.0.1:9/v1", seeds={"where": "language == 'cobol'"})
    with pytest.raises(UserError, match="No document can inspire"):
        run(none, tmp_path / "run2", workers=0)


def test_programs_are_run_against_their_tests(corpus, tmp_path):
    def problem(prompt, body):
        number = number_of(body)
        wrong = number % 3 == 0
        words = " ".join(f"w{number * (k + 3) % 9973}" for k in range(40))
        code = f"def f{number}(x):\n    return x * {number + wrong}\n"
        tests = f"assert f{number}(2) == {2 * number}\n"
        return f"[Problem]\n{words}\n[Solution]\n```python\n{code}```\n[Tests]\n```python\n{tests}```\n"

    with ModelServer(problem) as server:
        data = recipe(
            corpus, server.url, method="oss-instruct", count=6, tests=True, seeds={"where": "language == 'python'"}
        )
        try:
            run(data, tmp_path / "run", workers=1)
        except UserError as error:
            pytest.skip(str(error))
    rows = documents(tmp_path / "run")
    assert sum(row["keep"] for row in rows) == 6
    failed = [row for row in rows if row["reason"] == "synthetic:tests"]
    assert failed
    assert all(json.loads(row["evidence"])["status"] == "failed" for row in failed)
    tested = [e for e in read_journal(tmp_path / "run" / "answers" / "hq.jsonl") if "tested" in e]
    assert {e["tested"] for e in tested} == {"passed", "failed"}
    assert all(json.loads(row["meta"])["synthetic"]["tests"] == "passed" for row in rows if row["keep"])


def test_a_parser_of_ones_own_and_conversations(corpus, tmp_path):
    (tmp_path / "parsers.py").write_text(
        "def talks(answer):\n"
        "    if 'skip' in answer['text']:\n"
        "        raise ValueError('nothing here')\n"
        "    asked = answer['seeds'][0]['text'][:20]\n"
        "    return [{'messages': [{'role': 'user', 'content': f'{asked} {n}'},"
        " {'role': 'assistant', 'content': answer['text']}]} for n in range(2)]\n"
    )

    def say(prompt, body):
        return f"say {number_of(body)}" if number_of(body) % 4 else "skip"

    with ModelServer(say) as server:
        own = {
            "method": "prompt",
            "prompt": "{{ language }} {{ draw }}: {{ snippet[:30] }}",
            "parser": {"python": f"{tmp_path / 'parsers.py'}:talks"},
            "chat": True,
            "count": 20,
            "seeds": {},
        }
        run(recipe(corpus, server.url, **own), tmp_path / "run", workers=1)
        assert all(body["messages"][0]["content"].split()[0] in LANGUAGES for body in server.bodies)
    rows = documents(tmp_path / "run")
    kept = [row for row in rows if row["keep"]]
    assert len(kept) == 20
    assert [turn["role"] for turn in json.loads(kept[0]["turns"])] == ["user", "assistant"]
    assert any("nothing here" in json.loads(row["evidence"])["error"] for row in rows if not row["keep"])


def test_only_the_best_inspire(corpus, tmp_path):
    rng = random.Random(9)

    def text(good):
        return " ".join(rng.choice(["fine", "clear", "sound"] if good else ["dull", "vague", "wrong"]) + f" {i}"
                        for i in range(40)) + f" {rng.random()}"  # fmt: skip

    lines = [json.dumps({"text": text(i % 5 == 0), "language": LANGUAGES[i % 3]}) for i in range(300)]
    (tmp_path / "mixed.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "good.jsonl").write_text("\n".join(json.dumps({"text": text(True)}) for _ in range(150)) + "\n")
    with ModelServer(lambda prompt, body: code_answer(prompt, body).replace("```python", "```")) as server:
        seeds = {"quality": {"annotator": "good", "top": 0.15}}
        data = recipe(tmp_path, server.url, count=30, seeds=seeds) | {
            "sources": {"a": {"files": str(tmp_path / "mixed.jsonl")}},
            "quality": {"annotators": {"good": {"kind": "linear", "positives": str(tmp_path / "good.jsonl")}}},
        }
        run(data, tmp_path / "run", workers=0)
        assert len(server.bodies) >= 30
        assert all("fine" in str(body) or "clear" in str(body) or "sound" in str(body) for body in server.bodies)
        assert not any("dull" in str(body) or "vague" in str(body) for body in server.bodies)
    rows = {row["id"]: row for row in documents(tmp_path / "run", "a")}
    inspiring = {json.loads(row["meta"])["synthetic"]["seeds"][0] for row in documents(tmp_path / "run")}
    assert {rows[one]["language"] for one in inspiring} == set(LANGUAGES)
    steps = [step.name for step in run_folder.read_graph(tmp_path / "run").all() if step.kind == "annotator"]
    assert len(steps) == 1  # what has learned once judges all


def test_a_synthetic_token_leads_to_the_documents_that_inspired_it(corpus, tmp_path):
    with ModelServer(answer) as server:
        sources = {"hq": {"epochs": 2}, "a": {"slice": [0, 0.1]}}
        data = recipe(corpus, server.url, count=12) | {
            "tokenizer": {"train": {"vocab_size": 400}},
            "stages": [{"name": "last", "sequence_length": 64, "sources": sources}],
        }
        report = headrace.run(headrace.load_recipe(data), tmp_path / "run", workers=1)
    assert report.is_file()
    kept = next(row for row in documents(tmp_path / "run") if row["keep"])
    told = ask(tmp_path / "run", kept["id"])
    assert told["stages"]["last"]
    [seed] = told["inspired_by"]
    assert seed["source"] == "a"
    assert seed["license"] == kept["license"]
    command = [str(Path(sys.executable).with_name("headrace")), "why", "run", kept["id"]]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert "written by m (files, prompt " in said
    assert f"{seed['id']}  a:a.jsonl:{seed['origin_row']}, license {seed['license']}" in said
    facts = gather(tmp_path / "run")
    [made] = [source for source in facts.sources if source.name == "hq"]
    assert made.kept == 12
    assert sum(made.removed.values()) == made.documents - 12
    assert made.tokens


def test_a_plan_tells_requests_tokens_and_dollars(corpus):
    data = recipe(corpus, "http://nowhere/v1", count=1000)
    told = plan(headrace.load_recipe(data))
    [note] = [note for note in told.notes if "Synthetic" in note]
    assert "asks http://nowhere/v1 for 1,000 to 2,000 answers of m" in note
    assert "dollars" in note
    assert {source.name: source.documents for source in told.sources}["hq"] == 1000
    names = [node.name for node in told.graph]
    built = run_folder_names(data)
    assert sorted(names) == sorted(built)


def run_folder_names(data):
    """The names of a recipe's artifacts without their identities."""
    from headrace.documents.inventory import SourceFiles
    from headrace.documents.sources import list_files
    from headrace.graph import build_graph

    recipe = headrace.load_recipe(data)
    sources = tuple(
        SourceFiles(name, source, tuple(list_files(name, source, 1, Path.cwd())))
        for name, source in recipe.sources.items()
    )
    return [f"{step.kind}-{step.stage}" if step.stage else step.kind for step in build_graph(recipe, sources).all()]


def test_the_same_documents_as_ever(made):
    """Raise ``SyntheticDocuments.VERSION`` if this fails: other documents are made of the same answers."""
    artifact = run_folder.artifact(made[0], "synthetic", "hq")
    shards = [read_columns(artifact.shard_path(shard)).to_pylist() for shard in range(len(artifact.shards))]
    assert xxhash.xxh3_64_hexdigest(json.dumps(shards).encode()) == "38cf936a998c9893"


def test_the_page_of_a_document_leads_to_its_seeds(made):
    out = made[0]
    row = next(i for i, one in enumerate(all_rows(out)) if one["source"] == "hq")
    told = all_rows(out)[row]
    shown = load(Target(out), Document(row=row))
    drawn = str(draw_facts(shown))
    assert "m (files, prompt " in drawn
    assert json.loads(told["meta"])["synthetic"]["seeds"][0] in drawn


def all_rows(out):
    docs = run_folder.artifact(out, "documents")
    return [row for shard in range(len(docs.shards)) for row in read_columns(docs.shard_path(shard)).to_pylist()]


def test_the_same_question_is_asked_once_while_it_is_under_way(corpus, tmp_path):
    """With a sampling seed of the recipe's own, seeds used again ask the same; the first answer kept counts."""
    section = {
        "method": "rephrase",
        "styles": ["simple"],
        "count": 6,
        "seeds": {"count": 2},
    }
    with ModelServer(lambda prompt, body: f"answer {len(server.bodies)}", delay=0.05) as server:
        told = recipe(corpus, server.url, **section)
        told["synthetic"]["hq"]["server"]["options"] = {"seed": 5}
        run(told, tmp_path / "run", workers=0)
        asked = [json.dumps(body) for body in server.bodies]
    assert len(asked) == len(set(asked)) == 2
    reasons = [row["reason"] for row in documents(tmp_path / "run")]
    assert reasons == [None, None, *["synthetic:duplicate"] * 10]
