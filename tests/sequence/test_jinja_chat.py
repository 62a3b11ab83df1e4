"""Jinja chat templates: transformers' ids and masks, and text that never becomes a control token."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import numpy as np
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.errors import UserError
from headrace.recipe.stages import Chat, SpecialTokens
from headrace.sequence.chat import Chats, transform
from headrace.sequence.chat_template import chat_template
from headrace.sequence.jinja import Refused, Template
from headrace.tokens.control import ControlTokens
from headrace.tokens.definition import read_definition
from headrace.tokens.engine import Engine, Texts
from headrace.tokens.load import engine_from
from headrace.tokens.special import own_ids, with_special
from quick import examples

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}{% if m['role'] == 'assistant' %}{% generation %}"
    "{{ m['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}{% else %}{{ m['content'] + '<|im_end|>\n' }}"
    "{% endif %}{% endfor %}"
)
UNMARKED = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
TEMPLATES = {
    "chatml": CHATML,
    "llama3": "llama3",
    "no markers": "{% for m in messages %}{% if m.role == 'assistant' %}### Response:\n{% generation %}"
    "{{ m.content | trim }}{% endgeneration %}{% else %}### {{ m.role | capitalize }}:\n"
    "{{ m.content | trim }}{% endif %}\n\n{% endfor %}",
    # Qwen's way: earlier answers lose their thoughts, tool calls and results are wrapped.
    "thinking": "{%- if tools %}<|im_start|>system\n{{ tools | tojson }}<|im_end|>\n{% endif %}"
    "{%- for m in messages %}{% set content = m.content.split('</think>')[-1].lstrip('\n') if m.content else '' %}"
    "{{- '<|im_start|>' ~ ('user' if m.role == 'tool' else m.role) ~ '\n' }}{% if m.role == 'assistant' %}"
    "{% generation %}{{- content }}{% for call in m.tool_calls or [] %}\n<tool_call>\n"
    "{{ call.function | tojson }}\n</tool_call>"
    "{% endfor %}<|im_end|>{% endgeneration %}{% elif m.role == 'tool' %}<tool_response>\n{{ content }}\n"
    "</tool_response><|im_end|>{% else %}{{ content }}<|im_end|>{% endif %}\n{% endfor %}",
}
MARKERS = ["<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"]


class Kit(NamedTuple):
    definition: dict[str, Any]
    engine: Engine
    control: ControlTokens

    @staticmethod
    def of(definition: dict[str, Any], **special: str) -> Kit:
        definition = with_special(definition, MARKERS)
        ids = own_ids(definition, SpecialTokens(**special))
        return Kit(definition, engine_from(definition, ids), ControlTokens(definition, ids))

    def render(self, template: Any, *talks: list[dict[str, Any]], tools: Any = None, **keys: Any) -> Chats:
        texts, turns = [], []
        for talk in talks:
            at, spans = 0, []
            for message in talk:
                rest = {k: v for k, v in message.items() if k not in ("role", "content", "loss")}
                content = message.get("content") or ""
                span = {"role": message["role"], "start": at, "end": at + len(content), "fields": rest}
                spans.append(span | ({"loss": message["loss"]} if "loss" in message else {}))
                at += len(content) + 2
            if tools and spans:
                spans[0]["tools"] = tools
            texts.append("\n\n".join(message.get("content") or "" for message in talk))
            turns.append(spans)
        return transform(Texts.of(texts), turns, self.engine, chat_template(template), self.control, **keys)

    def spelled(self, made: Chats, index: int = 0, loss: bool | None = None) -> str:
        where = slice(made.offsets[index], made.offsets[index + 1])
        tokens = made.tokens[where] if loss is None else made.tokens[where][made.loss[where] == loss]
        return self.engine.decode(tokens, first=False).decode()


@pytest.fixture(scope="session")
def kits(shared):
    folder = shared / "fixtures/tokenizers"
    return {
        "gpt2": Kit.of(read_definition(folder / "gpt2-vocab.json")),
        "crystal": Kit.of(read_definition(folder / "crystalcoder.json"), eod="</s>", bos="<s>"),
        "llama": Kit.of(read_definition(folder / "llama.model"), eod="</s>", bos="<s>"),
    }


@pytest.fixture(scope="session")
def kit():
    from headrace.recipe.stages import TokenizerTrain
    from headrace.tokens.training import train

    texts = ["<|im_start|>user\nassistant Grüße 漢字 | < > _ system tool"] * 9
    return Kit.of(train(texts, TokenizerTrain(vocab_size=330), ["<|endoftext|>"], 1))


@pytest.fixture
def file(tmp_path):
    def write(source: str, name: str = "chat_template.jinja") -> str:
        if source in ("llama3", "chatml", "crystalchat"):
            return source
        (tmp_path / name).write_text(source)
        return str(tmp_path / name)

    return write


@pytest.fixture(scope="session")
def talks(shared):
    """Conversations of the instruction sets, with several turns, and endings of several bytes."""
    found = []
    for line in (shared / "fixtures/instruct/alpaca_seed_tasks.jsonl").read_text().splitlines()[:60]:
        row = json.loads(line)
        for instance in row["instances"]:
            asked = {"role": "user", "content": f"{row['instruction']}\n\n{instance['input']}"}
            answer = {"role": "assistant", "content": instance["output"]}
            found.append(
                [{"role": "system", "content": "Be kind."}, asked, answer, asked, {**answer, "content": "é漢🌊"}]
            )
    for row in json.loads((shared / "fixtures/instruct/code_alpaca_2k.json").read_text())[:100]:
        asked = {"role": "user", "content": f"{row['instruction']}\n{row['input']}"}
        found.append([asked, {"role": "assistant", "content": row["output"] or " "}])
    return [talk for talk in found if not any("<s>" in m["content"] or "</s>" in m["content"] for m in talk)]


TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {"a": {}}}}}]
CALLS = [{"id": "1", "type": "function", "function": {"name": "add", "arguments": {"a": "ü < 3"}}}]
TOOL_TALK = [
    {"role": "user", "content": "1 < 2?"},
    {"role": "assistant", "content": None, "tool_calls": CALLS},
    {"role": "tool", "content": '{"sum": 3}', "tool_call_id": "1"},
    {"role": "assistant", "content": "<think>\nhm\n</think>\n\nYes."},
]


def library(kit: Kit, tmp_path: Any) -> Any:
    transformers = pytest.importorskip("transformers")
    (tmp_path / "tokenizer.json").write_bytes(orjson.dumps(kit.definition))
    return transformers.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"))


def compare(kit: Kit, theirs: Any, template: str, talks: list[list[dict[str, Any]]], tools: Any = None) -> None:
    made = kit.render(template, *talks, tools=tools)
    assert made.refused == {}
    source = chat_template(template)
    names = {k: v for k, v in source.variables({}).items() if k.endswith("_token")}
    if template == "llama3" and "bos" in kit.engine.special:
        names = {"bos_token": "<s>"}
    for i, talk in enumerate(talks):
        out = theirs.apply_chat_template(
            talk, tools, chat_template=source.source, tokenize=True, return_dict=True,
            return_assistant_tokens_mask=True, **names,
        )  # fmt: skip
        where = slice(made.offsets[i], made.offsets[i + 1])
        assert made.tokens[where].tolist() == out["input_ids"]
        assert made.loss[where].astype(int).tolist() == out["assistant_masks"]


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("name", ["gpt2", "crystal", "llama"])
def test_ids_and_masks_are_those_of_transformers(kits, name, template, file, talks, tmp_path):
    compare(kits[name], library(kits[name], tmp_path), file(TEMPLATES[template]), talks)


@pytest.mark.parametrize("name", ["gpt2", "crystal"])
def test_tools_are_rendered_as_by_transformers(kits, name, file, tmp_path):
    kit = kits[name]
    compare(kit, library(kit, tmp_path), file(TEMPLATES["thinking"]), [TOOL_TALK], TOOLS)


def test_flags_of_control_tokens_are_respected_as_by_transformers(kits, file, tmp_path):
    definition = {**kits["gpt2"].definition}
    flags = {"<|im_end|>": {"lstrip": True}, "<|im_start|>": {"rstrip": True}, "<|eot_id|>": {"single_word": True}}
    added = [{**token, **flags.get(token["content"], {})} for token in definition["added_tokens"]]
    kit = Kit.of({**definition, "added_tokens": added})
    template = (
        "{% for m in messages %}{% generation %} <|im_start|> \n{{ m.content }} a<|eot_id|> <|eot_id|>  <|im_end|> x"
        "{% endgeneration %}{% endfor %}"
    )
    talk = [{"role": "user", "content": " a  "}, {"role": "assistant", "content": "b "}]
    source = file(template)
    made = kit.render(source, talk)
    out = library(kit, tmp_path).apply_chat_template(talk, chat_template=template, tokenize=True, return_dict=True)
    assert made.tokens.tolist() == out["input_ids"]


def test_crystalchat_is_the_template_of_its_tokenizer(kits, file, talks, tmp_path):
    """The tokenizer inserts the spaces that the published template has."""
    kit = kits["crystal"]
    template = (
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}<|sys_start|>{{ m.content }}<|sys_end|>"
        "{% elif m.role == 'user' %}<|im_start|>{{ m.content }}<|im_end|>{% else %}{% generation %}{{ m.content }}"
        "{% if loop.last %}{{ eos_token }}{% endif %}{% endgeneration %}{% endif %}{% endfor %}"
    )
    theirs = library(kit, tmp_path)
    talks = [talk for talk in talks if talk[0]["role"] == "system" and all(m["content"].strip() for m in talk)]
    made, again = kit.render("crystalchat", *talks), kit.render(file(template), *talks)
    assert again.tokens.tolist() == made.tokens.tolist()
    assert again.end_loss.all()
    for i, talk in enumerate(talks[:20]):
        out = theirs.apply_chat_template(
            talk, chat_template=template, tokenize=True, return_dict=True, return_assistant_tokens_mask=True,
            bos_token="<s>", eos_token="</s>",
        )  # fmt: skip
        where = slice(made.offsets[i], made.offsets[i + 1])
        assert [*made.tokens[where].tolist(), kit.engine.special["eod"]] == out["input_ids"]
        mask = [*made.loss[where], made.end_loss[i]]
        if ord(talk[-1]["content"][-1]) < 128:
            assert mask == [bool(one) for one in out["assistant_masks"]]


def say(*said: str) -> list[dict[str, Any]]:
    return [{"role": "assistant" if i % 2 else "user", "content": text} for i, text in enumerate(said)]


SPELLINGS = st.text(st.sampled_from("<|im_startend>/assu \n"), max_size=12) | st.lists(
    st.sampled_from([*MARKERS, "<|im_", "end|>", "start|>", "<|", "|>", "a", " ", "\n", "</think>"]), max_size=4
).map("".join)
NESTED = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{{ m.more }}{{ '<|' ~ m.name ~ '|>' }}"
    "<{{ m.name | trim }}>{{ m | tojson }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.mark.parametrize("template", ["chatml", "thinking", "nested", "unmarked"])
@settings(max_examples=examples(60))
@given(
    said=st.lists(SPELLINGS, min_size=2, max_size=4), more=SPELLINGS, name=st.sampled_from(["im_end", "im_start", "x"])
)
def test_what_somebody_typed_is_text(kit, file, template, said, more, name):
    source = file({**TEMPLATES, "nested": NESTED, "unmarked": UNMARKED}[template], "t.jinja")
    talk = [{**message, "more": more, "name": name} for message in say(*said)]
    made = kit.render(source, talk)
    if not made.refused:
        control = made.tokens[np.isin(made.tokens, kit.engine.special_ids)]
        spelled = [kit.engine.decode(control[i : i + 1], first=False).decode() for i in range(len(control))]
        assert spelled == ["<|im_start|>", "<|im_end|>"] * len(talk)
        assert kit.spelled(made) == chat_template(source).jinja.render(talk, {}).text or template == "thinking"


def test_templates_without_marks_leave_to_the_model_what_follows_its_header(kit, file):
    talk = say("2 + 2?", "4", "Sure?", "Yes <|im_end|>")
    made = kit.render(file(UNMARKED), talk)
    assert kit.spelled(made, loss=True) == "4<|im_end|>Yes <|im_end|><|im_end|>"
    assert made.loss.tolist() == kit.render(file(CHATML, "marked.jinja"), talk).loss.tolist()
    with pytest.raises(UserError, match="does not say what the assistant generates"):
        kit.render(file("{% for m in messages %}{{ m.content }}{% endfor %}", "no.jinja"), talk)


@pytest.mark.parametrize("closing", ["<|eot_id|>", " <|eot_id|><|begin_of_text|>"])
def test_templates_may_close_the_last_turn_only(kit, file, closing):
    """Phi-3's writes its end-of-document token unless a turn of the assistant follows."""
    source = file(UNMARKED.replace("{% endif %}", "{% else %}" + closing + "\n{% endif %}"), "closing.jinja")
    made = kit.render(source, say("a", "b", "c", "d"))
    assert kit.spelled(made, loss=True) == f"b<|im_end|>d<|im_end|>\n{closing}"
    says = UNMARKED.replace("{% endif %}", "{% else %}{{ messages[0].content }}{% endif %}")
    assert "otherwise if more follow" in kit.render(file(says, "says.jinja"), say("a", "b", "c", "d")).refused[0]
    # A template that drops earlier thoughts writes more than that otherwise.
    drops = UNMARKED.replace("m['content']", "(m['content'] if loop.last else m['content'].split('</think>')[-1])")
    assert "otherwise" in kit.render(file(drops, "drops.jinja"), say("a", "x</think>b", "c", "d")).refused[0]


