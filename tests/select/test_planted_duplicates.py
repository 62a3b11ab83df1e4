"""Duplicates and verdicts on 40 MB of real text with planted near-duplicates, against a reference and the truth."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import duplicate_graph as graph
import numpy as np
import pytest

from headrace.recipe.schema import Recipe
from headrace.select.clean import clean, clean_text
from headrace.select.duplicates.jaccard import text_jaccard
from headrace.select.duplicates.minhash import band_fingerprints
from headrace.select.duplicates.step import Duplicates
from headrace.select.verdicts.step import Verdicts

BASE, SPREAD = np.uint64(0x9FB21C651E98DF25), np.uint64(0x9E3779B97F4A7C15)
N, K, BANDS, ROWS = 13, 128, 9, 13


def u64(x: int) -> np.uint64:
    return np.uint64(x)


def mix64(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> u64(30))) * u64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> u64(27))) * u64(0x94D049BB133111EB)
    return x ^ (x >> u64(31))


def packs(units: np.ndarray, width: int) -> np.ndarray:
    """Every window of at most 8 units as one number: the exclusive or of unit k rotated by 8 k bits."""
    out = units[: len(units) - width + 1].copy()
    for k in range(1, width):
        unit = units[k : k + len(out)]
        out ^= (unit << u64(8 * k)) | (unit >> u64(64 - 8 * k))
    return out


def reference_fingerprints(text: str) -> list[int] | None:
    """The band fingerprints of a text by their definition, with NumPy: no blocks, no doubling, no early tables."""
    points = np.frombuffer(clean_text(text).encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint64)
    if not len(points):
        return None
    units = points + u64(1)
    units = np.where(units < 256, units, mix64(units * SPREAD))
    n = min(N, len(units))
    count = len(units) - n + 1
    hashes = packs(units[: count + min(n, 8) - 1], min(n, 8))
    for k in range(8, n, 8):
        first = min(k, n - 8)
        hashes *= BASE
        hashes = (hashes ^ (hashes >> u64(32))) + packs(units[first : first + count + 7], 8)
    hashes = mix64(hashes)
    if len(units) < N:  # a text shorter than a shingle is told apart by its length too
        hashes = mix64(hashes + u64(len(units)))
    x = np.unique(hashes)
    empty = np.uint64(0xFFFFFFFFFFFFFFFF)
    bins = np.full(K, empty)
    for i in range(2 * K):
        h = x if i == 0 else mix64(x + u64(i * int(SPREAD) % (1 << 64)))
        if i < K:
            value = (((h << u64(32)) | (h >> u64(32))) >> u64(16)) | u64(i << 48)
            np.minimum.at(bins, ((h >> u64(32)) * u64(K)) >> u64(32), value)
        elif bins[i - K] == empty:
            bins[i - K] = u64(i << 48) | (h >> u64(16)).min()
        if i % 4 == 0 and (bins != empty).all():
            break
    out = mix64(np.arange(1, BANDS + 1, dtype=np.uint64) * SPREAD)
    for row in range(ROWS):
        out = mix64(out + bins[: BANDS * ROWS].reshape(BANDS, ROWS)[:, row])
    return out.tolist()


@pytest.fixture(scope="module")
def corpus(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Documents, and the planted pairs as rows of them."""
    out = tmp_path_factory.mktemp("corpus")
    program = [
        sys.executable,
        str(shared / "corpus" / "build.py"),
        str(out),
        "--mb",
        "40",
        "--plant",
        "0.2",
        "--format",
        "jsonl",
    ]
    subprocess.run(program, check=True, capture_output=True)
    rows: list[dict[str, Any]] = []
    at: dict[tuple[str, int], int] = {}
    for path in sorted(out.glob("*/*.jsonl")):
        with path.open(encoding="utf-8", newline="\n") as f:
            for line, record in enumerate(f):
                at[f"{path.parent.name}/{path.name}", line] = len(rows)
                text = json.loads(record)["text"]
                place = {"origin_file": path.name, "origin_row": line}
                rows.append({"text": text, "source": path.parent.name, **place})
    planted = json.loads((out / "planted.json").read_text())
    for pair in planted:
        pair["row"] = at[pair["shard"], pair["row"]]
        pair["of"] = at[pair["of"]["shard"], pair["of"]["row"]]
    return rows, planted


