"""Code tasks in the schemas of HumanEval, MBPP and EvalPlus: prompts, where a completion ends, and tests.

* HumanEval (Chen et al. 2021, 2107.03374): ``prompt``, ``entry_point``, ``test``. The model continues a function.
  HumanEval+ as published on the Hugging Face hub has the same fields and more tests.
* MBPP (Austin et al. 2021, 2108.07732): ``text`` (or ``prompt``), ``code``, ``test_list``; MBPP+ also has ``test``. The
  test split is tasks 11 to 510.
* EvalPlus's releases (Liu et al. 2023, 2305.01210): ``base_input``, ``plus_input``, ``atol``; what is right is what the
  canonical solution answers, with the exceptions of evalplus/eval/__init__.py (version 0.3).

There are two ways to ask, :data:`PROMPTS`. Stop words are the same.
"""

from __future__ import annotations

import ast
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from headrace.documents.readers.base import Record
from headrace.documents.sources import list_files
from headrace.errors import UserError
from headrace.evaluate.sandbox import Job
from headrace.recipe.schema import Source
from headrace.select.contamination.benchmarks import fault, rows_of

# HumanEval's stop words are the paper's, and two that bigcode-evaluation-harness adds; so are those of docstrings.
AFTER_FUNCTION = ("\nclass", "\ndef", "\n#", "\nif", "\nprint", "\n@", "\n```")
AFTER_PROGRAM = ("\nclass", "\nassert", '\n"""', "\nprint", "\nif", "\n<|/", "\n```")
DONE = "[DONE]"
SHOTS, TEST_SPLIT = (2, 3, 4), range(11, 511)  # MBPP's few-shot examples and test split, by task id

Prompts = Literal["bigcode", "paper"]
PROMPTS: tuple[Prompts, ...] = ("bigcode", "paper")
"""``bigcode``: as bigcode-evaluation-harness, with which CrystalCoder's figures were made: white space around the
beginning of a function is removed; MBPP's task and its first test stand in a docstring. ``paper``: as the papers of
HumanEval (the prompt as it is; EvalPlus too keeps its last newline) and MBPP (all tests, after three solved tasks)."""

# EvalPlus's exceptions for MBPP+: what is equal to the expected answer.
_IS_ONE = "(found == (expected is not None) if isinstance(found, bool) else (expected is None) == (found is None))"
_EQUAL = {
    **dict.fromkeys(
        ("similar_elements", "find_char_long", "common_in_nested_lists", "extract_singly", "larg_nnum",
         "intersection_array", "find_dissimilar", "Diff"), "set(found) == set(expected)"),
    **dict.fromkeys(("check_str", "text_match_three", "text_starta_endb"), _IS_ONE),
    "are_equivalent": "True",
    "sum_div": "found == expected or found == 0",
    "surface_Area": "found == expected or abs(found - surface_of_height(*given)) <= {atol}",
    "digit_distance_nums": "found == expected or found == distance_of_digits(*given)",
}  # fmt: skip
_PLUS_TESTS = """
import copy, math
import numpy as np

def close(found, expected, atol):
    items = expected if isinstance(expected, (list, tuple)) else [expected]
    atol = atol or (1e-6 if len(items) and all(isinstance(one, float) for one in items) else 0)
    if atol == 0 or type(found) is not type(expected):
        return False
    return np.shape(found) == np.shape(expected) and np.allclose(found, expected, rtol=1e-7, atol=atol)

def surface_of_height(base, height):
    return round(base**2 + 2 * base * math.sqrt((base / 2) ** 2 + height**2))

def distance_of_digits(*numbers):
    width = max(len(str(number)) for number in numbers)
    return sum(abs(int(a) - int(b)) for a, b in zip(*(str(number).zfill(width) for number in numbers)))

for given in {inputs!r}:
    expected = expected_answer(*copy.deepcopy(given))
    found = {entry_point}(*copy.deepcopy(given))
    assert {check}
"""


@dataclass(frozen=True)
class Task:
    """One task.

    Attributes:
        id: as in its file; a number becomes ``MBPP/<number>``.
        prompt: what the model continues.
        stop: what ends a completion, first come.
        head: what stands before the completion in the program.
        job: its tests; the program is filled in by :meth:`attempt`.
        canonical: a completion that passes.
    """

    id: str
    prompt: str
    stop: tuple[str, ...]
    head: str
    job: Job
    canonical: str

    def cut(self, completion: str) -> str:
        """A completion up to the first stop word."""
        ends = [at for at in (completion.find(word) for word in self.stop) if at >= 0]
        return completion[: min(ends)] if ends else completion

    def attempt(self, completion: str) -> Job:
        """The job that tells whether a completion, already cut, solves the task."""
        return replace(self.job, program=f"{self.head}{completion}\n")


