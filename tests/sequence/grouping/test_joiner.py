"""What joins files, against the tokenizers library on the whole text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.errors import UserError
from headrace.recipe.grouping import Group
from headrace.recipe.load import load_recipe
from headrace.recipe.stages import SpecialTokens, TokenizerTrain
from headrace.sequence.grouping.joiner import Joiner
from headrace.tokens.control import ControlTokens
from headrace.tokens.engine import Engine
from headrace.tokens.load import engine_from
from headrace.tokens.special import own_ids, trained_roles, with_special
from headrace.tokens.training import look_at_file, train

MARKS = ["<repo_name>", "<file_sep>", "<|repo_name|>", "<|file_sep|>"]


@pytest.fixture(scope="module")
def tokenizer() -> tuple[dict[str, Any], ControlTokens, Engine]:
    texts = ["def add(a, b):\n    return a + b  # Grüße\n\n\nimport src/a.py\n"] * 20
    definition = train(texts, TokenizerTrain(vocab_size=400), list(trained_roles(SpecialTokens()).values()), 1)
    definition = with_special(definition, MARKS)
    special = own_ids(definition)
    return definition, ControlTokens(definition, special), engine_from(definition, special)


def ours(tokenizer: Any, group: Group, files: list[tuple[str, str]], named: bool = True) -> list[int]:
    """The tokens of a training document of a repository, without its end."""
    _, control, engine = tokenizer
    joiner = Joiner.of(group, control, engine.special["eod"])
    fields = [{"repo": "mill/wheel", "path": path, "language": "python"} for path, _ in files]
    named_files = np.full(len(files), named)
    texts, before, leads = joiner.headed([text.encode() for _, text in files], fields, named_files, engine)
    encoded, (between, _) = engine.encode(texts), joiner.between(engine)
    out: list[int] = []
    for i in range(len(files)):
        out += before[i][0 if i == 0 else leads[i] :].tolist() + encoded.of(i).tolist()
        out += between.tolist() if i < len(files) - 1 else []
    return out


# The library looks for control tokens in all text; a path or text that spells one is plain text to headrace.
_TEXT = st.text(st.characters(exclude_characters="<>", exclude_categories=["Cs"]), max_size=30)
_FILES = st.lists(st.tuples(_TEXT.map(lambda path: f"src/{path}.py"), _TEXT), min_size=1, max_size=4)


@given(_FILES, st.booleans())
def test_starcoder2s_format_has_the_librarys_ids(tokenizer: Any, files: list[tuple[str, str]], named: bool) -> None:
    from tokenizers import Tokenizer

    whole = "<repo_name>mill/wheel" if named else ""
    whole += "".join(f"<file_sep>{path}\n{text}" if named else f"<file_sep>{text}" for path, text in files)
    library = Tokenizer.from_str(orjson.dumps(tokenizer[0]).decode())
    assert ours(tokenizer, Group(format="starcoder2"), files, named) == library.encode(whole).ids


@given(_FILES)
def test_other_formats_decode_to_their_text(tokenizer: Any, files: list[tuple[str, str]]) -> None:
    engine = tokenizer[2]
    for group, start, header, separator in (
        (Group(format="qwen2.5-coder"), "<|repo_name|>mill/wheel\n", "<|file_sep|>{}\n", "\n"),
        (Group(header="#{path}\n", separator="\n\n"), "", "#{}\n", "\n\n"),
        (Group(start="{language} {{}}: ", separator=""), "python {}: ", "", ""),
        (Group(start="{repo}<file_sep>", separator="<file_sep>{x}"), "mill/wheel<file_sep>", "", "<file_sep>{x}"),
    ):  # fmt: skip
        whole = start + separator.join(header.replace("{}", path) + text for path, text in files)
        found = np.array(ours(tokenizer, group, files), dtype=np.uint32)
        assert engine.decode(found).decode() == whole


def test_names_that_spell_control_tokens_stay_text(tokenizer: Any) -> None:
    _, control, engine = tokenizer
    found = ours(tokenizer, Group(format="starcoder2"), [("<file_sep>", "<repo_name>x")])
    assert [token for token in found if token in control.ids.values()] == [control.ids[m] for m in MARKS[:2]]
    assert (
        engine.decode(np.array(found, dtype=np.uint32)).decode()
        == "<repo_name>mill/wheel<file_sep><file_sep>\n<repo_name>x"
    )


def test_what_has_no_value_is_left_out(tokenizer: Any) -> None:
    _, control, engine = tokenizer
    joiner = Joiner.of(Group(format="starcoder2"), control, engine.special["eod"])
    fields = [{"repo": None, "path": None, "language": None}]
    texts, before, leads = joiner.headed([b"x"], fields, np.array([True]), engine)
    assert texts.bytes_of(0) == b"x"
    assert before[0].tolist() == [control.ids["<file_sep>"]]
    assert leads.tolist() == [0]


def test_a_rearranged_file_ends_with_a_control_token(tokenizer: Any) -> None:
    _, control, engine = tokenizer
    eod = engine.special["eod"]
    for group, expected in (
        (Group(), [eod]),
        (Group(separator=""), [eod]),
        (Group(header="#{path}\n"), [eod]),
        (Group(format="starcoder2"), []),
        (Group(format="qwen2.5-coder"), []),
        (Group(separator="<file_sep>"), [control.ids["<file_sep>"]]),
    ):
        assert Joiner.of(group, control, eod).between(engine)[1].tolist() == expected


def test_a_tokenizer_in_a_file_is_looked_at_before_any_work(tokenizer: Any, tmp_path: Path) -> None:
    bare = {
        **tokenizer[0],
        "added_tokens": [t for t in tokenizer[0]["added_tokens"] if t["content"] not in MARKS],
    }
    (tmp_path / "tokenizer.json").write_bytes(orjson.dumps(bare))
    recipe: dict[str, Any] = {
        "name": "x",
        "sources": {"code": {"files": "code.jsonl", "group": {"format": "starcoder2"}}},
        "tokenizer": {"file": str(tmp_path / "tokenizer.json")},
        "stages": [{"name": "one", "sources": {"code": {}}}],
    }
    with pytest.raises(UserError, match="<repo_name>, <file_sep>"):
        look_at_file(load_recipe(recipe))
    recipe["tokenizer"]["special"] = {"add": MARKS}
    assert look_at_file(load_recipe(recipe))[0] > 256


def test_a_tokenizer_without_the_tokens_is_refused(tokenizer: Any) -> None:
    definition, _, engine = tokenizer
    bare = {**definition, "added_tokens": [t for t in definition["added_tokens"] if t["content"] not in MARKS]}
    control = ControlTokens(bare, own_ids(bare))
    with pytest.raises(UserError, match="<repo_name>, <file_sep>") as error:
        Joiner.of(Group(format="starcoder2"), control, engine.special["eod"])
    assert "special: {add:" in str(error.value)
    Joiner.of(Group(format="starcoder2", start="", header="", separator="\n"), control, engine.special["eod"])
