"""Code tasks: every canonical solution passes in the sandbox, no mutant does; prompts are the published ones."""

# ruff: noqa: E501 - a case of EvalPlus a line

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


def test_prompts_are_those_of_the_harness_or_of_the_papers(shared, tmp_path, rows):
    folder = shared / "fixtures" / "benchmarks"
    [task] = [t for t in read_tasks(str(folder / "mbpp.jsonl"), "paper") if t.id == "MBPP/11"]
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
    harness = (
        '"""\nWrite a python function to remove first and last occurrence of a given character from the string.\n'
        'assert remove_Occ("hello","l") == "heo"\n"""\n'
    )
    whole = read_tasks(str(folder / "mbpp.jsonl"))
    assert (len(whole), whole[0].prompt) == (500, harness)
    assert write(tmp_path / "some.jsonl", rows[1][10:12])[0].prompt == harness
    human = rows[0][0]["prompt"]
    assert read_tasks(str(folder / "HumanEval.jsonl.gz"), "paper")[0].prompt == human
    assert read_tasks(str(folder / "HumanEval.jsonl.gz"))[0].prompt == human.strip()


def test_a_completion_ends_with_its_function(shared):
    task = read_tasks(str(shared / "fixtures" / "benchmarks" / "HumanEval.jsonl.gz"))[0]
    body = "\n    # class\n    return 1\n"
    for more in ("\ndef g(): pass", "\nclass A", "\n# more", "\nif __name__", "\nprint(1)", "\n@cache", "\n```"):
        assert task.cut(body + more) == body
    assert task.cut(body) == body
    assert task.attempt("\n    return True").program == task.prompt + "\n    return True\n"


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
    human, _ = rows
    inputs = {0: [[[1.0, 2.0, 3.9], 0.3]], 4: [[[1.0, 2.0, 3.0]], [[1e10, 1.0]]], 32: [[[1, 2]], [[-6, 11, -6, 1]]]}
    plus = [
        {**{key: human[i][key] for key in ("task_id", "prompt", "entry_point", "canonical_solution")}, "contract": "",
         "base_input": given[:1], "plus_input": given[1:], "atol": 1e-4 if i == 32 else 0}
        for i, given in inputs.items()
    ]  # fmt: skip
    tasks = write(tmp_path / "HumanEvalPlus.jsonl", plus)
    assert tasks[0].prompt == human[0]["prompt"].strip()
    check(sandbox, tasks)
    nearly = statuses(sandbox, tasks[1:2], [tasks[1].canonical.replace("return ", "return 1e-9 + ")])
    assert nearly["HumanEval/4"].status == "passed"  # floats are compared with a tolerance
    far = statuses(sandbox, tasks[1:], [task.canonical.replace("return ", "return 1e-3 + ") for task in tasks[1:]])
    assert {told.status for told in far.values()} == {"failed"}