def steps(rows: list[dict[str, Any]], verify: bool) -> Verdicts:
    sources = tuple(sorted({row["source"] for row in rows}))
    near = {"near": {"verify": verify}}
    recipe = Recipe.model_validate(
        {
            "name": "t",
            "sources": {s: {"files": ["x"]} for s in sources},
            "deduplicate": near,
            "split": {"check": "near"},
        }
    )
    documents = graph.Given(rows, sources, shard_rows=1500, group_rows=300)
    return Verdicts.of(recipe, documents, duplicates=Duplicates.of(recipe, documents))


@pytest.fixture(scope="module")
def runs(corpus, tmp_path_factory: pytest.TempPathFactory) -> dict[bool, dict[str, Any]]:
    """The artifacts without and with verification; the second run finds the duplicates made."""
    run = tmp_path_factory.mktemp("run")
    return {verify: graph.run_steps(run, steps(corpus[0], verify)) for verify in (False, True)}


def test_candidates_equal_the_reference(corpus, runs) -> None:
    rows, _ = corpus
    raw = [row["text"].encode() for row in rows]
    points = clean(np.frombuffer(b"".join(raw), dtype=np.uint8), np.cumsum([0, *map(len, raw)], dtype=np.int64))
    got = band_fingerprints(*points, N, False, K, BANDS, ROWS)
    buckets: dict[tuple[int, int], list[int]] = {}
    for row, (values, length) in enumerate(zip(got.tolist(), points[2].tolist(), strict=True)):
        want = reference_fingerprints(rows[row]["text"])
        assert want == (values if length else None), rows[row]
        for band in enumerate(want or []):
            buckets.setdefault(band, []).append(row)
    edges = [(members[0], other) for members in buckets.values() for other in members[1:]]
    assert runs[False]["duplicates"].manifest.counts["candidate_pairs"] == len(edges) > 1000
    label = np.arange(len(rows))
    first: dict[str, int] = {}
    edges += [(first.setdefault(row["text"], i), i) for i, row in enumerate(rows)]
    while (label[[b for _, b in edges]] != label[[a for a, _ in edges]]).any():
        for a, b in edges:
            label[a] = label[b] = min(label[a], label[b])
    components = graph.read(runs[False]["duplicates"]).column("component").fill_null(1 << 40).to_numpy()
    alone = np.bincount(label, minlength=len(rows))[label] == 1
    assert (components == np.where(alone, 1 << 40, label)).all()


def test_recall_of_planted_pairs(corpus, runs) -> None:
    components = graph.read(runs[False]["duplicates"]).column("component").to_pylist()
    alike = [pair for pair in corpus[1] if pair["jaccard"] >= 0.9]
    assert len(alike) > 300
    found = [
        components[pair["row"]] is not None and components[pair["row"]] == components[pair["of"]] for pair in alike
    ]
    assert np.mean(found) >= 0.9


def test_with_verification_nothing_below_the_threshold_is_removed(corpus, runs) -> None:
    rows, _ = corpus
    table = graph.read(runs[True]["verdicts"])
    removed = 0
    for row, (reason, told) in enumerate(
        zip(*(table.column(c).to_pylist() for c in ("reason", "evidence")), strict=True)
    ):
        if reason is not None:
            removed += 1
            evidence = json.loads(told)
            jaccard = text_jaccard(rows[row]["text"], rows[evidence["kept_row"]]["text"], N, "characters")
            same = evidence["method"] == "exact"
            assert rows[row]["text"] == rows[evidence["kept_row"]]["text"] if same else jaccard >= 0.8
            # Six digits; of 623 / 640 the seventh is a 5, which no rounding of a double can be held to.
            assert abs(evidence["jaccard"] - (1.0 if same else jaccard)) < 0.500001e-6
    without = graph.read(runs[False]["verdicts"]).column("reason")
    assert 300 < removed < len(without) - without.null_count


def test_the_manifest_tells_removal_within_and_between_sources(corpus, runs) -> None:
    rows, _ = corpus
    manifest = runs[False]["verdicts"].manifest
    table = graph.read(runs[False]["verdicts"])
    pairs: dict[tuple[str, str], int] = {}
    for row, told in enumerate(table.column("evidence").to_pylist()):
        if told is not None:
            pair = rows[row]["source"], json.loads(told)["kept_source"]
            pairs[pair] = pairs.get(pair, 0) + 1
    told = {(entry["removed"], entry["kept"]): entry["documents"] for entry in manifest.extra["duplicates"]}
    assert told == pairs
    assert any(a != b for a, b in pairs)
    assert any(a == b for a, b in pairs)
    kept = sum(count["kept"] for count in manifest.counts.values())
    assert kept + sum(pairs.values()) == len(rows)
