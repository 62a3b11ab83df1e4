"""Shapes of programs against plain Python, and copies of real ones under other names."""

from __future__ import annotations

import ast
import builtins
import json
import re
import sysconfig
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from measure_graph import documents_batch
from test_contamination_kernels import buffers

from headrace.recipe.schema import Decontaminate, Shapes
from headrace.select.contamination import shapes
from headrace.select.contamination.benchmarks import list_benchmarks, read_items
from headrace.select.contamination.index import build
from headrace.select.contamination.shapes import KEPT, STRETCH, TELLING, find_shapes, shape_of, shape_table
from headrace.select.contamination.step import search
from headrace.select.verdicts.document_filters import contaminated

FREE = {"name", "0", "''", "."}


def tokens(text: str) -> list[tuple[str, int, int]]:
    """The shape of a text by regular expressions: (token, start, end)."""
    found: list[tuple[str, int, int]] = []
    open_ended: set[str] = set()
    i = 0
    while i < len(text):
        before = found[-1][0] if found else ""
        if blank := re.compile(r"[\s(),;\\`]+|#[^\n]*").match(text, i):
            i = blank.end()
        elif text[i : i + 3] in ('"""', "'''"):
            closing = re.compile(rf"(?:\\.|[^\\])*?{text[i : i + 3]}", re.DOTALL).match(text, i + 3)
            if before == ":" and text[i] not in open_ended and closing:
                i = closing.end()
            else:
                open_ended |= {text[i]} if before == ":" and not closing else set()
                i += 3
        elif text[i] in "\"'":
            end = re.compile(rf"{text[i]}(?:\\.|[^\\\n{text[i]}])*(?:{text[i]}|\\?$)?", re.DOTALL).match(text, i).end()
            found += [("''", i, end)] if before != ":" else []
            i = end
        elif number := re.compile(r"[0-9](?:[0-9A-Za-z_]|\.(?![A-Za-z_.]))*").match(text, i):
            found.append(("0", *number.span()))
            i = number.end()
        elif word := re.compile(r"\w+").match(text, i):
            if re.fullmatch("[rRbBuUfF]{1,2}", word[0]) and text[word.end() : word.end() + 1] in ("'", '"'):
                i = word.end()
                continue
            stays = before == "." or word[0] in KEPT
            found.append((word[0] if stays else "name", *word.span()))
            i = word.end()
        else:
            found.append((text[i], i, i + 1))
            i += 1
    return found


def grams(text: str, n: int) -> list[tuple[tuple[str, ...], int, int, int]]:
    """Telling n-grams: (tokens, the number of the last, start, end)."""
    units = tokens(text)
    windows = [(i, units[i : i + n]) for i in range(len(units) - n + 1)]
    return [
        (tuple(t for t, _, _ in window), i, window[0][1], window[-1][2])
        for i, window in windows
        if sum(t not in FREE for t, _, _ in window) >= TELLING
    ]


pieces = st.sampled_from(
    ["def ", "f", "x1", "_y", "(", ")", ":", ":\n ", "return ", "1", "2.5", "3.", ".", ".append", "len", "+", "[", "]",
     "=", "# no ' matter\n", '"', "'", '"""', "'''", 'r"', "\\", "\n", " ", "é", "²", "for ", "in ", ",", "漢"]
)  # fmt: skip
codes = st.lists(pieces, max_size=40).map("".join)


@given(codes)
def test_shapes_equal_python(text: str) -> None:
    assert shape_of(text) == [token for token, _, _ in tokens(text)]


def best_stretch(text: str, wanted: set[tuple[str, ...]], n: int, span: int) -> tuple[int, int]:
    """The most n-grams in a stretch, and the bytes of the shortest such."""
    held = [gram for gram in grams(text, n) if gram[0] in wanted]
    found = [(0, 0)]
    for a, (_, first, start, _) in enumerate(held):
        for b in range(a, len(held)):
            if held[b][1] - first <= span:
                distinct = len({gram for gram, _, _, _ in held[a : b + 1]})
                found.append((distinct, -len(text[start : held[b][3]].encode())))
    most, size = max(found)
    return most, -size


