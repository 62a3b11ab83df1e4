"""What files import, which files that means, and their order."""

from __future__ import annotations

import random
from graphlib import CycleError, TopologicalSorter

import pytest
from grouped_build import minimal_order
from hypothesis import given
from hypothesis import strategies as st

from headrace.sequence.grouping.imports import MOST, SCANS, imports_of, language_of
from headrace.sequence.grouping.order import dependencies_first
from headrace.sequence.grouping.resolve import Repository
from headrace.sequence.grouping.step import in_order

# Language -> files of a repository, with the files that each one imports.
REPOSITORIES: dict[str, dict[str, tuple[str, set[str]]]] = {
    "python": {
        "src/pkg/__init__.py": ("from .core import run\n", {"src/pkg/core.py"}),
        "src/pkg/core.py": ("import os, types\nfrom pkg.io import (read,\n    write)  # both\n",
                            {"src/pkg/io/__init__.py"}),
        "src/pkg/types.py": ("x: int\n", set()),
        "src/pkg/io/__init__.py": ("from ..types import A\nfrom . import csv as table\n",
                                   {"src/pkg/types.py", "src/pkg/io/csv.py"}),
        "src/pkg/io/csv.py": ("    import pkg.types as t\n", {"src/pkg/types.py"}),
        "tests/test_core.py": ("from pkg import core\nimport helper\n# import pkg.types\n",
                               {"src/pkg/core.py", "tests/helper.py"}),
        "tests/helper.py": ("from ..... import nothing\nfrom numpy import array\n", set()),
    },
    "typescript": {
        "web/app.tsx": ("import React from 'react'\nimport { a } from './lib/a'\nexport * from \"../shared/b.js\"\n",
                        {"web/lib/a.ts", "shared/b.ts"}),
        "web/lib/a.ts": ("const b = require('../lib')\nawait import('./missing')\n", {"web/lib/index.ts"}),
        "web/lib/index.ts": ("", set()),
        "shared/b.ts": ("import '@/web/lib/a'\n", {"web/lib/a.ts"}),
    },
    "java": {
        "src/main/java/org/mill/Wheel.java": ("import java.util.List;\nimport org.mill.race.Water;\n",
                                              {"src/main/java/org/mill/race/Water.java"}),
        "src/main/java/org/mill/race/Water.java": ("import static org.mill.Wheel.SPEED;\n",
                                                   {"src/main/java/org/mill/Wheel.java"}),
    },
    "go": {
        "cmd/main.go": ('package main\nimport (\n\t"fmt"\n\trace "github.com/a/mill/internal/race" // x\n)\n'
                        'func main() { x := "fmt"\n"internal/race"\n }\n',
                        {"internal/race/a.go", "internal/race/b.go"}),
        "internal/race/a.go": ('import "github.com/a/mill/wheel"\n', {"wheel/w.go"}),
        "internal/race/b.go": ("", set()),
        "internal/race/b_test.go": ("", set()),
        "wheel/w.go": ("", set()),
    },
    "c++": {
        "src/a.cc": ('#include <stdio.h>\n#include "b.h"\n#  include <mill/c.hpp>\n',
                     {"src/b.h", "include/mill/c.hpp"}),
        "src/b.h": ('#include "../util/d.h"\n', {"util/d.h"}),
        "include/mill/c.hpp": ('#include "d.h"\n', {"util/d.h"}),
        "util/d.h": ("", set()),
    },
    "rust": {
        "src/lib.rs": ("pub mod race;\nmod wheel;\nuse std::fmt;\n", {"src/race/mod.rs", "src/wheel.rs"}),
        "src/race/mod.rs": ("use super::wheel::Turn;\nuse crate::wheel;\n", {"src/wheel.rs"}),
        "src/wheel.rs": ("mod spoke;\nuse self::spoke::{A, B};\n", {"src/wheel/spoke.rs"}),
        "src/wheel/spoke.rs": ("use crate::{race::Water, wheel};\n", {"src/race/mod.rs", "src/wheel.rs"}),
    },
    "c-sharp": {
        "A.cs": ("using System;\nusing Mill.Race;\nnamespace Mill.App { }\n", {"x/B.cs", "x/C.cs"}),
        "x/B.cs": ("namespace Mill.Race;\n", set()),
        "x/C.cs": ("namespace Mill.Race\n{\n  using Mill.App;\n", {"A.cs"}),
    },
    "ruby": {
        "lib/mill.rb": ("require 'json'\nrequire_relative 'mill/wheel'\nrequire 'mill/race'\n",
                        {"lib/mill/wheel.rb", "lib/mill/race.rb"}),
        "lib/mill/wheel.rb": ("", set()),
        "lib/mill/race.rb": ("", set()),
    },
    "php": {
        "src/App/A.php": ("<?php\nuse App\\Race\\B;\nrequire __DIR__ . '/../c.php';\n",
                          {"src/App/Race/B.php", "src/c.php"}),
        "src/App/Race/B.php": ("", set()),
        "src/c.php": ("", set()),
    },
    "shell": {"run.sh": ('. ./lib.sh\nsource "$HERE/env.sh"\n', {"lib.sh", "env.sh"}), "lib.sh": ("", set()),
              "env.sh": ("", set())},
    "kotlin": {"a/b/A.kt": ("import a.c.B\n", {"a/c/B.kt"}), "a/c/B.kt": ("", set())},
    "scala": {"a/A.scala": ("import a.c.{B, D => E}\n", {"a/c/B.scala", "a/c/D.scala"}), "a/c/B.scala": ("", set()),
              "a/c/D.scala": ("", set())},
    "dart": {"lib/a.dart": ("import 'package:me/src/b.dart';\npart 'a.g.dart';\n", {"lib/src/b.dart", "lib/a.g.dart"}),
             "lib/src/b.dart": ("", set()), "lib/a.g.dart": ("", set())},
    "proto": {"p/a.proto": ('import public "p/b.proto";\n', {"p/b.proto"}), "p/b.proto": ("", set())},
    "lua": {"a.lua": ('local b = require "x.b"\n', {"x/b.lua"}), "x/b.lua": ("", set())},
    "haskell": {"src/A.hs": ("import qualified Data.B as B\n", {"src/Data/B.hs"}), "src/Data/B.hs": ("", set())},
}  # fmt: skip


