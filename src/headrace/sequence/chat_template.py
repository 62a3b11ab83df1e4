"""A stage's chat template: one of headrace's own, or the Jinja template in a file."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from headrace.errors import UserError
from headrace.recipe.stages import BUILT_IN, Chat

if TYPE_CHECKING:
    from headrace.sequence.jinja import Template

# As Meta's tokenizers publish it (Llama 3, meta-llama/Meta-Llama-3-8B-Instruct), with generation marks.
LLAMA3 = (
    "{{- bos_token }}"
    "{%- for message in messages %}"
    "{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}"
    "{%- if message['role'] == 'assistant' %}"
    "{%- generation %}{{- message['content'] | trim + '<|eot_id|>' }}{%- endgeneration %}"
    "{%- else %}{{- message['content'] | trim + '<|eot_id|>' }}"
    "{%- endif %}{%- endfor %}"
)
_JINJA = {"llama3": LLAMA3}
_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_MOST_FILE = 64 << 20  # a tokenizer_config.json that lists 100,000 added tokens has 20 MB
_MARKER = re.compile(r"<\|[^<>|\s]{1,40}\|>")


@dataclass(frozen=True)
class ChatTemplate:
    """How a stage renders conversations.

    Attributes:
        chat: the recipe's section.
        source: the Jinja source; None for ``crystalchat`` and ``chatml``.
        tokens: the special tokens that the files of the template declare, such as ``bos_token``.
    """

    chat: Chat
    source: str | None
    tokens: tuple[tuple[str, str], ...] = ()

    @property
    def where(self) -> str:
        """Where the template comes from."""
        return self.chat.template

    @property
    def jinja(self) -> Template:
        """The compiled template.

        Raises:
            UserError: it is not a template, or marks nothing that could be learned.
        """
        assert self.source is not None
        return _compiled(self.source, self.where, self.chat.date)

    def identity(self) -> Any:
        """What determines the rendering, as JSON; the name alone for a template of headrace's own without options."""
        chat = self.chat
        if self.source is None or chat.template in _JINJA:
            return chat.template if chat == Chat(template=chat.template) else chat.model_dump(mode="json")
        digest = hashlib.blake2b(self.source.encode(), digest_size=16).hexdigest()
        return {**chat.model_dump(mode="json"), "template": digest, "tokens": dict(self.tokens)}

    def variables(self, spelled: Mapping[str, str]) -> dict[str, Any]:
        """What the template sees besides messages.

        Args:
            spelled: role -> spelling of the tokenizer's special tokens, for what the template's files do not declare.
        """
        roles = {"bos_token": "bos", "eos_token": "eod", "pad_token": "pad"}
        own = {key: spelled[role] for key, role in roles.items() if role in spelled} if not self.tokens else {}
        variables = {"tools": None, "documents": None, "add_generation_prompt": False}
        return {**variables, **own, **dict(self.tokens), **self.chat.variables}

    def missing(self, known: Collection[str]) -> list[str]:
        """The markers (``<|name|>``) that the template writes and a tokenizer does not know as control tokens."""
        literals = "\0".join(self.jinja.literals)
        return sorted({marker for marker in _MARKER.findall(literals) if marker not in known})


def chat_template(chat: Chat | str) -> ChatTemplate:
    """The template that a stage names.

    Raises:
        UserError: the file is missing or holds no template.
    """
    section = Chat(template=chat) if isinstance(chat, str) else chat
    if section.template in BUILT_IN:
        return ChatTemplate(section, _JINJA.get(section.template))
    path = Path(section.template)
    if path.is_dir():
        path = next((path / name for name in ("chat_template.jinja", "tokenizer_config.json", "chat_template.json")
                     if (path / name).is_file()), path / "chat_template.jinja")  # fmt: skip
    if path.suffix != ".json":
        return ChatTemplate(section, _text(path), _declared(path))
    held = _object(path)
    source = held.get("chat_template")
    if isinstance(source, list):  # several templates by name, as Cohere's tokenizers have them
        named = {item.get("name"): item.get("template") for item in source if isinstance(item, dict)}
        source = named.get("default")
    beside = path.with_name("chat_template.jinja")
    if source is None and beside.is_file():
        source = _text(beside)
    if not isinstance(source, str):
        raise UserError(
            "The file holds no chat template.", str(path), "Name a file with `chat_template`, or a Jinja template."
        )
    return ChatTemplate(section, source, _declared(path))


@lru_cache(maxsize=8)
def _compiled(source: str, where: str, date: str | None) -> Template:
    from headrace.sequence.jinja import Template  # imports Jinja, which graphs without templates do not need

    template = Template(source, where, date)
    if not template.marked and "add_generation_prompt" not in source:
        raise UserError(
            "The chat template does not say what the assistant generates.",
            where,
            "Put {% generation %} and {% endgeneration %} around it, or write the assistant's header when "
            "`add_generation_prompt` is set.",
        )
    return template


def _declared(path: Path) -> tuple[tuple[str, str], ...]:
    """The special tokens in the configuration next to a template, or in it."""
    tokens = {}
    for name in dict.fromkeys(("special_tokens_map.json", "tokenizer_config.json", path.name)):
        if name.endswith(".json") and path.with_name(name).is_file():
            held = _object(path.with_name(name))
            for key in _TOKENS:
                value = held.get(key)
                text = value.get("content") if isinstance(value, dict) else value
                if isinstance(text, str):
                    tokens[key] = text
    return tuple(sorted(tokens.items()))


def _object(path: Path) -> dict[str, Any]:
    try:
        held = orjson.loads(_bytes(path, _MOST_FILE))
    except orjson.JSONDecodeError as error:
        raise UserError(f"The file is not JSON: {error}.", str(path), "Name a tokenizer_config.json.") from None
    if not isinstance(held, dict):
        raise UserError("The file holds no JSON object.", str(path), "Name a tokenizer_config.json.")
    return held


def _text(path: Path) -> str:
    from headrace.sequence.jinja import MOST_SOURCE

    try:
        return _bytes(path, 4 * MOST_SOURCE).decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(
            f"The chat template is not UTF-8 (byte {error.start}).", str(path), "Name a Jinja template."
        ) from None


def _bytes(path: Path, most: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise UserError(
            f"The chat template cannot be read: {error.strerror}.", str(path), "Fix the stage's `chat`."
        ) from None
    if len(data) > most:
        raise UserError(f"The file has more than {most:,} bytes.", str(path), "Name a chat template.")
    return data
