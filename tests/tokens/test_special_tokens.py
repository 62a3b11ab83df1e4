"""The tokens with a duty are the tokenizer's own, as its files and its family have them, or it is refu."""

from __future__ import annotations

import json

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace import pipeline
from headrace.errors import UserError
from headrace.pipeline import look_at_tokenizer
from headrace.recipe.schema import Recipe
from headrace.recipe.stages import SpecialTokens, TokenizerConfig
from headrace.tokens import training
from headrace.tokens.definition import byte_level_definition
from headrace.tokens.load import file_tokenizer, open_file
from headrace.tokens.special import own_roles, trained_roles, with_special
from headrace.tokens.training import look_at_file
from headrace.tokens.vocabulary import byte_alphabet, token_bytes
from quick import examples

FIM = ("fim_prefix", "fim_middle", "fim_suffix")
FAMILIES = {
    "starcoder": ("<fim_prefix>", "<fim_middle>", "<fim_suffix>", "<fim_pad>"),
    "santacoder": ("<fim-prefix>", "<fim-middle>", "<fim-suffix>", "<fim-pad>"),
    "codellama": ("\u2581<PRE>", "\u2581<MID>", "\u2581<SUF>"),
    "deepseek": ("<\uff5cfim\u2581begin\uff5c>", "<\uff5cfim\u2581end\uff5c>", "<\uff5cfim\u2581hole\uff5c>"),
    "qwen": ("<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>"),
    "codegemma": ("<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"),
    "codestral": ("[PREFIX]", "[MIDDLE]", "[SUFFIX]"),
}


def definition(*control):
    return with_special(byte_level_definition(dict(byte_alphabet()), []), control)


def write(folder, name, value):
    folder.mkdir(exist_ok=True)
    (folder / name).write_bytes(orjson.dumps(value))


@pytest.mark.parametrize("family", FAMILIES)
def test_fill_in_the_middle_is_spelled_as_the_family_does(family):
    texts = FAMILIES[family]
    roles = own_roles(definition("</s>", *texts), SpecialTokens(), {}, ("eod", *FIM))
    assert tuple(roles.spelled[role] for role in FIM) == texts[:3]
    assert roles.spelled.get("fim_pad") == (texts[3] if len(texts) > 3 else None)
    assert roles.spelled["pad"] == "</s>"
    assert all(text in roles.said(("eod", *FIM)) for text in texts[:3])
    if len(texts) == 3:
        with pytest.raises(UserError, match="fim_pad"):
            own_roles(definition("</s>", *texts), SpecialTokens(), {}, ("eod", *FIM, "fim_pad"))


@settings(max_examples=examples(200), suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.sampled_from(sorted({text for texts in FAMILIES.values() for text in texts} | {
        "</s>", "<s>", "<|endoftext|>", "<eos>", "<bos>", "<|im_start|>", "<|im_end|>", "<x>"})), unique=True),
    st.fixed_dictionaries({}, optional={role: st.sampled_from(["</s>", "<x>", "<fim_prefix>", "[SUFFIX]"])
                                        for role in ("eod", "pad", "bos", *FIM, "fim_pad")}),
    st.sets(st.sampled_from(["eod", "pad", *FIM, "fim_pad", "im_start", "im_end", "sys_start"])),
)  # fmt: skip
def test_every_role_is_a_token_that_is_there_or_the_tokenizer_is_refu(control, stated, needed):
    made = definition(*control)
    try:
        roles = own_roles(made, SpecialTokens(**stated), {}, needed)
    except UserError:
        return
    assert set(roles.spelled.values()) <= set(control)
    assert needed <= set(roles.spelled)
    assert stated.items() <= roles.spelled.items()
    assert len(token_bytes(with_special(made, roles.spelled.values()))) == len(token_bytes(made))


