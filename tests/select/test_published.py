"""Published benchmarks by name: their files in every layout, what a row lacks, and what is searched for."""

from __future__ import annotations

import base64
import gzip
import json
import pickle
import re
import zlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from measure_graph import documents_batch
from pydantic import ValidationError

from headrace.errors import UserError
from headrace.recipe.benchmarks import PARTS, known_as
from headrace.recipe.schema import Decontaminate
from headrace.select.contamination.benchmarks import Item, list_benchmarks, read_items
from headrace.select.contamination.index import build
from headrace.select.contamination.private_tests import pickled_text, private_tests
from headrace.select.contamination.published import docstring
from headrace.select.contamination.step import search
from headrace.select.verdicts.document_filters import contaminated

PROMPT = 'def double(x: int) -> int:\n    """ Twice the number, which is its sum with itself.\n    """\n'
HUMANEVAL = {
    "task_id": "HumanEval/0",
    "prompt": PROMPT,
    "entry_point": "double",
    "canonical_solution": "    return x + x\n",
    "test": "def check(candidate):\n    assert candidate(2) == 4\n",
}
PLUS = {key: value for key, value in HUMANEVAL.items() if key != "test"} | {"base_input": [[1]], "plus_input": [[2]]}
MBPP = {
    "task_id": 11,
    "text": "Write a function to double a number.",
    "code": "def double(x):\r\n  return x + x",
    "test_list": ["assert double(1) == 2", "assert double(2) == 4"],
    "test_setup_code": "",
    "challenge_test_list": [],
}
SANITIZED = {"task_id": 12, "prompt": "Double it.", "code": "x + x", "test_imports": [], "test_list": ["assert 1"]}
MBPP_PLUS = {
    "task_id": "Mbpp/13",
    "prompt": '"""\nDouble it.\nassert double(1) == 2\n"""\n',
    "canonical_solution": "def double(x):\n    return 2 * x\n",
    "assertion": "assert double(3) == 6",
}
APPS = {
    "problem_id": 0,
    "question": "Double a number.\n",
    "solutions": json.dumps(["print(2 * int(input()))", "a = int(input())\nprint(a + a)"]),
    "input_output": json.dumps({"fn_name": "f", "inputs": ["1\n", [2]], "outputs": ["2\n", [4]]}),
    "difficulty": "interview",
    "url": "",
    "starter_code": "",
}
DS1000 = {
    "prompt": "Problem:\nDouble the array.\nA:\n<code>\nimport numpy\n</code>\nBEGIN SOLUTION\n<code>\n",
    "reference_code": "a = a * 2",
    "metadata": {"problem_id": 7, "library": "Numpy"},
    "code_context": "import numpy as np",
}
BIGCODEBENCH = {
    "task_id": "BigCodeBench/0",
    "complete_prompt": PROMPT,
    "instruct_prompt": "Double the number.",
    "canonical_solution": "    return x + x",
    "code_prompt": "def double(x):\n",
    "test": "class TestCases: ...",
    "entry_point": "task_func",
    "doc_struct": "{}",
    "libs": "[]",
}
HIDDEN = json.dumps([{"input": "5\n", "output": "10\n", "testtype": "stdin"}])


def packed(value: Any, protocol: int = 4) -> str:
    """As LiveCodeBench packs its private tests."""
    return base64.b64encode(zlib.compress(pickle.dumps(value, protocol))).decode()


LIVECODEBENCH = {
    "question_title": "Double",
    "question_content": "Print twice the number.",
    "question_id": "abc_1",
    "starter_code": "class Solution: ...",
    "public_test_cases": json.dumps([{"input": "1\n", "output": "2\n", "testtype": "stdin"}]),
    "private_test_cases": packed(HIDDEN),
}
EXECUTION = {"id": "sample_0", "question_id": 1, "code": "def f(x):\n    return 2 * x", "input": "f(1)", "output": "2"}


def config_of(**benchmarks: Any) -> Decontaminate:
    return Decontaminate.model_validate({"benchmarks": benchmarks})


def items(kind: str, path: Path, **keys: Any) -> list[Item]:
    return read_items(list_benchmarks(config_of(b={"kind": kind, "files": str(path), **keys})), "none")


def write(path: Path, rows: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows, indent=1))
    else:
        path.write_bytes(gzip.compress(lines, mtime=0) if path.suffix == ".gz" else lines)
    return path


def all_parts(kind: str) -> list[str]:
    return list(PARTS[kind].every)  # type: ignore[index]