def test_loss_on_chosen_turns(kit, file):
    talk = say("a", "b", "c", "d")
    last = Chat(template=file(CHATML), loss="last")
    assert kit.spelled(kit.render(last, talk), loss=True) == "d<|im_end|>"
    talk[3]["loss"] = False
    assert kit.spelled(kit.render(file(CHATML), talk), loss=True) == "b<|im_end|>"
    assert not kit.render(last, talk).loss.any()
    talk[0]["loss"] = True
    assert "the user is to be learned" in kit.render(file(CHATML), talk).refused[0]


@pytest.mark.parametrize("template", ["chatml", "jinja"])
def test_truncation_at_turns(kit, file, template):
    name = file(CHATML) if template == "jinja" else "chatml"
    talk = [{"role": "system", "content": "S"}, *say("a" * 30, "b", "c", "d", "e", "f")]
    whole = kit.render(name, talk)
    size = len(whole.tokens)

    def kept(policy: str, limit: int) -> str | None:
        made = kit.render(Chat(template=name, truncate=policy), say("u", "v"), talk, say("x", "y"), limit=limit)
        assert kit.spelled(made, 2) == kit.spelled(kit.render(name, say("x", "y")))
        assert np.diff(made.offsets).max() <= limit
        return None if 1 in made.refused else kit.spelled(made, 1)

    assert kept("left", size) == kept("right", size) == kept("drop", size) == kit.spelled(whole)
    assert kept("drop", size - 1) is None
    left = kept("left", size - 1)
    assert left == kit.spelled(kit.render(name, [talk[0], *talk[3:]]))
    assert kept("right", size - 1) == kit.spelled(kit.render(name, talk[:5]))
    short = kit.render(name, [talk[0], *talk[5:]])
    assert kept("left", len(short.tokens)) == kit.spelled(short)
    assert kept("left", len(short.tokens) - 1) is None
    assert kept("right", 40) is None  # not even the first exchange fits
    assert "row has room for 40" in kit.render(Chat(template=name, truncate="drop"), talk, limit=40).refused[0]