def test_what_the_files_beside_it_say(tmp_path):
    made = definition("<a>", "<b>", "<c>", "<d>", "</s>")
    write(tmp_path / "t", "tokenizer.json", made)
    write(tmp_path / "t", "config.json", {"eos_token_id": 256, "bos_token_id": 257, "pad_token_id": None})
    folder = TokenizerConfig(file=str(tmp_path / "t"))
    assert {"eod": "<a>", "bos": "<b>", "pad": "<a>"}.items() <= file_tokenizer(folder)[1].spelled.items()
    write(tmp_path / "t", "special_tokens_map.json", {"eos_token": {"content": "<c>", "lstrip": False}})
    write(tmp_path / "t", "tokenizer_config.json", {"pad_token": "<d>", "bos_token": None})
    for config in (folder, TokenizerConfig(file=str(tmp_path / "t" / "tokenizer.json"))):
        roles = file_tokenizer(config, ("eod", "pad"))[1]
        assert {"eod": "<c>", "bos": "<b>", "pad": "<d>"}.items() <= roles.spelled.items()
        assert roles.said(("eod", "pad")) == "eod <c> (special_tokens_map.json); pad <d> (tokenizer_config.json)"
    stated = TokenizerConfig(file=folder.file, special=SpecialTokens(eod="</s>", bos=False))
    roles = file_tokenizer(stated)[1]
    assert roles.spelled["eod"] == "</s>"
    assert "bos" not in roles.spelled
    write(tmp_path / "t", "tokenizer_config.json", {"eos_token": "<absent>"})
    with pytest.raises(UserError, match="no token '<absent>', which tokenizer_config"):
        file_tokenizer(folder)
    listed = {"261": {"content": "<absent>", "special": True, "normalized": False}}
    write(tmp_path / "t", "tokenizer_config.json", {"eos_token": "<absent>", "added_tokens_decoder": listed})
    assert open_file(tmp_path / "t").special["eod"] == 261
    (tmp_path / "t" / "config.json").write_text("{")
    with pytest.raises(UserError, match="not JSON"):
        file_tokenizer(folder)


