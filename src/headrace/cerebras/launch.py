"""Run CrystalCoder's own params files: train, evaluate, or both, in the run folder ``model_dir``."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.cerebras import iterator_state
from headrace.cerebras.checkpoints import STATE, checkpoints, load_model, named_checkpoint, newest_checkpoint, step_of
from headrace.cerebras.read import Params
from headrace.cerebras.translate import STAGE, Data, eval_recipe, eval_rows, last_step, sequence, train_recipe
from headrace.errors import UserError
from headrace.flow.notices import notices_to
from headrace.flow.storage import explaining_os_errors, write_json
from headrace.recipe.schema import HELD_OUT, Recipe
from headrace.recipe.training import EXECUTION
from headrace.run_folder import RECIPE, artifact, read_recipe, stage_sequence

EVAL = "eval"  # the stage, and the run folder below model_dir, that hold the rows to evaluate on
Build = Callable[[Recipe, Path, str], object]
"""Builds a recipe in a run folder up to an artifact, as :func:`headrace.pipeline.run` does."""


@dataclass(frozen=True)
class Launch:
    """A params file, and how it is run here.

    Attributes:
        params: the file.
        build: builds recipes.
        say: tells the user something.
        tokenizer: a tokenizer's file, to show text; None for ids alone.
    """

    params: Params
    build: Build
    say: Callable[[str], None]
    tokenizer: str | None = None

    @property
    def run(self) -> dict[str, Any]:
        """The section ``runconfig``."""
        return self.params.section("runconfig")

    @property
    def folder(self) -> Path:
        """``model_dir``."""
        return Path(self.run.get("model_dir", "model_dir"))

    def train(self, prepare: bool = False) -> None:
        """Train to the last step, from the newest checkpoint in ``model_dir`` or from ``checkpoint_path``; with ``mode:
        train_and_eval``, evaluate on the way.

        Args:
            prepare: only make the data, for processes that are started together.

        Raises:
            UserError: that step is reached already, or the file asks for something else that cannot be.
        """
        data, evaluates = survey(self.params, "train_input"), self.run.get("mode") == "train_and_eval"
        if evaluates and (other := survey(self.params, "eval_input").sequence_length) != data.sequence_length:
            raise self.params.wrong(
                f"Rows of eval_input train on {other:,} tokens, those of train_input on {data.sequence_length:,}.",
                "eval_input",
                "Give rows as long; or train first, and evaluate with --mode eval_all.",
            )
        recipe, done, begun = self._recipe(data)
        last, what = last_step(self.params, data, done), self.folder if begun else "The checkpoint"
        if done >= last and not (begun and unfinished(self.folder)):
            raise self.params.wrong(
                f"{what} is at step {done:,} already, and the last one is {last:,}.",
                "runconfig.max_steps",
                "Raise it to go on, or give another --model_dir; --mode eval_all evaluates what is there.",
            )
        if not begun:
            self._check_room(recipe, data)
        if prepare:
            for name in (STAGE, HELD_OUT) if evaluates else (STAGE,):
                self.build(recipe, self.folder, f"sequence-{name}")
            return
        try:
            self.build(recipe, self.folder, f"model-{STAGE}")
        finally:
            self._keep_iterator_state()

    def _check_room(self, recipe: Recipe, data: Data) -> None:
        """Refuse more epochs than there is room for: each is written out."""
        stage, vocabulary = recipe.stage(STAGE), self.params.section("model")["vocab_size"]
        size = stage.epochs * data.rows * (data.sequence_length + 1) * (2 if vocabulary <= 1 << 16 else 4)
        disk = next(folder for folder in (self.folder, *self.folder.absolute().parents) if folder.is_dir())
        if size > (free := shutil.disk_usage(disk).free):
            raise self.params.wrong(
                f"The rows of so many steps, {stage.epochs:,} times all of train_input, take {size / 1e9:,.0f} GB, and "
                f"there are {free / 1e9:,.0f} GB free in {disk}.",
                "runconfig.max_steps",
                "Lower it, or --max_steps, and raise it when these steps are done; or give a --model_dir with room.",
            )

    @property
    def _iterator_state(self) -> Path | None:
        path = self.params.section("cerebras").get("save_iter_state_path")
        if path is not None and Path(path).is_file():
            what, place = f"A file is where the loader's state goes: {path}.", "cerebras.save_iter_state_path"
            raise self.params.wrong(what, place, "Give a folder.")
        return None if path is None else Path(path)

    def _keep_iterator_state(self) -> None:
        """Record how many rows the newest checkpoint has consumed where the file wants it."""
        folder, newest = self._iterator_state, newest_checkpoint(self.folder)
        if folder is None or newest is None:
            return
        with explaining_os_errors(folder):
            if not iterator_state.write(folder, newest.step, int(newest.state["rows"])):
                self.say(f"The loader's state is only in checkpoints: there is no folder {folder.parent}.")

    def _recipe(self, data: Data) -> tuple[Recipe, int, bool]:
        """The recipe to train, the steps that are done, and whether the run has begun with that: one that begins as the
        run's own if that trains the same, else one that starts where the file and the run say."""
        run, state = self.run, self._iterator_state
        with notices_to(self.say):
            newest = newest_checkpoint(self.folder, sound=True)
        given = named_checkpoint(self.params, run["checkpoint_path"]) if "checkpoint_path" in run else None
        pretrained = bool(run.get("is_pretrained_checkpoint", False))
        if pretrained and given is None and newest is None:
            raise self.params.wrong(
                "is_pretrained_checkpoint is true, and there is no checkpoint to take the weights of.",
                "runconfig.checkpoint_path",
                "Give it, or --checkpoint_path.",
            )
        if newest is not None and given is None and not run.get("autoload_last_checkpoint", True):
            raise self.params.wrong(
                f"{self.folder} holds checkpoints, which autoload_last_checkpoint: false does not go on from.",
                "runconfig.autoload_last_checkpoint",
                "Give another --model_dir, or name a checkpoint.",
            )
        start, resume = (None, False) if newest is None else (newest.path.absolute(), True)
        if given is not None:
            start, resume = given, not pretrained
        if resume and start is not None and not (start / STATE).is_file():
            raise self.params.wrong(
                f"{start} is no checkpoint of headrace's, with a step and an optimizer's state.",
                "runconfig.checkpoint_path",
                "Add --is_pretrained_checkpoint if it holds weights, to begin at step 0 with them.",
            )

        def recipe(done: int, start: str | None, resume: bool, first_row: int) -> Recipe:
            return train_recipe(self.params, data, done, self.tokenizer, start, resume, first_row)

        where = None if start is None else str(start)
        if newest is not None and (self.folder / RECIPE).is_file():
            before = read_recipe(self.folder)
            begun = before.stage(STAGE)
            own = recipe(newest.step, begun.start, begun.resume, begun.first_row)
            if same_training(before, own) and (given is None or (begun.start, begun.resume) == (where, resume)):
                return own, newest.step, True
        done = step_of(start) if resume and start is not None else 0
        if newest is not None and (start, done) != (newest.path.absolute(), newest.step):
            self.say(
                f"Training begins at step {done} with {start}, beside what is in {self.folder}, whose newest "
                f"checkpoint is of step {newest.step}."
            )
        if resume and start is not None:
            return recipe(done, where, resume, 0), done, False
        passed = 0 if state is None else iterator_state.streamed(state)
        if passed:
            self.say(f"The data begin with row {passed:,}: {state} says that those before were read.")
        return recipe(0, where, resume, passed), 0, False

    def evaluated(self) -> list[dict[str, Any]]:
        """What was measured while it trained, as :meth:`evaluate` tells it, without checkpoints."""
        from headrace.train.metrics import EVALUATIONS, read
        from headrace.train.trajectory import latest

        folder = latest(self.folder, STAGE)
        return [] if folder is None else [_with_perplexity(told) for told in read(folder / EVALUATIONS)]

    def evaluate(self, every: bool) -> Iterator[dict[str, Any]]:
        """Measure the loss of ``eval_input``.

        Args:
            every: on all checkpoints of ``model_dir``, oldest first; else on ``checkpoint_path`` or the newest. Those
                of a ``model_dir`` that are damaged, or of another model, are passed over, and that is said.

        Yields:
            ``{"step", "checkpoint", "rows", "tokens", "loss", "perplexity", "sources"}`` for each, losses in nats per
            token; also written to ``eval/step-00000100.json`` below ``model_dir``.

        Raises:
            UserError: there is no checkpoint, or none that can be evaluated.
        """
        named = None if every else self.run.get("checkpoint_path")
        there = [one.path for one in checkpoints(self.folder)]
        found = [named_checkpoint(self.params, named)] if named is not None else there[::-1] if every else there
        if not found:
            raise self.params.wrong(
                f"There is no checkpoint in {self.folder}.",
                "runconfig.model_dir",
                "Train first, or give --checkpoint_path.",
            )
        recipe = eval_recipe(self.params, survey(self.params, "eval_input"), self.tokenizer)
        self.build(recipe, self.folder / EVAL, f"sequence-{EVAL}")
        failures: list[UserError] = []
        for path in found:
            try:
                yield self._measure(recipe, path)
            except UserError as error:
                failures.append(error)
                if named is None:
                    self.say(f"{path} is passed over: {error.what}")
            else:
                if not every:
                    return
        if len(failures) == len(found):
            raise failures[0]

    def _measure(self, recipe: Recipe, path: Path) -> dict[str, Any]:
        from headrace.evaluate.heldout import byte_sizes, held_out_loss
        from headrace.tokens.load import has_text, open_engine

        train, folder = recipe.stages[0].train, self.folder / EVAL
        tokenizer = artifact(folder, "tokenizer")
        model = load_model(recipe, path)
        ids = model.config.vocab_size or 0
        sizes = byte_sizes(open_engine(tokenizer), ids) if has_text(tokenizer) else None
        about = train.attention, eval_rows(self.params), train.batch, model.embedding.weight.device, sizes
        told = held_out_loss(model, stage_sequence(folder, EVAL), *about)
        out = _with_perplexity({"step": step_of(path), "checkpoint": str(path), **told})
        write_json(folder / f"step-{out['step']:08d}.json", out)
        return out