def read_tasks(path: str, prompts: Prompts = "bigcode") -> list[Task]:
    """The tasks of a file (JSONL, JSON or Parquet, also compressed).

    Args:
        path: the file; a pattern or URL as in a recipe's ``files``.
        prompts: how to ask.

    Raises:
        UserError: there is no such file, or a row is no task of a schema that is known.
    """
    source = Source.model_validate({"files": [path]})
    rows: list[tuple[str, dict[str, Any]]] = []
    try:
        for file in list_files("tasks", source, 0, Path.cwd()):
            for row in rows_of(file):
                where = f"{file.url}, row {row.row + 1}"
                if not isinstance(row, Record):
                    raise UserError(f"A row of the tasks cannot be used: {fault(row)}.", where, "Fix the file.")
                rows.append((where, row.fields))
    except UserError as error:
        raise UserError(error.what, error.where.replace("sources.tasks.files", "--tasks"), error.fix) from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the Python of tasks, such as "\\w" in a text
        tasks = _tasks(rows, prompts)
    if not tasks:
        raise UserError("The file has no tasks.", path, "Give a file of tasks.")
    seen: set[str] = set()
    for task, (where, _) in zip(tasks, rows, strict=False):
        if task.id in seen:
            raise UserError(f"Two tasks are called {task.id!r}.", where, "Give each its own task_id.")
        seen.add(task.id)
    return tasks


def _tasks(rows: list[tuple[str, dict[str, Any]]], prompts: Prompts) -> list[Task]:
    examples = {row.get("task_id"): row for _, row in rows if _is_mbpp(row)}
    whole = all(one in examples for one in SHOTS)  # MBPP's own file; others are asked all
    shots = "".join(_shot(examples[one], True) for one in SHOTS) if whole and prompts == "paper" else None
    tasks = []
    for where, row in rows:
        try:
            if "base_input" in row:
                tasks.append(_plus(row, prompts))
            elif {"prompt", "entry_point", "test"} <= row.keys():
                tasks.append(_human_eval(row, prompts))
            elif {"test_list", "code"} <= row.keys() and {"text", "prompt"} & row.keys():
                if not (whole and _is_mbpp(row)):
                    tasks.append(_mbpp(row))
                elif row["task_id"] in TEST_SPLIT:
                    tasks.append(_mbpp(row, shots))
            else:
                raise KeyError
        except (KeyError, TypeError, ValueError, SyntaxError):
            raise UserError(
                "This is no task of a schema that is known: HumanEval's (prompt, entry_point, test), MBPP's (text or "
                "prompt, code, test_list) or EvalPlus's (prompt, entry_point, base_input, plus_input).",
                where,
                f"Its fields are {', '.join(map(str, row))}.",
            ) from None
    return tasks


def _function(row: dict[str, Any], prompts: Prompts, job: Job) -> Task:
    """A task whose prompt is the beginning of a function."""
    prompt, solution = _text(row, "prompt"), row.get("canonical_solution") or ""
    if prompts == "bigcode":
        solution = prompt[len(prompt.rstrip()) :] + solution
        prompt = prompt.strip()
    return Task(_id(row), prompt, AFTER_FUNCTION, prompt, job, solution)


def _human_eval(row: dict[str, Any], prompts: Prompts) -> Task:
    prompt, name = _text(row, "prompt"), _name(row)
    # With its docstring as its body the prompt is a module: the helpers that tests use come from there, not from the
    # program, which may have changed them.
    helpers = next((text for text in (prompt, f"{prompt}\n    pass\n") if _is_code(text)), "")
    tests = f"{_text(row, 'test')}\n\ncheck({name})\n"
    return _function(row, prompts, Job("", tests, helpers, (name,)))


def _mbpp(row: dict[str, Any], shots: str | None = None) -> Task:
    tests = row["test"] if isinstance(row.get("test"), str) else "\n".join(_list(row, "test_list"))
    tests = f"{row.get('test_setup_code') or ''}\n{tests}\n"
    imports, defined = _top_level(_text(row, "code"))
    used = {node.id for node in ast.walk(ast.parse(tests)) if isinstance(node, ast.Name)}
    before = "\n".join([*imports, *(row.get("test_imports") or ())])
    job = Job("", tests, before, tuple(name for name in defined if name in used))
    if shots is not None:
        return Task(_id(row), shots + _shot(row, False), (DONE,), "", job, _text(row, "code"))
    told = row["text"] if "text" in row else row["prompt"]
    prompt = '"""\n' + "\n".join([str(told), *_list(row, "test_list")[:1]]) + '\n"""\n'
    return Task(_id(row), prompt, AFTER_PROGRAM, "", job, row["code"])