def test_the_template_of_a_tokenizer_config(kit, tmp_path):
    config = {"chat_template": "{{ bos_token }}" + CHATML, "bos_token": {"content": "<|begin_of_text|>"}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    for path in (tmp_path, tmp_path / "tokenizer_config.json"):
        assert kit.spelled(kit.render(str(path), say("a", "b"))).startswith("<|begin_of_text|><|im_start|>user\na")
    named = [{"name": "rag", "template": "x"}, {"name": "default", "template": CHATML}]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    assert kit.spelled(kit.render(str(tmp_path), say("a", "b"))).startswith("<|im_start|>")
    for bad in ("{}", "[", "[1]", '{"chat_template": 5}'):
        (tmp_path / "tokenizer_config.json").write_text(bad)
        with pytest.raises(UserError):
            chat_template(str(tmp_path))
    with pytest.raises(UserError, match="cannot be read"):
        chat_template(str(tmp_path / "none.jinja"))
    (tmp_path / "bad.jinja").write_bytes(b"\xff")
    with pytest.raises(UserError, match="UTF-8"):
        chat_template(str(tmp_path / "bad.jinja"))


def test_the_date_is_the_recipes(kit, file):
    template = "{% generation %}{{ strftime_now('%d %b %Y') }}{% endgeneration %}"
    assert kit.spelled(kit.render(Chat(template=file(template), date="2024-07-26"), say("a", "b"))) == "26 Jul 2024"
    assert "strftime_now" in kit.render(file(template), say("a", "b")).refused[0]


HOSTILE = [
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(40) }}",
    "{{ 'a' * 10 ** 10 }}",
    "{{ 2 ** (10 ** 9) }}",
    "{{ '%99999999s' % 'a' }}",
    "{{ '{:>99999999}'.format(1) }}",
    "{{ '{:{}}'.format(1, '>99999999') }}",
    "{{ 'a' | center(10 ** 9) }}",
    "{{ 'a'.ljust(10 ** 8) }}",
    "{{ [1] | batch(10 ** 9, 'x') | list }}",
    "{{ range(10 ** 9) | list }}",
    "{% set n = namespace(x='a' * 99) %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "{% set n = namespace(x='a' * 99) %}{% for i in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}",
    "{% set n = namespace(x='a') %}{% for i in range(99) %}{% set n.x %}{{ n.x }}{{ n.x }}{% endset %}{% endfor %}",
    "{% set n = namespace(x=[1]) %}{% for i in range(99) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x }}",
    "{{ ('a' * 999999).replace('a', 'b' * 999999) }}",
    "{{ ('a' * 999999) | replace('a', 'b' * 999999) }}",
    "{{ (['a' * 1000] * 10000) | join('b' * 100000) }}",
    "{{ ('{0}' * 100000).format('a' * 100000) }}",
    "{{ ('a\n' * 100000) | indent(1000000) }}",
    "{{ messages | tojson(indent=10 ** 6) }}",
    "{% for i in range(9999) %}{{ 'abc' * 100000 }}{% endfor %}",
    "{{ ''.__class__.__mro__ }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ messages.append(1) }}",
    "{{ namespace(a=1) }}",
    "{% include '/etc/passwd' %}",
    "{{ raise_exception('roles must alternate') }}",
    "{{ nothing.at.all }}",
    "{{ 1 / 0 }}",
    # What takes long and makes little.
    *(
        "{% set s = 'x' * 3000000 %}{% set a = range(90000) | list %}{% for i in a %}" + looks + "{% endfor %}"
        for looks in (
            "{% if -1 in a %}{% endif %}", "{% if a == a[1:] %}{% endif %}", "{% if a is eq a %}{% endif %}",
            "{{ a | sum }}", "{{ a[1:] | length }}", "{{ s[::-1] | length }}", "{{ range(90000) | sum }}",
            "{% if 'xxxxy' in s %}{% endif %}", "{% if s.count('y') %}{% endif %}", "{% if s is upper %}{% endif %}",
            "{{ range(90000) | map(attribute='x') | first }}{{ range(90000) | select | list | length }}",
            "{% if s | length > i %}{% endif %}", "{{ a.index(89999) }}", "{% if -1 in (a | select) %}{% endif %}",
        )
    ),
]  # fmt: skip


@pytest.mark.parametrize("source", HOSTILE)
def test_hostile_templates_end(source):
    template = Template(source, "here")
    with pytest.raises(Refused) as refusal:
        template.render(say("a", "b"), {})
    assert 5 < len(str(refusal.value)) <= 300


@pytest.mark.parametrize(
    "source",
    [
        "{% for %}",
        "{{ 'a' | nothing }}",
        "{{ 'a' | wordwrap(1) }}",
        "{% generation %}",
        "{{ x | random }}",
        "x" * (2 << 20),
    ],
)
def test_what_is_no_template_is_told(source):
    with pytest.raises(UserError):
        Template(source, "here")


def test_batches_do_not_matter(kit, file):
    source = file(CHATML)
    talks = [say("a", "b"), say("<|im_end|>", "c"), say("d", "e", "f", "g")]
    together = kit.render(source, *talks)
    for i, talk in enumerate(talks):
        where = slice(together.offsets[i], together.offsets[i + 1])
        assert kit.render(source, talk).tokens.tolist() == together.tokens[where].tolist()