@pytest.mark.parametrize(
    ("kind", "row", "name", "fields", "program"),
    [
        (
            "humaneval",
            HUMANEVAL,
            "b:HumanEval/0",
            {
                "prompt": PROMPT,
                "docstring": "Twice the number, which is its sum with itself.",
                "solution": "    return x + x\n",
                "tests": HUMANEVAL["test"],
                "entry_point": "double",
            },
            PROMPT + "    return x + x\n",
        ),
        (
            "mbpp",
            MBPP,
            "b:11",
            {"question": MBPP["text"], "solution": MBPP["code"], "tests": "\n".join(MBPP["test_list"]) + ""},
            MBPP["code"],
        ),
        ("mbpp", SANITIZED, "b:12", {"question": "Double it.", "solution": "x + x", "tests": "assert 1"}, "x + x"),
        (
            "mbpp",
            MBPP_PLUS,
            "b:Mbpp/13",
            {
                "question": "Double it.\nassert double(1) == 2",
                "solution": MBPP_PLUS["canonical_solution"],
                "tests": "assert double(3) == 6",
            },
            MBPP_PLUS["canonical_solution"],
        ),
        (
            "ds1000",
            DS1000,
            "b:7",
            {
                "prompt": "Problem:\nDouble the array.\nA:\n<code>\nimport numpy\n</code>\n",
                "solution": "a = a * 2",
                "tests": "import numpy as np",
            },
            "a = a * 2",
        ),
        ("gsm8k", {"question": "How many?", "answer": "2"}, "b:f:1", {"question": "How many?", "answer": "2"}, None),
        (
            "bigcodebench",
            BIGCODEBENCH,
            "b:BigCodeBench/0",
            {
                "prompt": PROMPT,
                "instruction": "Double the number.",
                "docstring": "Twice the number, which is its sum with itself.",
                "solution": "    return x + x",
                "tests": "class TestCases: ...",
                "entry_point": "task_func",
            },
            PROMPT + "    return x + x",
        ),
        (
            "livecodebench",
            LIVECODEBENCH,
            "b:abc_1",
            {
                "question": "Print twice the number.",
                "starter_code": "class Solution: ...",
                "tests": "1\n\n2\n\n5\n\n10\n",
            },
            None,
        ),
        (
            "livecodebench",
            EXECUTION,
            "b:sample_0",
            {"solution": EXECUTION["code"], "tests": "f(1)\n2"},
            EXECUTION["code"],
        ),
    ],
)
@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz", "json", "parquet"])
def test_every_part_is_known(
    tmp_path: Path, kind: str, row: dict[str, Any], name: str, fields: dict[str, str], program: str | None, suffix: str
) -> None:
    path = write(tmp_path / f"f.{suffix}", [row])
    wanted = [part for part in all_parts(kind) if part in fields]
    (item,) = items(kind, path, fields=wanted)
    assert item.name == (f"b:f.{suffix}:1" if name == "b:f:1" else name)
    assert {key: value.rstrip("\n") for key, value in item.fields.items()} == {
        key: value.rstrip("\n") for key, value in fields.items()
    }
    whole = dict.fromkeys([program, fields.get("solution", program)]) if program is not None else {}
    assert list(item.programs.values()) == list(whole)
    (usual,) = items(kind, path)
    assert set(usual.fields) <= set(PARTS[kind].searched)  # type: ignore[index]


def test_apps_has_many_solutions(tmp_path: Path) -> None:
    path = write(tmp_path / "test.jsonl", [APPS, {**APPS, "problem_id": 1, "solutions": "", "input_output": ""}])
    first, second = items("apps", path, fields=all_parts("apps"))
    assert first.name == "b:0"
    assert first.fields == {"question": "Double a number.\n", "tests": "1\n\n2\n2\n\n4"}
    solutions = {"solutions 1": "print(2 * int(input()))", "solutions 2": "a = int(input())\nprint(a + a)"}
    assert first.alternatives == first.programs == solutions
    assert (second.alternatives, second.fields) == ({}, {"question": "Double a number.\n"})
    assert items("apps", path)[0].programs == {}
    index = build([first], 3, False, True)
    assert index.pattern_fields == ["question", "tests", "solutions 1", "solutions 2"]
    assert index.sizes.tolist() == build([Item("b:0", first.fields)], 3, False, False).sizes.tolist()


