"""A small corpus of repositories, and the sequence that a recipe asks for, written out in plain Python.

Worker processes rebuild the graph through :func:`targets` from RUN/grouped.json.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from small_build import SmallDocuments, SmallTokenizer, SmallTokens, open_input

from headrace.documents.store import fetch
from headrace.flow.keys import keyed, parse_ids, salt, unit
from headrace.flow.step import Step
from headrace.recipe.grouping import Group
from headrace.recipe.stages import Stage
from headrace.sequence.fim import draw, rearrange
from headrace.sequence.grouping.imports import imports_of, language_of
from headrace.sequence.grouping.resolve import Repository
from headrace.sequence.grouping.step import Groups
from headrace.sequence.parameters import SequenceParameters
from headrace.sequence.repartition import row_keys
from headrace.sequence.step import Sequence
from headrace.sequence.store import ArrowSequence
from headrace.sequence.windows import PADDING
from headrace.tokens.engine import Texts
from headrace.tokens.load import open_control, open_engine
from headrace.tokens.store import open_shard

ADDED = ("<repo_name>", "<file_sep>", "<|repo_name|>", "<|file_sep|>")
SOURCES = (("a", 150), ("b", 60), ("chat", 12))


@dataclass(frozen=True)
class SmallRepositories(SmallDocuments):
    """Files of a few repositories that import one another, some of no repository, some copied from one to another."""

    def rows(self) -> list[dict[str, Any]]:
        rng = random.Random(self.seed)
        out = super().rows()
        for i, row in enumerate(out):
            if row["source"] == "chat":
                continue
            language = rng.choice(["python", "python", "go", None])
            folder = rng.choice(["", "src/", "src/core/", "größe/"])
            name = f"m{i}" if rng.random() < 0.9 else "<file_sep>"
            path = f"{folder}{name}.{'go' if language == 'go' else 'py'}"
            imports = [f"import m{rng.randrange(len(out))}\n" for _ in range(rng.randrange(4))]
            # Longer and shorter repositories.
            repo = rng.choice([None, "mill/wheel", "mill/wheel", "Mill/race", *(f"r{k}" for k in range(6))])
            row |= {"repo": repo, "path": path if rng.random() < 0.95 else None, "language": language}
            row["text"] = "".join(imports) + row["text"] if rng.random() < 0.97 else ""
            row["id"] = xxhash.xxh3_128_hexdigest(row["text"].encode())
        for k in range(0, len(out) - 9, 9):  # copies
            if "chat" not in (out[k]["source"], out[k + 8]["source"]):
                out[k + 8] |= {"text": out[k]["text"], "id": out[k]["id"]}
        return sorted(out, key=lambda row: (row["id"], row["origin_row"]))


@dataclass(frozen=True)
class RepositoryTokenizer(SmallTokenizer):
    """Every byte is a token; with the control tokens for files of repositories."""

    def definition(self) -> dict[str, Any]:
        value = super().definition()
        first = 256 + len(value["added_tokens"])
        flags = {name: value["added_tokens"][0][name] for name in ("single_word", "lstrip", "rstrip", "normalized")}
        value["added_tokens"] += [
            {"id": first + i, "content": name, "special": True, **flags} for i, name in enumerate(ADDED)
        ]
        return value


def of_stage(config: Stage, groups: dict[str, Any], seed: int = 1, per_shard: int = 40) -> Sequence:
    """The step of a stage's sequence whose sources are grouped."""
    documents, tokenizer = SmallRepositories(SOURCES, per_shard=per_shard), RepositoryTokenizer()
    chat = tuple(name for name in config.sources if name == "chat")
    given = {name: Group.model_validate(group) for name, group in groups.items()}
    parameters = SequenceParameters(config.name, config, seed, chat, groups=given)
    step = Groups(documents, {name: group.rule for name, group in given.items()})
    return Sequence(parameters, SmallTokens(documents, tokenizer), documents, tokenizer, groups=step)


def targets(run: Path) -> list[Step]:
    """What a worker calls to rebuild the graph."""
    asked = json.loads((run / "grouped.json").read_text())
    return [of_stage(Stage.model_validate(one["stage"]), one["groups"]) for one in asked]


Token = tuple[int, int, int, int]
"""A token, its document row, the copy's number, and its place in the document as transformed."""


