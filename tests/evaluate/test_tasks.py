"""Code tasks: every canonical solution passes in the sandbox, no mutant does; prompts are the published ones."""

from __future__ import annotations

import ast
import gzip
import json
import warnings
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace.errors import UserError
from headrace.evaluate.sandbox import Sandbox
from headrace.evaluate.tasks import read_tasks

pytestmark = pytest.mark.filterwarnings("error")


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox(unsafe=True) as made:
        yield made


@pytest.fixture(scope="session")
def rows(shared):
    folder = shared / "fixtures" / "benchmarks"
    with gzip.open(folder / "HumanEval.jsonl.gz", "rt") as file:
        human = [json.loads(line) for line in file]
    return human, [json.loads(line) for line in (folder / "mbpp.jsonl").read_text().splitlines()]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_tasks(str(path))


def statuses(sandbox, tasks, completions):
    with ThreadPoolExecutor(2) as pool:
        verdicts = list(
            pool.map(lambda pair: sandbox.run(pair[0].attempt(pair[1])), zip(tasks, completions, strict=True))
        )
    return {task.id: verdict for task, verdict in zip(tasks, verdicts, strict=True)}


class Wrong(ast.NodeTransformer):
    """Every value that is returned is another."""

    def visit_Return(self, node):
        return ast.Return(ast.Tuple([node.value or ast.Constant(None), ast.Constant("mutant")], ast.Load()))


def mutant(task):
    with warnings.catch_warnings(action="ignore"):  # about the solutions' own escapes
        tree = ast.fix_missing_locations(Wrong().visit(ast.parse(task.head + task.canonical)))
    return f"\n\n\n{ast.unparse(tree)}\n" if not task.head else task.canonical + f"\n{ast.unparse(tree)}\n"


def check(sandbox, tasks):
    right = statuses(sandbox, tasks, [task.canonical for task in tasks])
    assert {id: told for id, told in right.items() if told.status != "passed"} == {}
    wrong = statuses(sandbox, tasks, [mutant(task) for task in tasks])
    assert {id for id, told in wrong.items() if told.status == "passed"} == set()


def test_canonical_solutions_pass_and_mutants_fail(sandbox, shared):
    folder = shared / "fixtures" / "benchmarks"
    human, mbpp = (read_tasks(str(folder / name)) for name in ("HumanEval.jsonl.gz", "mbpp.jsonl"))
    assert (len(human), len(mbpp)) == (164, 500)
    # Also those with helpers, classes of the program's own, modules, and a function called like a built-in one.
    particular = [32, 38, 50], {"MBPP/367", "MBPP/596", "MBPP/126"}
    some = [*human[::8], *(human[i] for i in particular[0] if i % 8)]
    check(sandbox, [*some, *(task for i, task in enumerate(mbpp) if i % 20 == 0 or task.id in particular[1])])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["HumanEval.jsonl.gz", "mbpp.jsonl"])
def test_all_canonical_solutions_pass_and_all_mutants_fail(sandbox, shared, name):
    check(sandbox, read_tasks(str(shared / "fixtures" / "benchmarks" / name)))


def test_the_prompt_of_mbpp_is_the_papers(shared, tmp_path, rows):
    [task] = [t for t in read_tasks(str(shared / "fixtures" / "benchmarks" / "mbpp.jsonl")) if t.id == "MBPP/11"]
    shots = task.prompt.split("You are an expert Python programmer, and here is your task: ")
    assert len(shots) == 5
    assert shots[1].startswith(
        "Write a function to find the similar elements from the given two tuple lists. Your code should pass these "
        "tests:\n\nassert similar_elements((3, 4, 5, 6),(5, 7, 4, 10)) == (4, 5)\n"
    )
    assert "\n[BEGIN]\ndef similar_elements" in shots[1]
    assert shots[1].rstrip().endswith("[DONE]")
    assert shots[4].endswith('assert remove_Occ("PHP","P") == "H"\n[BEGIN]\n')
    assert "\r" not in task.prompt
    assert task.cut("def f():\n    pass\n[DONE]\nassert") == "def f():\n    pass\n"
    other = write(tmp_path / "some.jsonl", rows[1][10:12])
    assert other[0].prompt == (
        '"""\nWrite a python function to remove first and last occurrence of a given character from the string.\n'
        'assert remove_Occ("hello","l") == "heo"\nassert remove_Occ("abcda","a") == "bcd"\n'
        'assert remove_Occ("PHP","P") == "H"\n"""\n'
    )


def test_a_completion_ends_with_its_function(shared):
    task = read_tasks(str(shared / "fixtures" / "benchmarks" / "HumanEval.jsonl.gz"))[0]
    body = "    # class\n    return 1\n"
    for more in ("\ndef g(): pass", "\nclass A", "\n# more", "\nif __name__", "\nprint(1)", "\n@cache", "\n```"):
        assert task.cut(body + more) == body
    assert task.cut(body) == body
    assert task.attempt("    return True").program == task.prompt + "    return True\n"