def test_folders_of_items(tmp_path: Path) -> None:
    for number in ("0000", "0001"):
        folder = tmp_path / "APPS" / "test" / number
        folder.mkdir(parents=True)
        (folder / "question.txt").write_text(f"Double the number {number}.")
        (folder / "metadata.json").write_text("{}")
        (folder / "input_output.json").write_text(APPS["input_output"])
    (folder / "solutions.json").write_text(APPS["solutions"])
    (folder / "starter_code.py").write_text("def f(): ...")
    (tmp_path / "APPS" / "README.txt").write_text("about")
    first, second = items("apps", tmp_path / "APPS" / "test", fields=all_parts("apps"))
    assert (first.name, first.fields["question"]) == ("b:0000", "Double the number 0000.")
    assert (second.fields["starter_code"], len(second.programs)) == ("def f(): ...", 2)
    (one, other) = items("apps", tmp_path / "APPS" / "test" / "*" / "question.txt")
    assert (one.name, other.fields) == ("b:0000", {"question": "Double the number 0001."})
    folder = tmp_path / "ds1000_data" / "Numpy" / "Insertion" / "q1"
    folder.mkdir(parents=True)
    (folder / "prompt.txt").write_text("Double it.\n# SOLUTION START\n")
    (folder / "reference_code.txt").write_text("a + a")
    (folder / "code_context.txt").write_text("import numpy")
    (folder / ".cfg").write_text("[DEFAULT]")
    (item,) = items("ds1000", tmp_path / "ds1000_data", fields=all_parts("ds1000"))
    assert (item.name, item.fields) == (
        "b:Numpy/Insertion/q1",
        {"prompt": "Double it.\n# ", "solution": "a + a", "tests": "import numpy"},
    )
    (folder / "prompt.txt").write_bytes(b"\xff")
    with pytest.raises(UserError, match="not UTF-8"):
        items("ds1000", tmp_path / "ds1000_data")


def test_a_file_that_does_not_fit_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [HUMANEVAL, {"task_id": 3, "prompt": "p"}])
    with pytest.raises(
        UserError, match=r"(?s)no item of HumanEval: it lacks 'canonical_solution'.*row 2.*task_id, prompt"
    ):
        items("humaneval", path)
    with pytest.raises(UserError, match="no item of MBPP: it lacks 'code' or 'canonical_solution'"):
        items("mbpp", write(tmp_path / "a.jsonl", [{"text": "t"}]))
    with pytest.raises(UserError, match="no item of GSM8K: it lacks 'question' and 'answer'"):
        items("gsm8k", write(tmp_path / "a.jsonl", [{"q": "t"}]))
    with pytest.raises(UserError, match="'question_content' or 'code'"):
        items("livecodebench", write(tmp_path / "a.jsonl", [{"q": "t"}]))
    with pytest.raises(UserError, match="field 'prompt' holds a number, not text"):
        items("humaneval", write(tmp_path / "a.jsonl", [{**HUMANEVAL, "prompt": 3}]))
    with pytest.raises(UserError, match="'solutions' is no JSON"):
        items("apps", write(tmp_path / "a.jsonl", [{**APPS, "solutions": "[1,"}]))
    with pytest.raises(UserError, match="no list of texts"):
        items("apps", write(tmp_path / "a.jsonl", [{**APPS, "solutions": "[1]"}]))
    with pytest.raises(UserError, match="has no 'tests'"):
        items("humaneval", write(tmp_path / "a.jsonl", [PLUS]), fields=["prompt", "tests"])
    with pytest.raises(UserError, match="not an object with fields"):
        items("humaneval", write(tmp_path / "a.jsonl", [3]))
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "a.py").write_text("x")
    (tmp_path / "code" / "b.py").write_text("x")
    with pytest.raises(UserError, match=r"(?s)No file of APPS is there.*question\.txt"):
        items("apps", tmp_path / "code")


def test_what_a_recipe_may_say() -> None:
    assert [known_as(name) for name in ("HumanEval", "DS-1000", "human_eval", "mbpp", "exam")] == [
        "humaneval", "ds1000", "humaneval", "mbpp", None,
    ]  # fmt: skip
    config = config_of(
        humaneval={"files": "x"}, mbpp={"files": "x", "fields": "code"}, other={"files": "x", "kind": "apps"}
    )
    assert [config.kind_of(name) for name in config.benchmarks] == ["humaneval", None, "apps"]
    assert config.parts_of("other") == ("question",)
    for benchmark, said in (
        ({"files": "x"}, "no known benchmark"),
        ({"files": "x", "kind": "apps", "fields": "solution"}, "no part 'solution'"),
        ({"files": "x", "kind": "apps", "code": "solutions"}, "knows which"),
        ({"files": "x", "code": "code"}, "no known benchmark"),
    ):
        with pytest.raises(ValidationError, match=said):
            config_of(exam=benchmark)