def _top_level(code: str) -> tuple[list[str], list[str]]:
    """The imports of a program, as text, and the names that it defines."""
    imports, names = [], []
    for node in ast.parse(code).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            imports.append(ast.unparse(node))
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.append(node.name)
        else:
            stored = (one for one in ast.walk(node) if isinstance(one, ast.Name) and isinstance(one.ctx, ast.Store))
            names += [one.id for one in stored]
    return imports, list(dict.fromkeys(names))


def _shot(row: dict[str, Any], solved: bool) -> str:
    """One task of the paper's prompt."""
    tests = "\n".join(_list(row, "test_list"))
    asked = f"You are an expert Python programmer, and here is your task: {_text(row, 'text')}"
    code = _text(row, "code").replace("\r\n", "\n")
    return f"{asked} Your code should pass these tests:\n\n{tests}\n[BEGIN]\n" + (f"{code}\n{DONE}\n" if solved else "")


def _plus(row: dict[str, Any], prompts: Prompts) -> Task:
    prompt, name, solution = _text(row, "prompt"), _name(row), _text(row, "canonical_solution")
    human = _is_code(prompt + solution) and f"def {name}" in prompt
    inputs, atol = [*(row["base_input"] or ()), *(row.get("plus_input") or ())], float(row.get("atol") or 0)
    if human and name == "find_zero":
        check = f"abs(poly(*given, found)) <= {atol}"
    else:
        equal = "found == expected" if human else _EQUAL.get(name, "found == expected").format(atol=atol)
        check = f"({equal}) or close(found, expected, {atol})"
    number = _id(row).lower().removeprefix("mbpp/")
    if not human and number.isdecimal():
        inputs = [_mbpp_input(int(number), given) for given in inputs]
    tests = _PLUS_TESTS.format(inputs=inputs, entry_point=name, check=check)
    job = Job("", tests, f"{prompt + solution if human else solution}\nexpected_answer = {name}\n", (name,))
    return _function(row, prompts, job) if human else Task(_id(row), prompt, AFTER_PROGRAM, "", job, solution)


def _mbpp_input(task: int, given: list[Any]) -> list[Any]:
    """The arguments of a task of MBPP+ from JSON, which has no tuples, sets and complex numbers: as in EvalPlus's
    ``mbpp_deserialize_inputs``."""
    first, *rest = given or [None]
    if task in {
        2,
        116,
        132,
        143,
        222,
        261,
        273,
        394,
        399,
        421,
        424,
        429,
        470,
        560,
        579,
        596,
        616,
        630,
        726,
        740,
        744,
        809,
    }:
        return [tuple(one) for one in given]
    if task in {63, 64, 70, 94, 120, 237, 272, 299, 400, 409, 417, 438, 473, 614, 780}:
        return [[tuple(one) for one in argument] for argument in given]
    if task in {259, 278, 401, 445, 580, 615, 791}:
        return [_tuples(one) for one in given]
    if task in {75, 413, 444, 753}:
        return [[tuple(one) for one in first], *rest]
    if task in {250, 307, 405, 446, 617, 720, 763, 808}:
        return [tuple(first), *rest]
    if task in {106, 750}:
        return [first, tuple(rest[0])]
    if task == 115:
        return [[set(one) if isinstance(one, list) and one else {} for one in first]]
    if task == 722:
        return [{key: tuple(value) for key, value in first.items()}, *rest]
    return [float(first), complex(rest[0])] if task == 124 else [complex(first)] if task == 252 else given


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _is_mbpp(row: dict[str, Any]) -> bool:
    return {"text", "code", "test_list"} <= row.keys() and "test" not in row and type(row.get("task_id")) is int


def _is_code(text: str) -> bool:
    try:
        ast.parse(text)
    except (SyntaxError, ValueError):
        return False
    return True


def _id(row: dict[str, Any]) -> str:
    value = row["task_id"]
    if isinstance(value, int):
        return f"MBPP/{value}"
    return _text(row, "task_id")


def _name(row: dict[str, Any]) -> str:
    name = _text(row, "entry_point")
    if not name.isidentifier():
        raise ValueError(name)
    return name


def _text(row: dict[str, Any], field: str) -> str:
    if not isinstance(row[field], str):
        raise TypeError(field)
    return str(row[field])


def _list(row: dict[str, Any], field: str) -> list[str]:
    if not all(isinstance(one, str) for one in row[field]):
        raise TypeError(field)
    return list(row[field])
