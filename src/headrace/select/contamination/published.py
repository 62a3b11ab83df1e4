"""Published benchmarks: what their files look like, and which text of a row is which part of an item.

=============  ====================================================================================================
HumanEval      ``HumanEval.jsonl.gz`` (Chen et al. 2021, 2107.03374), the hub's Parquet, HumanEval+, infilling
MBPP           ``mbpp.jsonl``, ``sanitized-mbpp.json`` (Austin et al. 2021, 2108.07732), the hub's Parquet, MBPP+
APPS           the folders ``test/0000/question.txt`` ... (Hendrycks et al. 2021, 2105.09938), the hub's ``test.jsonl``
DS-1000        the folders ``Numpy/Insertion/q1/prompt.txt`` ... (Lai et al. 2022, 2211.11501), ``ds1000.jsonl.gz``
GSM8K          ``test.jsonl`` (Cobbe et al. 2021, 2110.14168), the hub's Parquet
BigCodeBench   the hub's Parquet or the package's .jsonl (Zhuo et al. 2024, 2406.15877)
EvoEval        ``EvoEval_difficult.jsonl.gz`` ... (Xia et al. 2024, 2403.19114)
LiveCodeBench  ``test.jsonl`` ... of code_generation(_lite), execution, test_generation (Jain et al. 2024, 2403.07974)
=============  ====================================================================================================
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson

from headrace.documents.fields import find
from headrace.documents.readers.base import kind as kind_in_words
from headrace.recipe.benchmarks import BenchmarkKind
from headrace.select.contamination.private_tests import private_tests

Row = Mapping[str, Any]

# Solutions that bigcode-dataset keeps (benchmark_data.py, HUMAN_EVAL_STRINGS_OK). Its fourth, written with single
# quotes within single quotes, is no solution, so `return ''.join(strings)` is searched for there as well.
TRIVIAL = ("return x + y", "return len(string)", "return n**2", "return .join(strings)")
TEST_TASKS = range(11, 511)  # MBPP's test split


class Unfit(Exception):  # noqa: N818 - a state of the row, which the caller makes an error of
    """A row is not an item of the benchmark: what it lacks, in words."""


@dataclass
class Texts:
    """The texts of an item.

    Attributes:
        parts: part -> text; None if the row has no field for it. A list holds alternatives, such as solutions.
        programs: name -> program, if it has no alternatives. A solution that completes a function is one by itself
            too, because a copy may have another head, without annotations.
        verbatim: what bigcode-dataset's script searches for.
        unread: why some of its text could not be taken; '' if all was.
    """

    parts: dict[str, str | list[str] | None]
    programs: dict[str, str] = field(default_factory=dict)
    verbatim: dict[str, str] = field(default_factory=dict)
    unread: str = ""


@dataclass(frozen=True)
class Published:
    """How to read a benchmark.

    Attributes:
        name: as its authors write it.
        ids: fields that hold the item's id, the first that a row has.
        needs: fields of a row, each with its other names.
        read: the texts of a row. Raises :class:`Unfit`.
        folder: if it was published as a folder for each item: file -> the field that it holds, the first of them in
            every folder.
    """

    name: str
    ids: tuple[str, ...]
    needs: tuple[tuple[str, ...], ...]
    read: Callable[[Row], Texts]
    folder: dict[str, str] = field(default_factory=dict)

    def texts(self, row: Row) -> Texts:
        """The texts of a row.

        Raises:
            Unfit: it lacks a field, or has something else in it.
        """
        lacking = [names for names in self.needs if all(row.get(name) is None for name in names)]
        if lacking:
            raise Unfit("it lacks " + " and ".join(" or ".join(map(repr, names)) for names in lacking))
        return self.read(row)

    def id_of(self, row: Row) -> str | None:
        """The item's id; None if it has none."""
        values = (find(row, name) for name in self.ids)
        return next((str(value) for value in values if isinstance(value, str | int)), None)


