"""Find a tokenizer's special tokens by role, from what its files declare and from known families.

A tokenizer trained here gets special tokens with headrace's spellings. One from a file keeps its own; nothing is added
except what the recipe lists under ``special.add``.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from headrace.errors import UserError
from headrace.recipe.mistakes import suggest
from headrace.recipe.stages import SpecialTokens
from headrace.tokens.vocabulary import added_tokens, vocabulary, vocabulary_size

# CrystalChat's markers (LLM360/CrystalChat); ChatML uses the first two.
CHAT_MARKERS: Mapping[str, str] = {
    "im_start": "<|im_start|>",
    "im_end": "<|im_end|>",
    "sys_start": "<|sys_start|>",
    "sys_end": "<|sys_end|>",
}

FIM_ROLES = ("fim_prefix", "fim_middle", "fim_suffix", "fim_pad")
_ROLES = ("eod", "bos", "pad", *FIM_ROLES)

# Prefix, middle, suffix and filler, as spelled in each family's published tokenizers; some have no filler.
_FIM_FAMILIES: Mapping[str, tuple[str, str, str, str]] = {
    "Qwen2.5-Coder, CodeGemma, Granite 3": ("<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>", "<|fim_pad|>"),
    "StarCoder, CrystalCoder, Granite Code": ("<fim_prefix>", "<fim_middle>", "<fim_suffix>", "<fim_pad>"),
    "SantaCoder": ("<fim-prefix>", "<fim-middle>", "<fim-suffix>", "<fim-pad>"),
    "CodeLlama": ("\u2581<PRE>", "\u2581<MID>", "\u2581<SUF>", ""),
    # The hole is where the middle was removed, so the suffix follows it; the middle follows the end.
    "DeepSeek": ("<\uff5cfim\u2581begin\uff5c>", "<\uff5cfim\u2581end\uff5c>", "<\uff5cfim\u2581hole\uff5c>", ""),
    "Codestral": ("[PREFIX]", "[MIDDLE]", "[SUFFIX]", ""),
    "CodeGeeX, GLM": ("<|code_prefix|>", "<|code_middle|>", "<|code_suffix|>", ""),
    "Seed-Coder": ("<[fim-prefix]>", "<[fim-middle]>", "<[fim-suffix]>", ""),
}
# Tokens that end or start a document, in tokenizers whose files do not say.
_ENDS: Mapping[str, str | None] = {
    "</s>": "<s>",
    "<|endoftext|>": None,
    "<|end_of_text|>": "<|begin_of_text|>",
    "<eos>": "<bos>",
    "<\uff5cend\u2581of\u2581sentence\uff5c>": "<\uff5cbegin\u2581of\u2581sentence\uff5c>",
    "[EOS]": "[BOS]",
    "<EOS_TOKEN>": "<BOS_TOKEN>",
}


class Roles(NamedTuple):
    """Special tokens by role.

    Attributes:
        spelled: role -> spelling.
        origins: role -> where it comes from, for roles not set in the recipe.
    """

    spelled: dict[str, str]
    origins: dict[str, str]

    def said(self, roles: Collection[str]) -> str:
        """A line about roles taken without being set in the recipe; '' if there are none.

        Args:
            roles: the roles in use.
        """
        wanted = [role for role in self.origins if role in roles]
        by_origin: dict[str, list[str]] = {}
        for role in wanted:
            by_origin.setdefault(self.origins[role], []).append(f"{role} {self.spelled[role]}")
        return "; ".join(f"{', '.join(taken)} ({origin})" for origin, taken in by_origin.items())


def trained_roles(special: SpecialTokens) -> dict[str, str]:
    """Role -> spelling of the special tokens of a tokenizer trained here."""
    defaults = dict(zip(FIM_ROLES, _FIM_FAMILIES["Qwen2.5-Coder, CodeGemma, Granite 3"], strict=True))
    eod = special.eod or "<|endoftext|>"
    named = {"eod": eod, "pad": special.pad or eod, **({"bos": special.bos} if special.bos else {})}
    return {**named, **{role: getattr(special, role) or defaults[role] for role in FIM_ROLES}, **CHAT_MARKERS}


def own_roles(
    definition: dict[str, Any],
    special: SpecialTokens,
    declared: Mapping[str, tuple[str, str]],
    needed: Collection[str] = (),
) -> Roles:
    """Find the special tokens of a tokenizer from a file.

    Args:
        definition: a parsed tokenizers JSON, with the recipe's additions.
        special: what the recipe sets.
        declared: role -> spelling and the file that declares it; see
            :class:`~headrace.tokens.definition.TokenizerFile`.
        needed: roles that the recipe requires.

    Raises:
        UserError: a token named by the recipe or a file does not exist, a required one is not found, or several
            qualify.
    """
    control = _control(definition)
    known = _known(definition)
    spelled: dict[str, str] = {}
    for role in _ROLES:
        text = getattr(special, role)
        if text and text not in known:
            raise _absent(role, text, "the recipe", control)
        if text:
            spelled[role] = text
    found = _Found(spelled, {})
    for role in ("eod", "bos", "pad"):
        if getattr(special, role) is None and role in declared:
            text, origin = declared[role]
            if text not in known:
                raise _absent(role, text, origin, control)
            found.take(role, text, origin)
    if "eod" not in spelled:
        ends = [text for text in _ENDS if text in control]
        if len(ends) > 1 and "eod" in needed:
            raise _several("eod", ends)
        if len(ends) == 1:
            found.take("eod", ends[0], "known to end documents")
    begin = _ENDS.get(spelled.get("eod", ""))
    if special.bos is None and "bos" not in spelled and begin in control:
        found.take("bos", begin, f"goes with {spelled['eod']}")
    if special.bos is None and spelled.get("bos") == spelled.get("eod"):
        # GPT-2 uses one token for both: every document before this one has ended with it.
        found.drop("bos")
    if "pad" not in spelled and "eod" in spelled:
        spelled["pad"] = spelled["eod"]
    _take_fim(found, special, control, needed)
    spelled.update({role: text for role, text in CHAT_MARKERS.items() if text in control})
    for role in needed:
        if role not in spelled:
            raise _missing(role, needed, control)
    return Roles(spelled, found.origins)


class _Found(NamedTuple):
    spelled: dict[str, str]
    origins: dict[str, str]

    def take(self, role: str, text: str, origin: str) -> None:
        self.spelled[role], self.origins[role] = text, origin

    def drop(self, role: str) -> None:
        self.spelled.pop(role, None)
        self.origins.pop(role, None)


def _control(definition: dict[str, Any]) -> list[str]:
    """Spellings that text cannot produce: added tokens, and known ones in the vocabulary that no merge produces."""
    added = [token["content"] for token in added_tokens(definition)]
    model = definition["model"]
    if model.get("type") != "BPE":
        return added
    families = [text for family in _FIM_FAMILIES.values() for text in family]
    asked = {*_ENDS, *_ENDS.values(), *families, *CHAT_MARKERS.values()} & set(model["vocab"]) - set(added)
    if asked:
        asked -= {merge.replace(" ", "", 1) if isinstance(merge, str) else "".join(merge) for merge in model["merges"]}
    return [*added, *sorted(text for text in asked if text)]


def _take_fim(found: _Found, special: SpecialTokens, control: list[str], needed: Collection[str]) -> None:
    """Take the fill-in-the-middle family whose three tokens exist and agree with what the recipe sets."""
    stated = {role: getattr(special, role) for role in FIM_ROLES if getattr(special, role)}
    families = {
        name: dict(zip(FIM_ROLES, texts, strict=True))
        for name, texts in _FIM_FAMILIES.items()
        if all(text in control for text in texts[:3])
    }
    for role in set(stated) - {"fim_pad"}:
        families = {name: texts for name, texts in families.items() if texts[role] == stated[role]}
    if len(families) > 1 and set(FIM_ROLES) & set(needed) - set(stated):
        raise _several("fim_prefix", [texts["fim_prefix"] for texts in families.values()])
    for name, texts in families.items() if len(families) == 1 else ():
        for role, text in texts.items():
            if role not in stated and text in control:
                found.take(role, text, f"as {name} spell{'' if ',' in name else 's'} it")


def _quoted(texts: Iterable[str]) -> str:
    return ", ".join(json.dumps(text, ensure_ascii=False) for text in texts)


def _have(control: list[str]) -> str:
    shown = control[:12]
    more = f" and {len(control) - len(shown)} more" if len(control) > len(shown) else ""
    return f"its special tokens are {', '.join(shown)}{more}" if control else "it has no special tokens"


def _absent(role: str, text: str, origin: str, control: list[str]) -> UserError:
    guess = suggest(text, control)
    return UserError(
        f"The tokenizer has no token {text!r}, which {origin} names as {role}.",
        f"tokenizer.special.{role}; {_have(control)}",
        f"{guess} Name one it has, or add this one: `special: {{add: [{_quoted([text])}]}}`.".strip(),
    )


def _several(role: str, texts: list[str]) -> UserError:
    return UserError(
        f"The tokenizer has several candidates for {role}: {', '.join(texts)}.",
        f"tokenizer.special.{role}",
        f"Choose one, such as `special: {{{role}: {_quoted(texts[:1])}}}`.",
    )


def _missing(role: str, needed: Collection[str], control: list[str]) -> UserError:
    uses = {"eod": "to end documents", "pad": "to pad rows"}
    use = uses.get(role, "for conversations" if role in CHAT_MARKERS else "for fill-in-the-middle")
    if role in CHAT_MARKERS:
        texts = [CHAT_MARKERS[name] for name in CHAT_MARKERS if name in needed]
    elif role in FIM_ROLES:
        defaults = trained_roles(SpecialTokens())
        texts = [defaults[name] for name in FIM_ROLES if name in needed]
    else:
        texts = [trained_roles(SpecialTokens())[role]]
    texts = [text for text in texts if text not in control]
    name_it = "" if role in CHAT_MARKERS else f"Name one of its own under `special.{role}`, or add"
    return UserError(
        f"The tokenizer has no token {use} ({role}).",
        f"tokenizer.special; {_have(control)}",
        f"{name_it or 'Add'} what is missing: `special: {{add: [{_quoted(texts)}]}}`.",
    )


def special_ids(definition: dict[str, Any], spelled: Mapping[str, str]) -> dict[str, int]:
    """Role -> id of the special tokens."""
    known = _known(definition)
    return {role: known[text] for role, text in spelled.items()}


def own_ids(definition: dict[str, Any], special: SpecialTokens | None = None) -> dict[str, int]:
    """Role -> id of the special tokens that a definition has itself, or that are given."""
    return special_ids(definition, own_roles(definition, special or SpecialTokens(), {}).spelled)


def _known(definition: dict[str, Any]) -> dict[str, int]:
    return {**vocabulary(definition), **{token["content"]: token["id"] for token in added_tokens(definition)}}


def with_special(definition: dict[str, Any], wanted: Iterable[str]) -> dict[str, Any]:
    """A definition in which every wanted text is a special token; missing ones are added after the last id."""
    added = {token["content"]: dict(token) for token in added_tokens(definition)}
    vocab = vocabulary(definition)
    last = vocabulary_size(definition)
    for text in wanted:
        index = added[text]["id"] if text in added else vocab.get(text)
        if index is None:
            index, last = last, last + 1
        added[text] = special_token(index, text)
    return {**definition, "added_tokens": sorted(added.values(), key=lambda token: token["id"])}


def special_token(index: int, text: str) -> dict[str, Any]:
    """A special token in tokenizers JSON."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": index, "content": text, **flags}
