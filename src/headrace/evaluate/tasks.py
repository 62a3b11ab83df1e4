"""Code tasks in the schemas of HumanEval, MBPP and EvalPlus: prompts, where a completion ends, and tests.

* HumanEval (Chen et al. 2021, 2107.03374): ``prompt``, ``entry_point``, ``test``. The model continues a function.
  HumanEval+ as published on the Hugging Face hub has the same fields and more tests.
* MBPP (Austin et al. 2021, 2108.07732): ``text`` (or ``prompt``), ``code``, ``test_list``. The paper's prompt shows
  three solved tasks, 2 to 4, and its test split is tasks 11 to 510. A file without those, and MBPP+ (with ``test``), is
  asked as in bigcode-evaluation-harness: the task and its tests in a docstring.
* EvalPlus's releases (Liu et al. 2023, 2305.01210): ``base_input``, ``plus_input``, ``atol``; what is right is what the
  canonical solution answers.
"""

from __future__ import annotations

import ast
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from headrace.documents.readers.base import Bad, Record
from headrace.documents.sources import list_files
from headrace.errors import UserError
from headrace.evaluate.sandbox import Job
from headrace.recipe.schema import Source
from headrace.select.contamination.benchmarks import rows_of

# HumanEval's stop words are the paper's, and two that bigcode-evaluation-harness adds; so are those of docstrings.
AFTER_FUNCTION = ("\nclass", "\ndef", "\n#", "\nif", "\nprint", "\n@", "\n```")
AFTER_PROGRAM = ("\nclass", "\nassert", '\n"""', "\nprint", "\nif", "\n<|/", "\n```")
DONE = "[DONE]"
SHOTS, TEST_SPLIT = (2, 3, 4), range(11, 511)  # MBPP's few-shot examples and test split, by task id

# Where EvalPlus asks for less than an equal answer: an equal set, or whether there is one.
_EQUAL_SETS = (
    "similar_elements", "find_char_long", "common_in_nested_lists", "extract_singly", "larg_nnum", "intersection_array",
    "find_dissimilar", "Diff",
)  # fmt: skip
_NOT_NONE = ("check_str", "text_match_three", "text_starta_endb")
_PLUS_TESTS = """
import copy
import numpy as np

def is_floats(x):
    return isinstance(x, float) or (isinstance(x, (list, tuple)) and bool(x) and all(isinstance(i, float) for i in x))

def same(found, expected, atol):
    if found == expected:
        return True
    atol = atol or (1e-6 if is_floats(expected) else 0)
    if atol == 0 or type(found) is not type(expected):
        return False
    return np.shape(found) == np.shape(expected) and np.allclose(found, expected, rtol=1e-7, atol=atol)

for given in {inputs!r}:
    expected = expected_answer(*copy.deepcopy(given))
    found = {entry_point}(*copy.deepcopy(given))
    {check}
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


def read_tasks(path: str) -> list[Task]:
    """The tasks of a file (JSONL, JSON or Parquet, also compressed).

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
                    what = row.error if isinstance(row, Bad) else "the line is blank"
                    raise UserError(f"A row of the tasks cannot be used: {what}.", where, "Fix the file.")
                rows.append((where, row.fields))
    except UserError as error:
        raise UserError(error.what, error.where.replace("sources.tasks.files", "--tasks"), error.fix) from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about the Python of tasks, such as "\\w" in a text
        tasks = _tasks(rows)
    if not tasks:
        raise UserError("The file has no tasks.", path, "Give a file of tasks.")
    seen: set[str] = set()
    for task, (where, _) in zip(tasks, rows, strict=False):
        if task.id in seen:
            raise UserError(f"Two tasks are called {task.id!r}.", where, "Give each its own task_id.")
        seen.add(task.id)
    return tasks