def text(row: Row, *names: str) -> str | None:
    """The text of the first of some fields that a row has; lists of texts are joined by line breaks."""
    for name in names:
        value = row.get(name)
        if value is None:
            continue
        if isinstance(value, list) and all(isinstance(part, str) for part in value):
            return "\n".join(value)
        if not isinstance(value, str):
            raise Unfit(f"its field {name!r} holds {kind_in_words(value)}, not text")
        return value
    return None


def docstring(prompt: str) -> str:
    """The docstring of the function that a prompt ends in, as bigcode-dataset's ``extract_docstring`` takes it; '' if
    there is none."""
    for quotes in ('"""', "'''"):
        parts = prompt.split(quotes)
        if len(parts) >= 3:
            return parts[len(parts) - 2 - (len(parts) % 2 == 0)].strip()
    return ""


def after(first: str, *others: str) -> str:
    """Parts of a program, each beginning a line."""
    for other in others:
        first = first + other if first.endswith("\n") or not first else f"{first}\n{other}"
    return first


def _completed(row: Row) -> Texts:
    """HumanEval and EvoEval: a function to complete. Infilling tasks have what follows as well."""
    prompt, solution = text(row, "prompt") or "", text(row, "canonical_solution") or ""
    program = after(prompt, solution, text(row, "suffix") or "")
    about, short = docstring(prompt), solution.strip()
    parts: dict[str, str | list[str] | None] = {"prompt": prompt, "docstring": about, "solution": solution}
    parts |= {"tests": text(row, "test"), "entry_point": text(row, "entry_point")}
    kept = short if short not in TRIVIAL else ""
    return Texts(parts, {"program": program, "solution": solution}, {"docstring": about, "solution": kept})


def _mbpp(row: Row) -> Texts:
    question, solution = text(row, "text", "prompt") or "", text(row, "code", "canonical_solution") or ""
    if "task_id" in row and (number := re.search(r"\d+$", str(row["task_id"]))):
        verbatim = {"question": question, "solution": solution} if int(number[0]) in TEST_TASKS else {}
    else:
        verbatim = {"question": question, "solution": solution}
    given = [text(row, name) for name in ("test_list", "challenge_test_list", "test", "assertion")]
    tests = "\n".join(filter(None, given)) if any(one is not None for one in given) else None
    return Texts(
        {"question": docstring(question) or question, "solution": solution, "tests": tests},
        {"solution": solution},
        verbatim,
    )


def _apps(row: Row) -> Texts:
    question = text(row, "question") or ""
    solutions = row.get("solutions")
    if isinstance(solutions, str):
        solutions = _json(solutions, "solutions") if solutions.strip() else []
    if solutions is not None and not (isinstance(solutions, list) and all(isinstance(one, str) for one in solutions)):
        raise Unfit("its field 'solutions' is no list of texts")
    parts = {"question": question, "solutions": solutions, "starter_code": text(row, "starter_code")}
    tests = row.get("input_output")
    if isinstance(tests, str):
        tests = _json(tests, "input_output") if tests.strip() else {}
    return Texts(
        {**parts, "tests": None if tests is None else "\n".join(_strings(tests))}, {}, {"question": question.strip()}
    )


def _ds1000(row: Row) -> Texts:
    prompt, solution = text(row, "prompt") or "", text(row, "reference_code") or ""
    # As bigcode-dataset's extract_ds_1000_prompt: what follows these words is the same in all.
    asked = re.split("SOLUTION START|BEGIN SOLUTION", prompt, maxsplit=1)[0]
    return Texts(
        {"prompt": asked, "solution": solution, "tests": text(row, "code_context", "test_code")},
        {"solution": solution},
        {"prompt": asked},
    )


def _gsm8k(row: Row) -> Texts:
    question = text(row, "question") or ""
    return Texts({"question": question, "answer": text(row, "answer")}, {}, {"question": question.strip()})