def _with_perplexity(told: dict[str, Any]) -> dict[str, Any]:
    loss = told["loss"]
    return {**told, "perplexity": None if loss is None else math.exp(min(loss, 700.0))}


def same_training(a: Recipe, b: Recipe) -> bool:
    """Whether recipes train the same; how they carry it out, and what shows their text, may differ."""
    return _trained(a) == _trained(b)


def _trained(recipe: Recipe) -> Any:
    stage = recipe.stage(STAGE)
    train = stage.train.model_dump(mode="json", exclude=set(EXECUTION))
    rows = stage.model_dump(mode="json", exclude={"train"})
    return recipe.model_dump(mode="json", include={"seed", "model"}), rows, train


def unfinished(folder: Path) -> bool:
    """Whether a run has not published its model yet: it may have been killed after the last checkpoint."""
    try:
        artifact(folder, "model", STAGE)
    except UserError:
        return True
    return False


def survey(params: Params, section: str) -> Data:
    """What the files of an input hold.

    Raises:
        UserError: they cannot be read, hold nothing, or hold rows of several lengths.
    """
    from headrace.formats.format import Exported
    from headrace.formats.imported import LEAST_SHARE, Taken, groups, shares
    from headrace.formats.opening import open_files
    from headrace.references import cut

    length = params.section(section).get("max_sequence_length", 0)
    untold = length or params.section("model").get("max_position_embeddings")  # of files that are one line of tokens
    entries, taken = sequence(params, section), list[Taken]()
    for entry in entries:
        parts = []
        for path in entry["path"]:
            one = open_files(path, seq_len=untold)
            if length and one.seq_len != length:
                what = f"Rows of {path} train on {one.seq_len:,} tokens, not on {length:,}."
                raise params.wrong(what, section, "Name folders whose rows are equally long.")
            length = one.seq_len
            parts.append(Taken(Exported("", "", ""), 0, len(one), entry.get("weight")))
        taken += cut(parts, entry.get("slice", [(0.0, 1.0)]))
    weights = [entry.get("weight", 1.0) for entry in entries]
    if max(weights) <= LEAST_SHARE * sum(weights):
        what = "No folder has more than 5 % of the weight: an epoch is as long as it takes to read each of these once."
        raise params.wrong(what, f"{section}.mixture", "Name fewer folders.")
    rows = sum(shares(groups(taken))) if taken else 0
    if not rows:
        raise params.wrong(f"The files of {section} hold no rows.", section, "Name folders with HDF5 files.")
    return Data(length, rows)