def test_fields_of_ones_own_make_a_program(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", [{"head": "def f(x):", "body": "    return x\n", "q": "what"}])
    config = config_of(exam={"files": str(path), "fields": "q", "code": ["head", "body"]})
    (item,) = read_items(list_benchmarks(config), "none")
    assert item.programs == {"program": "def f(x):\n    return x\n"}
    with pytest.raises(UserError, match=r"exam\.code"):
        read_items(list_benchmarks(config_of(exam={"files": str(path), "fields": "q", "code": "tail"})), "none")


@given(st.text(), st.integers(2, 5))
def test_a_pickled_text_is_read(text: str, protocol: int) -> None:
    text = text.encode("utf-8", "replace").decode()
    assert pickled_text(pickle.dumps(text, protocol)) == text.encode()


@given(st.binary(max_size=60))
def test_no_pickle_is_trusted(data: bytes) -> None:
    for given_data in (data, b"\x80\x04" + data, pickle.dumps("text") + data if data else b"X"):
        found = pickled_text(given_data)
        assert found is None or pickle.dumps(found.decode("utf-8", "surrogatepass"), 2)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("run",)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (packed(Evil()), "could run a program"),
        (packed(["a list"]), "could run a program"),
        (packed("no json"), "no JSON"),
        ("[1,", "no JSON"),
        ("?", "neither"),
        (base64.b64encode(b"plain").decode(), "neither"),
        (packed(HIDDEN)[:24], "neither|cut off"),
    ],
)
def test_what_of_private_tests_is_left_out(value: str, said: str, capfd: pytest.CaptureFixture[str]) -> None:
    found, why = private_tests(value)
    assert found is None
    assert re.search(said, why)
    assert "run" not in capfd.readouterr().out


def test_items_whose_tests_cannot_be_read_stay(tmp_path: Path) -> None:
    rows = [
        LIVECODEBENCH,
        {**LIVECODEBENCH, "private_test_cases": packed(Evil())},
        {**LIVECODEBENCH, "private_test_cases": HIDDEN},
    ]
    path = write(tmp_path / "test.jsonl", rows)
    whole, part, plain = items("livecodebench", path, fields=["question", "tests"])
    assert (part.fields["tests"], plain.fields) == ("1\n\n2\n", whole.fields)
    assert ("could run" in part.unread, whole.unread, items("livecodebench", path)[1].unread) == (True, "", "")


def flagged(texts: list[str], found: list[Item]) -> set[int]:
    """The documents that ``substring: bigcode`` removes; no n-gram is long enough."""
    config = Decontaminate.model_validate(
        {"benchmarks": {"b": {"files": "x", "fields": "f"}}, "substring": "bigcode", "ngram": 10_000}
    )
    rows = search(documents_batch([{"text": text} for text in texts]), build(found, 10_000, False, "bigcode"))
    reasons = contaminated(rows, config).reason.to_pylist()
    return {row for row, reason in enumerate(reasons) if reason is not None}


def test_bigcode_finds_what_its_script_finds(shared: Path) -> None:
    """benchmark_data.py and find_substrings.py in a few lines of Python, over HumanEval and MBPP."""
    folder = shared / "fixtures" / "benchmarks"
    humaneval = [
        json.loads(line) for line in gzip.decompress((folder / "HumanEval.jsonl.gz").read_bytes()).splitlines()
    ]
    mbpp = [json.loads(line) for line in (folder / "mbpp.jsonl").open()]
    tested = [row for row in mbpp if row["task_id"] in range(11, 511)]
    trivial = ["return x + y", "return len(string)", "return n**2", "return .join(strings)"]  # as it is written there
    solutions = [row["canonical_solution"].strip() for row in humaneval]

    def extracted(prompt: str) -> str:
        quotes = '"""' if '"""' in prompt else "'''"
        return prompt.split(quotes)[{2: 1, 4: 3}[prompt.count(quotes)]].strip()

    needles = [row[key] for row in tested for key in ("text", "code")]
    needles += [extracted(row["prompt"]) for row in humaneval] + [
        one for one in solutions if one and one not in trivial
    ]
    texts = [row["prompt"] + row["canonical_solution"] for row in humaneval] + [row["code"] for row in mbpp]
    texts += [text.upper() for text in texts[::3]] + [text.replace(" ", "  ") for text in texts[::5]]
    texts += [f"def f(x, y, n, string, strings):\n    {one}\n" for one in [*trivial, *solutions]]
    expected = {d for d, text in enumerate(texts) if any(needle.lower() in text.lower() for needle in needles)}
    config = config_of(
        humaneval={"files": str(folder / "HumanEval.jsonl.gz")}, mbpp={"files": str(folder / "mbpp.jsonl")}
    )
    found = flagged(texts, read_items(list_benchmarks(config), "none"))
    assert found == expected
    assert 1000 < len(found) < len(texts)


def test_docstrings() -> None:
    assert docstring(PROMPT) == "Twice the number, which is its sum with itself."
    assert docstring(PROMPT.replace('"""', "'''") + "pass") == docstring(PROMPT)
    assert docstring(f'def help():\n    """ one """\n\n{PROMPT}') == docstring(PROMPT)
    assert (docstring("no"), docstring('"""')) == ("", "")