@given(st.lists(codes, max_size=3), st.lists(codes, max_size=3), st.integers(2, 4), st.booleans())
def test_the_best_stretch_equals_python(programs: list[str], texts: list[str], n: int, small: bool) -> None:
    documents = [*texts, *("x = 1\n".join([*texts, *programs]) for _ in range(bool(programs)))]
    table = shape_table(programs, n, 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shapes, "_HITS", 1 if small else 4096)
        found = find_shapes(*buffers(documents), table)
    got = {(d, s): (m, b - a) for d, s, m, a, b in zip(*(column.tolist() for column in found), strict=True)}
    seen: set[int] = set()
    for shape in range(len(table.sizes)):
        owners = table.owners[table.owner_offsets[shape] : table.owner_offsets[shape + 1]].tolist()
        seen |= set(owners)
        wanted = {gram for gram, _, _, _ in grams(programs[owners[0]], n)}
        assert all({gram for gram, _, _, _ in grams(programs[p], n)} == wanted for p in owners)
        assert table.sizes[shape] == len(wanted)
        span = STRETCH * max(len(tokens(programs[p])) for p in owners)
        for d, text in enumerate(documents):
            most, size = best_stretch(text, wanted, n, span)
            if most >= max(1, len(wanted) / 2):
                assert got.pop((d, shape)) == (most, size)
    assert not got
    assert seen == {p for p, program in enumerate(programs) if grams(program, n)}


def test_common_ngrams_count_for_none() -> None:
    head = "for a in range(len(b)):\n    if a in b and not a:\n        return [a]\n"
    programs = [
        f"{head}    {'x.append(1) + ' * (i + 1)} [x.sum{i}[x] + x.pop{i} - x.top{i} * x.hop{i}]\n" for i in range(70)
    ]
    table = shape_table(programs, 4, 1)
    hits = find_shapes(*buffers([head * 3, programs[3]]), table)
    assert 0 not in hits.document.tolist()
    assert 3 in table.owners[table.owner_offsets[hits.shape]].tolist()
    assert len(shape_table([head] * 70, 4, 4).owners) == 70  # of one shape, which is in one


def test_hostile_texts_end() -> None:
    program = "def f(a):\n    for b in a:\n        if b in a and not b:\n            a.append(b + 1)\n    return a[1]\n"
    table = shape_table([program], 6, 5)
    hostile = [
        "'\\'" * 50_000,
        ":'''" * 50_000,
        '"""' * 50_000,
        program * 2_000,
        "\\" * 9_999,
        "'",
        ':"""',
        "a." * 9_999,
    ]
    hits = find_shapes(*buffers([*hostile, f'text = """\n{program}"""\n']), table)
    assert hits.document.tolist() == [3, 8]


class Renamed(ast.NodeTransformer):
    """Other names, numbers and strings, no docstrings, no annotations."""

    def __init__(self, imported: set[str]) -> None:
        self.names: dict[str, str] = {}
        self.imported = imported

    def name(self, name: str) -> str:
        kept = name in self.imported or hasattr(builtins, name)
        return name if kept else self.names.setdefault(name, f"renamed{len(self.names)}")

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name(self.name(node.id), node.ctx)

    def visit_arg(self, node: ast.arg) -> ast.arg:
        return ast.arg(self.name(node.arg))

    def visit_Constant(self, node: ast.Constant) -> ast.Constant:
        value = node.value
        return ast.Constant("other" if isinstance(value, str) else value + 7 if type(value) is int else value)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.name, node.returns = self.name(node.name), None
        node.body = node.body[1:] if ast.get_docstring(node) else node.body
        return self.generic_visit(node)


def renamed(program: str) -> str:
    tree = ast.parse(program)
    modules = [a for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom) for a in node.names]
    return ast.unparse(Renamed({(a.asname or a.name).split(".")[0] for a in modules}).visit(tree))


def test_humaneval_is_found_under_other_names_and_the_standard_library_is_not(shared: Path) -> None:
    file = str(shared / "fixtures" / "benchmarks" / "HumanEval.jsonl.gz")
    config = Decontaminate.model_validate({"benchmarks": {"humaneval": {"files": file}}, "shapes": {}})
    items = read_items(list_benchmarks(config), "nfc")
    limits = Shapes()
    index = build(items, config.ngram, False, False, limits)
    assert index.shapes is not None
    searched = set(index.program_items[index.shapes.owners].tolist())
    assert len(searched) > 140  # the others are too short
    copies = [f"import sys\n\n{renamed(item.programs['program'])}\n\nprint(sys.argv)\n" for item in items]
    library = [path.read_text(errors="replace") for path in sorted(Path(sysconfig.get_paths()["stdlib"]).glob("*.py"))]
    found = search(documents_batch([{"text": text} for text in copies + library]), index)
    removed = contaminated(found, config).evidence.to_pylist()
    told = [json.loads(one) if one else None for one in removed]
    own = [i for i in searched if told[i] and told[i]["item"] == items[i].name and told[i]["method"] == "shape"]
    assert len(own) > 0.9 * len(searched)
    assert not any(told[len(copies) :])
