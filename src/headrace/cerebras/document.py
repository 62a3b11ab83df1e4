"""Write ``docs/params.md`` from the table of keys: ``python -m headrace.cerebras.document > docs/params.md``."""

from __future__ import annotations

from headrace.cerebras.keys import KINDS, SECTIONS, Key

_HEAD = """# Params files of the Cerebras Model Zoo: every key

What `headrace train --params FILE` makes of each key of such a file, as CrystalCoder was trained with
([training.md](training.md#crystalcoders-own-params-files)). A key that is *honoured* does here what it does there.
One that is *noted* is accepted, and a line says why it has no effect; one that is *refused* is an error, as is one that
is not listed. A key that is null counts as absent. This page is generated from the table that the command goes by, by
`python -m headrace.cerebras.document`.

The table knows the keys of the Model Zoo's releases 1.9 to 2.2 for the GPT-2, GPT-3, GPT-NeoX, LLaMA and StarCoder
models. Texts of a few fixed values may be in any case. A file of another model is refused at the keys that make it one.

CrystalCoder's files say how much to evaluate (`eval_steps`) but not how often: the runner of release 1.9.1, which they
were written for, evaluates after each epoch in `train_and_eval`. Later releases have `eval_frequency`. Both do so at
the end too.
"""

_TITLES = {
    "": "The file",
    "input": "`train_input`, `eval_input`",
    "mixture": "`mixture[]` of an input",
    "attention": "`model.extra_attention_params`",
    "initializer": "The initializers of `model`",
    "scheduler": "`optimizer.learning_rate[]`",
    "adjust": "`optimizer.adjust_learning_rate`",
}


def document() -> str:
    """The page as Markdown: a table per section."""
    parts = [_HEAD]
    for name, keys in SECTIONS.items():
        parts.append(f"\n## {_TITLES.get(name, f'`{name}`')}\n")
        parts.append("| key | value | here | meaning |\n|---|---|---|---|")
        parts += [_row(key, {key.name: key for key in keys}) for key in keys]
    return "\n".join(parts) + "\n"


def _row(key: Key, keys: dict[str, Key]) -> str:
    if key.same:
        return f"| `{key.name}` | {_value(keys[key.same])} | {keys[key.same].use} | the same as {key.same} |"
    meaning = key.meaning + (f"; other values are refused: {key.otherwise}" if key.otherwise else "")
    here = "noted (hardware)" if key.use == "hardware" else key.use
    return f"| `{key.name}` | {_value(key)} | {here} | {meaning} |"


def _value(key: Key) -> str:
    if key.only and key.use != "refused":
        return ", ".join(f"`{str(one).lower() if isinstance(one, bool) else one}`" for one in key.only)
    return KINDS[key.kind]


if __name__ == "__main__":
    print(document(), end="")