class Expected:
    """What a sequence should hold, from the documents alone.

    Attributes:
        documents: the training documents in their order, each a list of files, each a list of tokens.
        rows: the documents of the corpus.
        train: which of them may be trained on.
    """

    def __init__(self, sequence: ArrowSequence, step: Sequence) -> None:
        self.of, self.stage = step.parameters, step.parameters.section
        documents, tokens = (open_input(sequence, step, role) for role in ("documents", "tokens"))
        tokenizer = open_input(sequence, step, "tokenizer")
        self.engine, self.control = open_engine(tokenizer), open_control(tokenizer)
        self.eod = self.engine.special["eod"]
        columns = ["id", "text", "source", "repo", "path", "language"]
        self.rows = fetch(documents, np.arange(documents.rows), columns).to_pylist()
        shards = [open_shard(tokens, k) for k in range(len(tokens.shards))]
        about = [(shard.rows.tolist(), shard.split.tolist()) for shard in shards]
        self.train = [row for rows, splits in about for row, split in zip(rows, splits, strict=True) if split == 0]
        units: list[tuple[int, Any, list[list[Token]]]] = []
        for name in self.stage.sources:
            mine = [row for row in self.train if self.rows[row]["source"] == name]
            units += self.units_of(name, mine)
        self.documents = [files for _, _, files in sorted(units, key=lambda unit: unit[:2])]

    def key(self, purpose: tuple[Any, ...], ids: np.ndarray) -> int:
        return int(keyed(salt(self.of.seed, *purpose), ids)[0])

    @cache  # noqa: B019 - as long as the test
    def unit_of(self, row: int) -> tuple[np.ndarray, bool]:
        """The id of what is sampled with a document, and whether that is a group."""
        about, group = self.rows[row], self.of.groups.get(self.rows[row]["source"])
        if group is None:
            return parse_ids([about["id"]]), False
        repo = about["repo"]
        if group.by == "folder":
            repo = about["path"].split("/")[0] if "/" in (about["path"] or "") else None
        if not repo:
            return parse_ids([about["id"]]), False
        key = [about["source"], repo, about["language"] if group.within else None]
        digest = xxhash.xxh3_128_digest(json.dumps(key, separators=(",", ":"), ensure_ascii=False).encode())
        return np.frombuffer(digest, dtype="<u8").reshape(1, 2), True

    def units_of(self, name: str, mine: list[int]) -> list[tuple[int, Any, list[list[Token]]]]:
        take, out = self.stage.sources[name], []
        low, high = take.slice
        copies = int(np.ceil(take.epochs or 1))
        for copy in range(copies):
            share = min(1.0, (take.epochs or 1) - copy)
            held: dict[Any, list[int]] = {}
            for row in mine:
                ids, grouped = self.unit_of(row)
                inside = low <= unit(np.array([self.key(("slice",), ids)], dtype=np.uint64))[0] < high
                if inside and unit(np.array([self.key(("epoch", self.of.stage), ids)], dtype=np.uint64))[0] < share:
                    held.setdefault((ids.tobytes(), -1 if grouped else row), []).append(row)
            for (ids_bytes, alone), files in held.items():
                ids = np.frombuffer(ids_bytes, dtype=np.uint64).reshape(1, 2)
                key = self.key(("order", self.of.stage, copy), ids)
                if alone >= 0:
                    body, _ = self.body(alone, copy, name, None)
                    out.append((key, (copy, alone), [self.placed([*body, self.eod], alone, copy)]))
                else:
                    ordered = self.ordered(name, files, copy)
                    for k, part in enumerate(self.parts(name, ordered, copy, ids)):
                        out.append((key, (copy, int(ids[0, 1]), k), part))
        return out

    def placed(self, tokens: list[int], row: int, copy: int) -> list[Token]:
        return [(token, row, copy, place) for place, token in enumerate(tokens)]

    def ordered(self, name: str, files: list[int], copy: int) -> list[int]:
        group = self.of.groups[name]
        if group.order == "shuffled":
            purpose = "files", self.of.stage, copy
            return sorted(files, key=lambda row: (self.key(purpose, parse_ids([self.rows[row]["id"]])), row))
        # The order is one of all files of the group, whether or not they are kept.
        unit_of = self.unit_of(files[0])[0].tobytes()
        everyone = [r for r in range(len(self.rows)) if self.unit_of(r)[1]]
        everyone = [r for r in everyone if self.unit_of(r)[0].tobytes() == unit_of]
        everyone.sort(key=lambda row: ((self.rows[row]["path"] or "").split("/"), row))
        if group.order == "dependencies":
            everyone = [everyone[k] for k in minimal_order(self.needs(everyone))]
        return [row for row in everyone if row in set(files)]

    def needs(self, files: list[int]) -> list[set[int]]:
        paths = [self.rows[row]["path"] or "" for row in files]
        languages = [language_of(path, self.rows[row]["language"]) for path, row in zip(paths, files, strict=True)]
        repository = Repository(paths, languages, [[] for _ in files])
        return [
            {need for name in imports_of(self.rows[row]["text"], languages[k]) for need in repository.meant(k, name)}
            - {k}
            for k, row in enumerate(files)
        ]

    def body(self, row: int, copy: int, name: str, named: bool | None) -> tuple[list[int], bool]:
        """A file's tokens without what joins it (``named`` None if it stands alone), and whether FIM rearranged it."""
        about, header = self.rows[row], b""
        before: list[int] = []
        if named is not None:
            _, before, header = self.header(name, about, named)
        fim = self.stage.sources[name].fim
        kind, cuts = np.zeros(1, dtype=np.uint8), np.zeros((1, 2))
        if fim is not None and about["text"]:
            key = salt(self.of.seed, "fim", self.of.stage, copy)
            kind, cuts = draw(parse_ids([about["id"]]), key, fim.rate, fim.spm)
        out = rearrange(Texts.of([header + about["text"].encode()]), kind, cuts, self.engine, first=True)
        return [*before, *out.tokens.tolist()], bool(kind[0])

    def encode(self, text: str) -> list[int]:
        return list(text.encode())  # every byte is a token

    def header(self, name: str, about: dict[str, Any], named: bool) -> tuple[list[int], list[int], bytes]:
        """Tokens of a first file, tokens before the file, text before the file."""
        group, ids = self.of.groups[name], self.control.ids
        repo = about["repo"] if group.by == "repo" else (about["path"] or "").split("/")[0]
        if group.format == "starcoder2":
            if not named:
                return [], [ids["<file_sep>"]], b""
            path = f"{about['path']}\n" if about["path"] else ""
            return [ids["<repo_name>"], *self.encode(repo)], [ids["<file_sep>"]], path.encode()
        if group.format == "qwen2.5-coder":
            if not named:
                return [], [ids["<|file_sep|>"]], b""
            path = f"{about['path']}\n" if about["path"] else ""
            return [ids["<|repo_name|>"], *self.encode(f"{repo}\n")], [ids["<|file_sep|>"]], path.encode()
        if group.header == "# {path} {{x}}\n" and named and about["path"]:
            return [], [], f"# {about['path']} {{x}}\n".encode()
        return [], [], b""

    def between(self, name: str, rearranged: bool) -> list[int]:
        group = self.of.groups[name]
        if group.format == "starcoder2":
            return []
        if group.format == "qwen2.5-coder":
            return [] if rearranged else self.encode("\n")
        if group.separator == "<file_sep>\n":
            return [self.control.ids["<file_sep>"], *self.encode("\n")]
        return [self.eod] if rearranged else self.encode("\n" if group.separator is None else group.separator)

    def parts(self, name: str, files: list[int], copy: int, ids: np.ndarray) -> list[list[list[Token]]]:
        """The training documents of a group."""
        group = self.of.groups[name]
        key = self.key(("metadata", self.of.stage, copy), ids)
        named = bool(unit(np.array([key], dtype=np.uint64))[0] < group.metadata)
        documents: list[list[int]] = []
        made: dict[int, tuple[list[int], bool]] = {row: self.body(row, copy, name, named) for row in files}
        leads = {row: self.header(name, self.rows[row], named)[0] for row in files}
        size = 0
        for row in files:
            body, _ = made[row]
            if documents:
                more = size + len(self.between(name, made[documents[-1][-1]][1])) + len(body)
            if documents and more + 1 <= (group.limit or 1 << 30):
                documents[-1].append(row)
                size = more
            else:
                documents.append([row])
                size = len(leads[row]) + len(body)
        out = []
        for document in documents:
            placed = []
            for k, row in enumerate(document):
                body, rearranged = made[row]
                end = [self.eod] if k == len(document) - 1 else self.between(name, rearranged)
                placed.append(self.placed([*(leads[row] if k == 0 else []), *body, *end], row, copy))
            out.append(placed)
        return out