# Of MBPP+: reference, inputs as in JSON; answers that EvalPlus takes for right, and others.
SPECIAL = [
    (2, "similar_elements", "a, b: tuple(set(a) & set(b))", [[[3, 4, 5], [5, 4]]], ["a, b: [5, 4, 4]"], ["a, b: (4,)", "a, b: a + b"]),
    (737, "check_str", "s: __import__('re').match('[aeiou]', s)", [["annie"], ["dawood"]],
     ["s: s[0] in 'aeiou'", "s: 0 if s[0] in 'aeiou' else None"], ["s: False", "s: 'no'", "s: None"]),
    (164, "are_equivalent", "a, b: a == b", [[1, 2], [3, 3]], ["a, b: False", "a, b: None"], ["a, b: 1 / 0"]),
    (295, "sum_div", "n: n - 1", [[8], [12]], ["n: 0"], ["n: 1", "n: n"]),
    (581, "surface_Area", "b, s: 2 * b * s + b * b", [[3, 4], [5, 9]],
     ["b, h: round(b * b + 4 * b * ((b / 2) ** 2 + h * h) ** 0.5 / 2)"], ["b, s: 2 * b * s + b * b + 1"]),
    (558, "digit_distance_nums", "a, b: sum(map(int, str(abs(a - b))))", [[1, 22], [123, 256]],
     ["a, b: sum(abs(int(x) - int(y)) for x, y in zip(str(a).zfill(3), str(b).zfill(3)))"], ["a, b: abs(a - b)"]),
    (98, "multiply_num", "n: n[0] / 3", [[[1, 2]], [[5]]], ["n: n[0] / 3 + 1e-9"], ["n: n[0] / 3 + 1e-4", "n: str(n[0] / 3)"]),
    (99, "halves", "n: [one / 2 for one in n]", [[[1, 3]]], ["n: [0.5 + 1e-9, 1.5]"], ["n: (0.5 + 1e-9, 1.5)", "n: [0.5]", "n: 0.5"]),
    (115, "empty_dit", "l: [type(one).__name__ for one in l]", [[[[1, 2], [], {}]]], ["l: ['set', 'dict', 'dict']"], ["l: ['list'] * 3"]),
    (124, "angle_complex", "a, b: [type(a).__name__, type(b).__name__]", [[0, "1j"]], ["a, b: ['float', 'complex']"], ["a, b: ['int', 'str']"]),
    (252, "convert", "n: n.real", [["1+2j"]], ["n: 1.0"], ["n: 2.0"]),
    (278, "count_first_elements", "t: t.index((2, 3))", [[[1, [2, 3], 4]]], ["t: 1"], ["t: t.index([2, 3])"]),
    (615, "average_tuple", "t: str(t)", [[[[1, 2], [3]]]], ["t: '((1, 2), (3,))'"], ["t: '([1, 2], [3])'"]),
    (722, "filter_data", "s, n: str(s)", [[{"a": [1, 2]}, 3]], ["s, n: \"{'a': (1, 2)}\""], ["s, n: \"{'a': [1, 2]}\""]),
    (307, "colon_tuplex", "t, m, n: str(t) + str(m)", [[["a", [1]], [2], 3]], ["t, m, n: \"('a', [1])[2]\""], ["t, m, n: \"['a', [1]][2]\""]),
    (750, "add_tuple", "l, t: str(l) + str(t)", [[[1], [2, 3]]], ["l, t: '[1](2, 3)'"], ["l, t: '[1][2, 3]'"]),
    (120, "max_product_tuple", "l: str(l)", [[[[1, 2], [3, 4]]]], ["l: '[(1, 2), (3, 4)]'"], ["l: '[[1, 2], [3, 4]]'"]),
    (75, "find_tuples", "l, k: str(l)", [[[[1, 2]], 6]], ["l, k: '[(1, 2)]'"], ["l, k: '[[1, 2]]'"]),
    ("mine", "own", "a: a[0] is None", [[[None]]], ["a: True"], ["a: False"]),
    (3, "no_arguments", ": 3", [[]], [": 3"], [": 4"]),
]  # fmt: skip


def test_evalplus_special_cases(sandbox, tmp_path):
    plus = [
        {
            "task_id": f"Mbpp/{number}" if isinstance(number, int) else number,
            "prompt": f'"""\nWrite {name}.\nassert {name}()\n"""\n', "entry_point": name, "contract": "", "atol": 0,
            "canonical_solution": f"\n{name} = lambda {reference}\n", "base_input": given[:1], "plus_input": given[1:],
        }
        for number, name, reference, given, _, _ in SPECIAL
    ]  # fmt: skip
    tasks = write(tmp_path / "MbppPlus.jsonl", plus)
    tried, answers, expected = [], [], []
    for task, (_, name, _, _, right, wrong) in zip(tasks, SPECIAL, strict=True):
        for solution in [*right, *wrong]:
            tried.append(task)
            answers.append(f"{name} = lambda {solution}\n")
            expected.append(solution in right)
        tried.append(task)
        answers.append(task.canonical)
        expected.append(True)
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda pair: sandbox.run(pair[0].attempt(pair[1])), zip(tried, answers, strict=True)))
    surprising = [
        (answer, told)
        for answer, told, right in zip(answers, found, expected, strict=True)
        if (told.status == "passed") != right
    ]
    assert surprising == []


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
