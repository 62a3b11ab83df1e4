"""The step that builds the tokenizer: trained on the kept documents, read from a file, or only a number of ids.

A trained tokenizer is a byte-level BPE (Sennrich et al. 2016, 1508.07909; bytes as in GPT-2) with Llama 3's split
pattern: digits in groups of at most three, and line feeds kept with the indentation before them, which suits code.
Training counts exactly and breaks ties by id, so the number of threads makes no difference.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import orjson
import pyarrow as pa

from headrace.errors import UserError
from headrace.flow.artifact import Artifact, Manifest
from headrace.flow.keys import keyed, parse_ids, salt, unit
from headrace.flow.step import Phase, Step
from headrace.flow.task import TaskContext
from headrace.recipe.schema import Recipe
from headrace.recipe.stages import TokenizerConfig, TokenizerTrain
from headrace.tokens.control import ControlTokens
from headrace.tokens.definition import byte_level_definition, fingerprint, read_definition
from headrace.tokens.dummy_prefix import dummy_prefix_rule
from headrace.tokens.fidelity import losses, require_valid
from headrace.tokens.kept import kept_rows
from headrace.tokens.load import engine_from, file_tokenizer
from headrace.tokens.special import CHAT_MARKERS, Roles, special_ids, special_token, trained_roles
from headrace.tokens.split_patterns import LLAMA3_PATTERN
from headrace.tokens.vocabulary import byte_alphabet, token_bytes, vocabulary_size

_FIM = ("fim_prefix", "fim_middle", "fim_suffix")


def needed_roles(recipe: Recipe) -> tuple[str, ...]:
    """The special tokens that a recipe's stages require."""
    roles = {"eod"}
    for stage in recipe.stages:
        if any(take.fim is not None for take in stage.sources.values()):
            roles |= {*_FIM, "fim_pad"} if stage.fim_level == "context" else set(_FIM)
        if any(recipe.sources[name].is_chat for name in stage.sources):
            template = stage.chat.template if stage.chat else ""
            roles |= {"chatml": {"im_start", "im_end"}, "crystalchat": set(CHAT_MARKERS)}.get(template, set())
        if stage.pack.method == "best_fit":
            roles.add("pad")
    return tuple(sorted(roles))


def look_at_file(recipe: Recipe, run: Path | None = None) -> tuple[int, list[str]]:
    """Read the tokenizer's file as the run will, before any work.

    Args:
        recipe: the recipe, whose tokenizer is a file.
        run: the run folder; the library is not asked again about a tokenizer that was made there before.

    Returns:
        The size of its vocabulary including the recipe's additions, and what the user should know about it, in
        sentences.

    Raises:
        UserError: the file is missing, is not a tokenizer that keeps every byte, or lacks a required token.
    """
    assert recipe.tokenizer is not None
    needed = needed_roles(recipe)
    definition, roles = file_tokenizer(recipe.tokenizer, needed)
    _require_joining(recipe, definition, roles)
    made = None if run is None else _made_before(run, _params(definition, roles))
    if made is None:
        require_valid(definition)
    size = len(token_bytes(definition)) if made is None else int(made.extra["vocab_size"])
    notes = []
    if not losses(definition) and dummy_prefix_rule(definition) == "unless there is one":
        notes.append("The tokenizer inserts a space before a text only if there is none, so a leading space is lost.")
    taken = roles.said({*needed, "bos"} if any(stage.chat for stage in recipe.stages) else needed)
    if taken:
        notes.append(f"Using the tokenizer's own control tokens: {taken}.")
    before = vocabulary_size(read_definition(Path(str(recipe.tokenizer.file))))
    if size > before:
        notes.append(f"Tokens were added to the tokenizer: it had {before:,} and now has {size:,}.")
    return size, notes


def _require_joining(recipe: Recipe, definition: dict[str, Any], roles: Roles) -> None:
    """See that a tokenizer has the control tokens that formats of repositories write.

    Raises:
        UserError: it does not.
    """
    control = ControlTokens(definition, special_ids(definition, roles.spelled))
    for stage in recipe.stages:
        for group in recipe.groups(stage).values():
            if missing := [text for text in group.tokens if text not in control.ids]:
                raise group.lacking(missing)


def file_params(config: TokenizerConfig, needed: Collection[str]) -> dict[str, Any]:
    """What decides the bytes of the tokenizer in a file.

    Args:
        config: the recipe's ``tokenizer`` section, which names the file.
        needed: see :func:`needed_roles`.

    Raises:
        UserError: see :func:`headrace.tokens.load.file_tokenizer`.
    """
    return _params(*file_tokenizer(config, needed))


def _params(definition: dict[str, Any], roles: Roles) -> dict[str, Any]:
    digest = hashlib.blake2b(orjson.dumps(definition), digest_size=16).hexdigest()
    return {"definition": digest, "special": roles.spelled}


