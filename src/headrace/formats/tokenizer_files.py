"""A run's tokenizer as transformers reads it, with the chat template of a stage."""

from __future__ import annotations

from typing import Any

import orjson

from headrace.flow.artifact import Artifact
from headrace.sequence.chat import DEFAULT_SYSTEM
from headrace.sequence.chat_template import ChatTemplate
from headrace.tokens.load import has_text, run_definition

ROLES = {"bos": "bos_token", "eod": "eos_token", "pad": "pad_token"}

# The two that headrace renders itself, as Jinja: the same text.
CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' }}"
    "{% if not loop.last or add_generation_prompt %}{{ '\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CRYSTALCHAT = (
    "{{ bos_token }}"
    "{% if messages[0]['role'] != 'system' %}{{ '<|sys_start|> " + DEFAULT_SYSTEM + "<|sys_end|>' }}{% endif %}"
    "{% for message in messages %}"
    "{% set text = ' ' + message['content'] if message['content'] else '' %}"
    "{% if message['role'] == 'system' %}{{ '<|sys_start|>' + text + '<|sys_end|>' }}"
    "{% elif message['role'] == 'user' %}{{ '<|im_start|>' + text + '<|im_end|>' }}"
    "{% else %}{{ text }}{% endif %}"
    "{% endfor %}"
)
_ANSWER = "an answer"
_TALK = [{"role": "user", "content": "a question"}, {"role": "assistant", "content": _ANSWER}]


def tokenizer_files(tokenizer: Artifact, chat: ChatTemplate | None, length: int) -> dict[str, Any]:
    """The files' contents by name, as JSON, among them generation_config.json.

    Args:
        tokenizer: a tokenizer artifact.
        chat: the template that the model was trained with.
        length: tokens of the longest row.
    """
    special: dict[str, int] = tokenizer.manifest.extra["special"]
    ids = {key: special[role] for role, key in ROLES.items() if role in special}
    generation: dict[str, Any] = {f"{key}_id": index for key, index in ids.items()}
    if not has_text(tokenizer):
        return {"generation_config.json": generation}
    definition = run_definition(tokenizer)
    spelled = {index: text for text, index in definition["model"].get("vocab", {}).items()} if isinstance(
        definition["model"].get("vocab"), dict) else {}  # fmt: skip
    spelled |= {token["id"]: token["content"] for token in definition.get("added_tokens") or []}
    named = {key: spelled[index] for key, index in ids.items()}
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **named,
        "model_max_length": length,
        "clean_up_tokenization_spaces": False,
    }
    if chat is not None:
        config["chat_template"] = jinja(chat)
        config |= {key: value for key, value in chat.tokens if key not in config}
        end = _end_of_turn(chat, {text: index for index, text in spelled.items()}, named)
        if end is not None and end != special["eod"]:
            generation["eos_token_id"] = [special["eod"], end]
    return {"tokenizer.json": definition, "tokenizer_config.json": config, "generation_config.json": generation}


def jinja(chat: ChatTemplate) -> str:
    """The Jinja source of a template."""
    own = {"chatml": CHATML, "crystalchat": CRYSTALCHAT}
    return own[chat.where] if chat.source is None else chat.source


def _end_of_turn(chat: ChatTemplate, ids: dict[str, int], named: dict[str, str]) -> int | None:
    """The control token that ends an answer, if there is one."""
    if chat.source is None:
        return ids.get("<|im_end|>") if chat.where == "chatml" else None
    try:
        text = chat.jinja.render(_TALK, {**chat.variables({}), **named}).text
    except Exception:
        return None
    tail = text[text.rfind(_ANSWER) + len(_ANSWER) :].lstrip()
    ends = [token for token in ids if tail.startswith(token)]
    return ids[max(ends, key=len)] if ends else None


def encoded(value: Any) -> bytes:
    """JSON, indented."""
    return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