def test_other_files_of_the_schemas(sandbox, tmp_path, rows):
    human, mbpp = rows
    pq.write_table(pa.Table.from_pylist(human[:3]), tmp_path / "humaneval.parquet")
    assert [task.id for task in read_tasks(str(tmp_path / "humaneval.parquet"))] == [f"HumanEval/{i}" for i in range(3)]
    # MBPP+ on the hub: test code of its own beside the list.
    row = {**mbpp[10], "prompt": mbpp[10]["text"], "test_imports": ["import math"]}
    del row["text"], row["test_setup_code"]
    row["test"] = "for a, b in [(('hello', 'l'), 'heo')]:\n    assert math.floor(1.5) == 1 and remove_Occ(*a) == b\n"
    tasks = write(tmp_path / "mbppplus.jsonl", [row])
    check(sandbox, tasks)


def test_releases_of_evalplus(sandbox, tmp_path, rows):
    human, mbpp = rows
    inputs = {0: [[[1.0, 2.0, 3.9], 0.3]], 4: [[[1.0, 2.0, 3.0]], [[1e10, 1.0]]], 32: [[[1, 2]], [[-6, 11, -6, 1]]]}
    plus = [
        {**{key: human[i][key] for key in ("task_id", "prompt", "entry_point", "canonical_solution")}, "contract": "",
         "base_input": given[:1], "plus_input": given[1:], "atol": 1e-4 if i == 32 else 0}
        for i, given in inputs.items()
    ]  # fmt: skip
    tasks = write(tmp_path / "HumanEvalPlus.jsonl", plus)
    assert tasks[0].prompt == human[0]["prompt"]
    check(sandbox, tasks)
    nearly = statuses(sandbox, tasks[1:2], [tasks[1].canonical.replace("return ", "return 1e-9 + ")])
    assert nearly["HumanEval/4"].status == "passed"  # floats are compared with a tolerance
    asked = '"""\nWrite a function to find the shared elements from the given two lists.\n'
    like = {
        "task_id": "Mbpp/2",
        "prompt": asked + 'assert set(similar_elements((3, 4, 5, 6),(5, 7, 4, 10))) == set((4, 5))\n"""\n',
        "entry_point": "similar_elements", "canonical_solution": "\n" + mbpp[1]["code"], "contract": "", "atol": 0,
        "base_input": [[[3, 4, 5, 6], [5, 7, 4, 10]]], "plus_input": [[[1, 2], [2, 3]]],
    }  # fmt: skip
    counted = {
        **like, "task_id": "Mbpp/3", "entry_point": "count",
        "prompt": '"""\nassert count({"a": (1, 2)}, [(1,)], 2j) == 1\n"""\n',
        "canonical_solution": "def count(d, l, c):\n    return len({d['b'], *l, c})\n",
        "base_input": [[{"b": [1, 2]}, [[1], [2], [1]], "1j"]], "plus_input": [],
    }  # fmt: skip
    tasks = write(tmp_path / "MbppPlus.jsonl", [like, counted])
    found = statuses(sandbox, tasks, [task.canonical for task in tasks])
    assert [told.status for told in found.values()] == ["passed", "passed"], found
    reordered = "def similar_elements(a, b):\n    return sorted(set(a) & set(b), key=str)\n"
    assert statuses(sandbox, tasks[:1], [reordered])["Mbpp/2"].status == "passed"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({}, "no task of a schema"),
        ({"task_id": 1, "prompt": "x", "entry_point": "f g", "test": ""}, "no task of a schema"),
        ({"task_id": None, "prompt": "x", "entry_point": "f", "test": ""}, "no task of a schema"),
        ({"task_id": "a", "text": "x", "code": "def (", "test_list": ["assert 1"]}, "no task of a schema"),
        ({"task_id": "a", "text": "x", "code": "x = 1", "test_list": 3}, "no task of a schema"),
        (
            {"task_id": "a", "prompt": "x", "entry_point": "f", "canonical_solution": "", "base_input": 7},
            "no task of a",
        ),
        ("not a row", "cannot be used"),
    ],
)
def test_what_is_no_task_is_said_with_its_row(tmp_path, row, message):
    good = {"task_id": "b", "prompt": "def f():\n", "entry_point": "f", "test": "def check(f): pass"}
    with pytest.raises(UserError, match=message) as told:
        write(tmp_path / "x.jsonl", [good, row])
    assert "row 2" in str(told.value)
    with pytest.raises(UserError, match="Two tasks"):
        write(tmp_path / "x.jsonl", [good, good])