def _made_before(run: Path, params: dict[str, Any]) -> Manifest | None:
    """What was made in a run folder of a tokenizer with the same parameters, if it was."""
    for folder in (run / "artifacts").glob(f"{Tokenizer.kind}-*"):
        with suppress(UserError):  # it is not finished, or damaged
            made = Artifact.open(folder).manifest
            if (made.kind, made.version, made.params) == (Tokenizer.kind, Tokenizer.VERSION, params):
                return made
    return None


@dataclass(frozen=True)
class Tokenizer(Step):
    """The tokenizer of a run.

    Attributes:
        config: the recipe's ``tokenizer`` section.
        roles: the special tokens in use (:func:`needed_roles`), which a file must have. A trained tokenizer has all of
            them.
        seed: the recipe's seed, which selects the sample to train on.
        documents: the Documents step; an input, like ``verdicts``, only if the tokenizer is trained. None in a recipe
            without sources.
        verdicts: the Verdicts step.
        found: :func:`file_params` when the run began; read from the file without it.
    """

    config: TokenizerConfig
    roles: tuple[str, ...]
    seed: int
    documents: Step | None
    verdicts: Step | None
    found: dict[str, Any] | None = None

    kind: ClassVar[str] = "tokenizer"
    VERSION: ClassVar[int] = 1

    @cached_property
    def from_file(self) -> tuple[dict[str, Any], Roles]:
        """The tokenizer from the file, with its control tokens marked as special.

        Raises:
            UserError: the file is missing, is not a tokenizer that keeps every byte, or lacks a required token.
        """
        return file_tokenizer(self.config, self.roles)

    @property
    def _wanted(self) -> list[str]:
        """The special tokens of a trained tokenizer, which get the first ids."""
        return list(dict.fromkeys([*trained_roles(self.config.special).values(), *self.config.special.add]))

    def params(self) -> dict[str, Any]:
        """The training settings, or the content of the file; and the special tokens."""
        if self.config.train:
            special = {"special": trained_roles(self.config.special), "wanted": self._wanted}
            return {"train": self.config.train.model_dump(mode="json"), "seed": self.seed, **special}
        if self.config.ids is not None:
            return {"ids": self.config.ids}
        return self.found or _params(*self.from_file)

    def inputs(self) -> dict[str, Step]:
        """Documents and verdicts to train on; none for a file."""
        if self.config.train is None or self.documents is None or self.verdicts is None:
            return {}
        return {"documents": self.documents, "verdicts": self.verdicts}

    def phases(self) -> list[Phase]:
        """Count, sample and train; or copy; or nothing but the number."""
        if self.config.ids is not None:
            return [Phase("ids", lambda ctx: [{}], self._ids)]
        if not self.config.train:
            return [Phase("copy", lambda ctx: [{}], self._copy)]
        return [
            Phase("count", self._plan_shards, self._count, memory=self._memory),
            Phase("sample", self._plan_sample, self._sample, memory=self._memory),
            Phase("train", lambda ctx: [{}], self._train, exclusive=True),
        ]

    @staticmethod
    def _memory(spec: dict[str, Any]) -> int:
        return (48 << 20) + 4 * int(spec["bytes"])

    def _plan_shards(self, ctx: TaskContext) -> list[dict[str, Any]]:
        return [{"shard": i, "bytes": entry["bytes"]} for i, entry in enumerate(ctx.input("documents").shards)]

    def _plan_sample(self, ctx: TaskContext) -> list[dict[str, Any]]:
        total = sum(result["bytes"] for result in ctx.results("count"))
        if total == 0:
            raise UserError(
                "There is no text to train a tokenizer on: no document of the training split was kept.",
                "tokenizer.train",
                "Check some documents with `headrace why`, and loosen what removes them.",
            )
        assert self.config.train is not None
        limit = total if self.config.train.sample is None else self.config.train.sample
        return [{**spec, "share": min(1.0, limit / total)} for spec in self._plan_shards(ctx)]

    def _texts(self, ctx: TaskContext, shard: int) -> Iterator[tuple[pa.Array, pa.Array]]:
        """Ids and texts of a shard's kept training documents."""
        for kept in kept_rows(ctx.input("documents"), ctx.input("verdicts"), shard, ("id", "text")):
            mask = pa.array(kept.split == 0)
            yield kept.columns["id"].filter(mask), kept.columns["text"].filter(mask)

    def _count(self, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
        size = 0
        for _, texts in self._texts(ctx, spec["shard"]):
            size += sum(len(text) for text in _buffers(texts))
        return {"bytes": size}

    def _sample(self, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
        chosen = salt(self.seed, "tokenizer")
        size = count = 0
        schema = pa.schema({"text": pa.large_string()})
        with (
            ctx.intermediate(f"{ctx.task:05d}.arrow") as out,
            pa.OSFile(str(out.path), "wb") as sink,
            pa.ipc.new_file(sink, schema) as writer,
        ):
            for ids, texts in self._texts(ctx, spec["shard"]):
                taken = unit(keyed(chosen, parse_ids(ids))) < spec["share"]
                sample = texts.filter(pa.array(taken)).cast(pa.large_string())
                writer.write_batch(pa.record_batch([sample], schema=schema))
                count += len(sample)
                size += sum(len(text) for text in _buffers(sample))
        return {"documents": count, "bytes": size}

    def _train(self, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
        assert self.config.train is not None
        limit = self.config.train.sample
        used = {"documents": 0, "bytes": 0}

        def texts() -> Iterator[str]:
            for task in range(ctx.tasks("sample")):
                with pa.memory_map(str(ctx.scratch("sample", f"{task:05d}.arrow"))) as source:
                    reader = pa.ipc.open_file(source)
                    for i in range(reader.num_record_batches):
                        for data in _buffers(reader.get_batch(i).column("text")):
                            # The share is right on average; the cap always holds.
                            if limit is None or used["bytes"] + len(data) <= limit:
                                used["documents"] += 1
                                used["bytes"] += len(data)
                                ctx.progress(rows=1, bytes=len(data))
                                yield data.decode("utf-8")

        definition = train(texts(), self.config.train, self._wanted, ctx.threads)
        roles = trained_roles(self.config.special)
        return {**self._publish(ctx, definition, roles), "sample": used}

    def _copy(self, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
        definition, roles = self.from_file
        if _params(definition, roles) != self.params():
            raise UserError("The tokenizer has changed since the run began.", str(self.config.file), "Run it again.")
        engine_from(definition, special_ids(definition, roles.spelled))  # raises, early in a run, what only texts show
        return self._publish(ctx, definition, roles.spelled)

    def _ids(self, ctx: TaskContext, spec: dict[str, Any]) -> dict[str, Any]:
        return {"special": {}, "fingerprint": f"{self.config.ids} ids", "vocab_size": self.config.ids}

    def _publish(self, ctx: TaskContext, definition: dict[str, Any], roles: dict[str, str]) -> dict[str, Any]:
        with ctx.file("tokenizer.json") as out:
            out.path.write_bytes(orjson.dumps(definition, option=orjson.OPT_APPEND_NEWLINE))
        special = special_ids(definition, roles)
        size = len(token_bytes(definition))
        return {"special": special, "fingerprint": fingerprint(definition), "vocab_size": size}

    def finish(self, ctx: TaskContext) -> dict[str, Any]:
        """Special ids, fingerprint, vocabulary size, and what it was trained on."""
        made = ctx.results(self.phases()[-1].name)[0]
        return {"counts": made.pop("sample", {}), **made}


def _buffers(texts: pa.Array) -> Iterator[bytes]:
    """The UTF-8 bytes of each text."""
    return (text.as_py() for text in texts.cast(pa.large_binary()))


def train(texts: Iterable[str], config: TokenizerTrain, special: list[str], threads: int) -> dict[str, Any]:
    """Train a byte-level BPE; the result depends only on the multiset of texts.

    Args:
        texts: the training texts.
        config: vocabulary size and minimum occurrences of a merged pair.
        special: the special tokens, which get the first ids.
        threads: CPU threads.

    Returns:
        The tokenizer's definition.

    Raises:
        UserError: the vocabulary has no room for all bytes and special tokens.
    """
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

    from headrace.tokens.library import set_threads

    if config.vocab_size < 256 + len(special):
        raise UserError(
            f"A vocabulary of {config.vocab_size} is too small for 256 bytes and {len(special)} special tokens.",
            "tokenizer.train.vocab_size",
            f"Use at least {256 + len(special)}.",
        )
    set_threads(threads)
    tokenizer = Tokenizer(models.BPE())
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    split = pre_tokenizers.Split(Regex(LLAMA3_PATTERN), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, level])
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size,
        min_frequency=config.min_frequency,
        special_tokens=special,
        initial_alphabet=sorted(byte_alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    model = orjson.loads(tokenizer.to_str())["model"]
    vocab = dict(sorted(model["vocab"].items(), key=lambda item: item[1]))
    merges = [merge.split(" ") if isinstance(merge, str) else merge for merge in model["merges"]]
    definition = byte_level_definition(vocab, merges)
    pattern = {"type": "Split", "pattern": {"Regex": LLAMA3_PATTERN}, "behavior": "Isolated", "invert": False}
    bytewise = {**definition["pre_tokenizer"], "use_regex": False}
    definition["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [pattern, bytewise]}
    definition["added_tokens"] = [special_token(vocab[text], text) for text in special]
    return definition