def minimal_order(needs: list[set[int]]) -> list[int]:
    """Algorithm 1 of DeepSeek-Coder (2401.14196) among the files whose needs, and theirs, are placed or need them in
    turn, with the first file wherever several would do."""
    n = len(needs)
    linked: list[set[int]] = [set(mine) for mine in needs]
    for i, mine in enumerate(needs):
        for need in mine:
            linked[need].add(i)
    parts, seen = [], set()
    for i in range(n):
        if i in seen:
            continue
        part, waiting = set(), [i]
        while waiting:
            k = waiting.pop()
            if k not in part:
                part.add(k)
                waiting += linked[k]
        seen |= part
        parts.append(part)
    reached = [_reached(needs, i) for i in range(n)]
    order = []
    for part in parts:
        placed: list[int] = []
        while len(placed) < len(part):
            left = [i for i in sorted(part) if i not in placed]
            cycle = {i: {k for k in reached[i] if i in reached[k]} for i in left}
            left = [i for i in left if reached[i] <= {*placed, *cycle[i]}]
            placed.append(min(left, key=lambda i: (len(needs[i] - set(placed)), i)))
        order += placed
    return order


def _reached(needs: list[set[int]], i: int) -> set[int]:
    found, waiting = set(), [i]
    while waiting:
        k = waiting.pop()
        if k not in found:
            found.add(k)
            waiting += needs[k]
    return found


def stream_of(sequence: ArrowSequence, step: Sequence) -> list[Token]:
    """The tokens of a sequence of concatenated documents in the order of packing, each with where it came from."""
    order = np.argsort(row_keys(step.parameters, np.arange(len(sequence), dtype=np.uint64)), kind="stable")
    final = np.empty(len(order), dtype=np.int64)
    final[order] = np.arange(len(order))
    out: list[Token] = []
    for number in range(len(sequence)):
        row = int(final[number])
        tokens, line = sequence.rows(row, row + 1)[0].tolist(), []
        for s in sequence.segments(row):
            assert s["kind"] != PADDING
            at, n, first = int(s["start"]), int(s["length"]), int(s["offset"])
            about = int(s["row"]), int(s["epoch"])
            line += [(tokens[at + i], *about, first + i) for i in range(n)]
        out += line if number == 0 else line[1:]
    return out