def _tasks(rows: list[tuple[str, dict[str, Any]]]) -> list[Task]:
    examples = {row.get("task_id"): row for _, row in rows if _is_mbpp(row)}
    shots = "" if any(one not in examples for one in SHOTS) else "".join(_shot(examples[one], True) for one in SHOTS)
    tasks = []
    for where, row in rows:
        try:
            if "base_input" in row:
                tasks.append(_plus(row))
            elif {"prompt", "entry_point", "test"} <= row.keys():
                tasks.append(_human_eval(row))
            elif _is_mbpp(row) and shots:
                if row["task_id"] in TEST_SPLIT:
                    tasks.append(_mbpp(row, shots))
            elif {"test_list", "code"} <= row.keys() and {"text", "prompt"} & row.keys():
                tasks.append(_mbpp(row))
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


def _human_eval(row: dict[str, Any]) -> Task:
    prompt, name = _text(row, "prompt"), _name(row)
    # With its docstring as its body the prompt is a module: the helpers that tests use come from there, not from the
    # program, which may have changed them.
    helpers = next((text for text in (prompt, f"{prompt}\n    pass\n") if _is_code(text)), "")
    tests = f"{_text(row, 'test')}\n\ncheck({name})\n"
    job = Job("", tests, helpers, (name,))
    return Task(_id(row), prompt, AFTER_FUNCTION, prompt, job, row.get("canonical_solution") or "")


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
    prompt = '"""\n' + "\n".join([str(told), *_list(row, "test_list")]) + '\n"""\n'
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


def _plus(row: dict[str, Any]) -> Task:
    prompt, name, solution = _text(row, "prompt"), _name(row), _text(row, "canonical_solution")
    human = _is_code(prompt + solution) and f"def {name}" in prompt
    reference = prompt + solution if human else solution
    inputs = [*(row["base_input"] or ()), *(row.get("plus_input") or ())]
    if not human:
        example = _arguments(prompt, name)
        inputs = [[_like(one, like) for one, like in zip(given, example or given, strict=False)] for given in inputs]
    check = f"assert same(found, expected, {float(row.get('atol') or 0)})"
    if name == "find_zero" and human:
        check = f"assert abs(poly(*given, found)) <= {float(row.get('atol') or 1e-6)}"
    elif name in _EQUAL_SETS and not human:
        check = "assert set(found) == set(expected)"
    elif name in _NOT_NONE and not human:
        check = "assert (found is not None) == (expected if isinstance(expected, bool) else expected is not None)"
    tests = _PLUS_TESTS.format(inputs=inputs, entry_point=name, check=check)
    job = Job("", tests, f"{reference}\nexpected_answer = {name}\n", (name,))
    if human:
        return Task(_id(row), prompt, AFTER_FUNCTION, prompt, job, solution)
    return Task(_id(row), prompt, AFTER_PROGRAM, "", job, solution)


def _arguments(prompt: str, name: str) -> list[Any] | None:
    """The arguments of the first call in a prompt's assertions: JSON has no tuples, but they show where one is due."""
    for line in prompt.splitlines():
        try:
            calls = [node for node in ast.walk(ast.parse(line.strip())) if isinstance(node, ast.Call)]
            for call in calls:
                if isinstance(call.func, ast.Name) and call.func.id == name:
                    return [ast.literal_eval(argument) for argument in call.args]
        except (SyntaxError, ValueError):
            continue
    return None


def _like(value: Any, example: Any) -> Any:
    """A value from JSON with the kinds of collections that an example has."""
    if isinstance(value, str) and isinstance(example, complex):
        return complex(value)
    if isinstance(value, dict) and isinstance(example, dict) and example:
        inner = next(iter(example.values()))
        return {key: _like(one, inner) for key, one in value.items()}
    if not isinstance(value, list) or not isinstance(example, list | tuple | set):
        return value
    inside = list(example)
    same_length = len(inside) == len(value)
    items = [_like(one, (inside[i] if same_length else inside[0]) if inside else one) for i, one in enumerate(value)]
    return type(example)(items)


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


def _list(row: dict[str, Any], field: str) -> Iterable[str]:
    if not all(isinstance(one, str) for one in row[field]):
        raise TypeError(field)
    return list(row[field])