@pytest.mark.parametrize("name", REPOSITORIES)
def test_imports_lead_to_files(name: str) -> None:
    files = REPOSITORIES[name]
    paths = sorted(files)
    languages = [language_of(path, None) for path in paths]
    told = [imports_of(files[path][0], language) for path, language in zip(paths, languages, strict=True)]
    declared = [[one[1:] for one in names if one.startswith("=")] for names in told]
    repository = Repository(paths, languages, declared)
    for k, path in enumerate(paths):
        found = {paths[i] for one in told[k] if not one.startswith("=") for i in repository.meant(k, one)} - {path}
        assert found == files[path][1], path


@pytest.mark.parametrize("name", REPOSITORIES)
def test_files_come_after_what_they_import(name: str) -> None:
    files = REPOSITORIES[name]
    paths = sorted(files, reverse=True)
    told = ["\n".join([language_of(p, None), *imports_of(files[p][0], language_of(p, None))]).encode() for p in paths]
    order = [paths[k] for k in in_order(paths, told)]
    assert sorted(order) == sorted(paths)
    needs = {path: need for path, (_, need) in files.items()}
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        assert name in ("java", "rust", "c-sharp"), error  # noqa: PT017
        return
    assert all(order.index(need) < order.index(path) for path in paths for need in needs[path])


@given(st.lists(st.sets(st.integers(0, 11), max_size=4), min_size=1, max_size=12))
def test_order_is_the_published_algorithm_cycle_by_cycle(drawn: list[set[int]]) -> None:
    needs = [{need for need in mine if need < len(drawn)} - {i} for i, mine in enumerate(drawn)]
    assert dependencies_first([sorted(mine) for mine in needs]) == minimal_order(needs)


def test_what_depends_on_a_cycle_comes_after_it() -> None:
    """The published algorithm alone places 0 first, which lacks one file, before the three that need two each."""
    assert dependencies_first([[1], [2, 3], [1, 3], [1, 2]]) == [1, 2, 3, 0]


def test_a_long_chain_ends() -> None:
    assert dependencies_first([[i + 1] for i in range(9_999)] + [[]]) == list(range(9_999, -1, -1))


def test_an_order_without_cycles_is_topological() -> None:
    rng = random.Random(5)
    needs = [sorted({rng.randrange(i) for _ in range(3)}) if i else [] for i in range(2000)]
    names = list(range(2000))
    rng.shuffle(names)
    mixed: list[list[int]] = [[] for _ in needs]
    for i, mine in enumerate(needs):
        mixed[names[i]] = [names[need] for need in mine]
    place = {file: at for at, file in enumerate(dependencies_first(mixed))}
    assert len(place) == 2000
    assert all(place[need] < place[i] for i, mine in enumerate(mixed) for need in mine)


_FRAGMENTS = ["import ", "from ", "(", ".", "..", "use ", "{", "\n", " ", "\t", "#include <", '"', "'", "require(", "a",
              "mod ", ";", "/", "\\", "::", "é", "\0", "using ", "namespace ", "@import(", "\r", ","]  # fmt: skip


@given(st.lists(st.sampled_from(_FRAGMENTS), max_size=60), st.sampled_from(sorted(SCANS)))
def test_any_text_has_imports_of_one_line(pieces: list[str], language: str) -> None:
    for name in imports_of("".join(pieces), language):
        assert name
        assert not set(name) & set("\n\r\0")


@given(
    st.lists(st.text("ab./é\0 -", max_size=8), min_size=1, max_size=6),
    st.lists(st.text("ab./:\\@ ", min_size=1, max_size=12), max_size=6),
    st.sampled_from(sorted(SCANS)),
)
def test_any_name_means_files_that_are_there(paths: list[str], names: list[str], language: str) -> None:
    paths = sorted(paths)
    repository = Repository(paths, [language] * len(paths), [[] for _ in paths])
    for k in range(len(paths)):
        for name in [*names, *(f"mod {name}" for name in names)]:
            assert all(0 <= i < len(paths) for i in repository.meant(k, name))


def test_a_file_has_no_more_imports_than_people_write() -> None:
    assert len(imports_of("".join(f"import a{i}\n" for i in range(3000)), "python")) == MOST
    assert imports_of(f"import {'a' * 1000}\nimport b\n", "python") == ["b"]


def test_a_hostile_repository_is_given_up_in_time() -> None:
    paths = sorted(f"{'a/' * (i % 15)}{i}.py" for i in range(4000))
    repository = Repository(paths, ["python"] * len(paths), [[] for _ in paths])
    repository._left = 1000
    for k in range(len(paths)):
        repository.meant(k, ".".join("a" * 16))
    assert repository._left > -(2**12)