def _bigcodebench(row: Row) -> Texts:
    prompt, solution = text(row, "complete_prompt") or "", text(row, "canonical_solution") or ""
    about = docstring(prompt)
    parts: dict[str, str | list[str] | None] = {"prompt": prompt, "instruction": text(row, "instruct_prompt")}
    parts |= {"docstring": about, "solution": solution}
    parts |= {"tests": text(row, "test"), "entry_point": text(row, "entry_point")}
    programs = {"program": after(prompt, solution), "solution": solution}
    return Texts(parts, programs, {"docstring": about, "solution": solution.strip()})


def _livecodebench(row: Row) -> Texts:
    question, solution = text(row, "question_content"), text(row, "code")
    if question is None and solution is None:
        raise Unfit("it lacks 'question_content' or 'code'")
    tests, unread = _tests(row)
    parts = {"question": question, "solution": solution, "starter_code": text(row, "starter_code"), "tests": tests}
    about = {"question": question, "solution": solution}
    return Texts(
        dict(parts), {"solution": solution or ""}, {name: (one or "").strip() for name, one in about.items()}, unread
    )


def _tests(row: Row) -> tuple[str | None, str]:
    """What a row of LiveCodeBench tests, inputs and outputs, and why some of it was left out."""
    given = [row.get(name) for name in ("public_test_cases", "test")]
    values = [_json(one, "public_test_cases") if isinstance(one, str) else one for one in given if one is not None]
    hidden, unread = row.get("private_test_cases"), ""
    if isinstance(hidden, str) and hidden:
        plain, unread = private_tests(hidden)
        values += [] if unread else [plain]
    elif hidden is not None:
        values.append(hidden)
    if not values and {"input", "output"} <= row.keys():
        values = [row["input"], row["output"]]
    return ("\n".join(_strings(values)) if values or unread else None), unread


def _json(value: str, name: str) -> Any:
    try:
        return orjson.loads(value)
    except orjson.JSONDecodeError:
        raise Unfit(f"its field {name!r} is no JSON") from None


def _strings(value: Any) -> list[str]:
    """All texts and numbers in a JSON value, in order, without the names of fields."""
    found, waiting = [], [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            waiting.extend(reversed([inner for name, inner in one.items() if name not in ("testtype", "fn_name")]))
        elif isinstance(one, list):
            waiting.extend(reversed(one))
        elif one is not None:
            found.append(one if isinstance(one, str) else str(one))
    return found


PUBLISHED: dict[BenchmarkKind, Published] = {
    "humaneval": Published("HumanEval", ("task_id",), (("prompt",), ("canonical_solution",)), _completed),
    "mbpp": Published("MBPP", ("task_id",), (("text", "prompt"), ("code", "canonical_solution")), _mbpp),
    "apps": Published(
        "APPS",
        ("problem_id", "id"),
        (("question",),),
        _apps,
        {
            "question.txt": "question",
            "solutions.json": "solutions",
            "starter_code.py": "starter_code",
            "input_output.json": "input_output",
        },
    ),
    "ds1000": Published(
        "DS-1000",
        ("metadata.problem_id", "problem_id"),
        (("prompt",), ("reference_code",)),
        _ds1000,
        {
            "prompt.txt": "prompt",
            "reference_code.txt": "reference_code",
            "code_context.txt": "code_context",
            "test_code.py": "test_code",
        },
    ),
    "gsm8k": Published("GSM8K", (), (("question",), ("answer",)), _gsm8k),
    "bigcodebench": Published(
        "BigCodeBench", ("task_id",), (("complete_prompt",), ("canonical_solution",)), _bigcodebench
    ),
    "evoeval": Published("EvoEval", ("task_id",), (("prompt",), ("canonical_solution",)), _completed),
    "livecodebench": Published("LiveCodeBench", ("id", "question_id"), (), _livecodebench),
}