def test_the_template_says_what_ends_and_begins_texts():
    made = definition("<x>", "<y>", "</s>")
    single = [{"SpecialToken": {"id": "<x>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
              {"SpecialToken": {"id": "<y>", "type_id": 0}}]  # fmt: skip
    made["post_processor"] = {"type": "TemplateProcessing", "single": single, "pair": [], "special_tokens": {}}
    from headrace.tokens.definition import _templated

    assert _templated(made) == {"bos": "<x>", "eod": "<y>"}


def test_several_ends_and_none_are_refu_with_what_to_write():
    with pytest.raises(UserError, match="several candidates for eod: </s>, <eos>") as several:
        own_roles(definition("</s>", "<eos>"), SpecialTokens(), {}, ("eod",))
    assert 'special: {eod: "</s>"}' in str(several.value)
    with pytest.raises(UserError, match="no token to end documents") as none:
        own_roles(definition("<x>"), SpecialTokens(), {}, ("eod",))
    assert 'special: {add: ["<|endoftext|>"]}' in str(none.value)
    with pytest.raises(UserError, match=r"Did you mean '<fim_prefix>'\\?"):
        own_roles(definition("</s>", *FAMILIES["starcoder"]), SpecialTokens(fim_prefix="<|fim_prefix|>"), {}, ())
    with pytest.raises(UserError, match="several candidates for fim_prefix"):
        own_roles(definition("</s>", *FAMILIES["starcoder"], *FAMILIES["qwen"]), SpecialTokens(), {}, FIM)


def test_a_word_of_the_vocabulary_is_no_control_token():
    vocab = {**byte_alphabet(), "<s": 256, "<s>": 257, "<|endoftext|>": 258}
    made = byte_level_definition(vocab, [["<", "s"], ["<s", ">"]])
    roles = own_roles(made, SpecialTokens(), {})
    assert roles.spelled == {"eod": "<|endoftext|>", "pad": "<|endoftext|>"}


def test_a_sentencepiece_model_names_its_own(shared):
    for file in ("llama.model", "crystalcoder.json"):
        made, roles = file_tokenizer(TokenizerConfig(file=str(shared / "fixtures/tokenizers" / file)), ("eod",))
        assert {"eod": "</s>", "bos": "<s>", "pad": "</s>"}.items() <= roles.spelled.items()
        assert "<|endoftext|>" not in {token["content"] for token in made["added_tokens"]}


def test_files_of_gpt2_s_kind_split_text_as_their_class_says(tmp_path):
    write(tmp_path / "t", "vocab.json", {**byte_alphabet(), "<|endoftext|>": 256})
    (tmp_path / "t" / "merges.txt").write_text("#version: 0.2\n")
    assert not open_file(tmp_path / "t").dummy_prefix
    write(tmp_path / "t", "tokenizer_config.json", {"tokenizer_class": "GPT2TokenizerFast", "add_prefix_space": True})
    assert open_file(tmp_path / "t").dummy_prefix
    write(tmp_path / "t", "tokenizer_config.json", {"tokenizer_class": "Qwen2Tokenizer"})
    with pytest.raises(UserError, match="how Qwen2Tokenizer splits text"):
        open_file(tmp_path / "t")


def test_a_recipe_says_what_it_takes_and_what_it_adds(tmp_path):
    write(tmp_path / "t", "tokenizer.json", definition("</s>", "<s>"))
    data = {
        "name": "x",
        "sources": {"a": {"files": "a.jsonl", "format": "chat"}},
        "tokenizer": {"file": str(tmp_path / "t"), "special": {"add": ["<|im_start|>", "<|im_end|>"]}},
        "stages": [{"name": "s", "sources": {"a": {}}, "chat": "chatml"}],
    }
    size, notes = look_at_file(Recipe.model_validate(data))
    assert size == 260
    assert notes == [
        "Using the tokenizer's own control tokens: eod </s> (known to end documents); bos <s> (goes with </s>).",
        "Tokens were added to the tokenizer: it had 258 and now has 260.",
    ]
    data = json.loads(json.dumps(data))
    del data["tokenizer"]["special"]
    with pytest.raises(UserError, match="for conversations"):
        look_at_file(Recipe.model_validate(data))


def test_a_tokenizer_is_looked_at_before_any_work_that_needs_it(tmp_path):
    data = {
        "name": "x",
        "sources": {"a": {"files": "a.jsonl"}},
        "tokenizer": {"file": str(tmp_path / "absent.json")},
        "stages": [{"name": "s", "sources": {"a": {}}}],
    }
    recipe = Recipe.model_validate(data)
    assert look_at_tokenizer(recipe, "verdicts") == []
    for until in (None, "tokens", "sequence-s", "Tokenizer"):
        with pytest.raises(UserError, match="cannot be read"):
            look_at_tokenizer(recipe, until)
    write(tmp_path, "absent.json", definition("</s>", "<s>"))
    model = Recipe.model_validate({**data, "model": {"vocab_size": 100}})
    with pytest.raises(UserError, match="The model has 100 tokens, but the tokenizer has 258"):
        look_at_tokenizer(model)


def test_the_library_is_not_asked_again_about_a_tokenizer_that_the_run_has_made(tmp_path, monkeypatch):
    write(tmp_path / "t", "tokenizer.json", definition("</s>", "<s>"))
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": "Some words."}) + "\n")
    data = {
        "name": "x",
        "sources": {"a": {"files": str(tmp_path / "a.jsonl")}},
        "tokenizer": {"file": str(tmp_path / "t"), "special": {"add": ["<new>"]}},
        "stages": [{"name": "s", "sources": {"a": {}}}],
    }
    recipe = Recipe.model_validate(data)
    first = look_at_file(recipe, tmp_path / "run")
    pipeline.run(recipe, tmp_path / "run", workers=0, until="tokenizer")

    def asked(definition):
        raise UserError("asked", "", "")

    monkeypatch.setattr(training, "require_valid", asked)
    assert look_at_file(recipe, tmp_path / "run") == first == (259, first[1])
    data["tokenizer"]["special"]["add"] = ["<another>"]
    with pytest.raises(UserError, match="asked"):
        look_at_file(Recipe.model_validate(data), tmp_path / "run")
    with pytest.raises(UserError, match="asked"):
        look_at_file(recipe)


def test_a_trained_tokenizer_gets_what_is_stated():
    roles = trained_roles(SpecialTokens(eod="<e>", fim_pad="<p>"))
    assert (roles["eod"], roles["pad"], roles["fim_pad"], roles["fim_prefix"]) == (
        "<e>",
        "<e>",
        "<p>",
        "<|fim_prefix|>",
    )
    assert "bos" not in roles
