"""A sequence in torch's DataLoader, torchdata's and the Trainer of transformers: rows, order, where each goes on."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from small_build import build, of_stage, stage
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader
from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

from headrace import Loader, TorchDataset, open_sequence
from headrace.errors import UserError
from headrace.sequence import layout
from headrace.sequence.store import ArrowSequence

WORKERS = [(0, None), (1, "fork"), (3, "fork"), (2, "spawn")]


@pytest.fixture(scope="module")
def sequence(tmp_path_factory: pytest.TempPathFactory) -> ArrowSequence:
    """Some 90 rows of 60 tokens with padding and masks, in several small shards."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "SHARD_BYTES", 4_000)
        config = stage(
            sources={"a": {"slice": [0, 0.2]}, "chat": {}}, chat="chatml", pack={"method": "best_fit"},
            sequence_length=200,
        )  # fmt: skip
        made = build(tmp_path_factory.mktemp("run"), of_stage(config))
    assert len(made.artifact.shards) > 3
    assert made.manifest["ledger"]["padding"] > 0
    return made


def equal(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def ids(batches: list[dict]) -> list[list[int]]:
    return [row for batch in batches for row in batch["input_ids"].tolist()]


@pytest.mark.parametrize("positions", ["row", "document"])
def test_a_row_is_what_its_tokens_loss_and_segments_say(sequence: ArrowSequence, positions: str) -> None:
    dataset = TorchDataset(sequence, positions=positions)  # type: ignore[arg-type]
    shifted = TorchDataset(sequence, positions=positions, shifted=True)  # type: ignore[arg-type]
    L, ends = sequence.seq_len, 0
    for row in range(len(sequence)):
        item = dataset[row]
        assert all(tensor.dtype == torch.int64 and tensor.shape == (L + 1,) for tensor in item.values())
        tokens, loss = sequence.rows(row, row + 1)[0].astype(np.int64), sequence.loss(row, row + 1)[0].copy()
        expected = np.arange(L + 1)
        for s in sequence.segments(row):
            part = slice(int(s["start"]), int(s["start"] + s["length"]))
            if s["kind"] == 255:
                loss[part] = False
            if positions == "document":
                expected[part] = np.arange(s["length"])
                ends += s["start"] == L
        loss[0] = False
        assert item["input_ids"].tolist() == tokens.tolist()
        assert item["labels"].tolist() == np.where(loss, tokens, -100).tolist()
        assert item["position_ids"].tolist() == expected.tolist()
        own = shifted[row]
        assert own["input_ids"].tolist() == tokens[:-1].tolist()
        assert own["labels"].tolist() == own["shift_labels"].tolist() == item["labels"][1:].tolist()
        assert own["position_ids"].tolist() == expected[:-1].tolist()
    assert positions == "row" or ends  # a segment of one token at the very end is among the cases


def test_rows_are_asked_for_as_torch_asks(sequence: ArrowSequence) -> None:
    dataset = TorchDataset(sequence)
    size = len(dataset)
    asked = [3, 4, 5, 2, 2, size - 1, torch.tensor(0), np.int64(1), -1]
    found = dataset.__getitems__(asked)
    assert len(found) == len(asked)
    for row, item in zip(asked, found, strict=True):
        assert equal(item, dataset[int(row) % size])
    assert dataset.__getitems__([]) == []
    for row in (size, -size - 1):
        with pytest.raises(IndexError):
            dataset[row]
    assert len(list(dataset)) == size  # type: ignore[call-overload]


@pytest.mark.parametrize(("workers", "method"), WORKERS)
def test_every_face_gives_the_same_batches_with_any_workers(
    sequence: ArrowSequence, workers: int, method: str | None
) -> None:
    dataset = TorchDataset(sequence, positions="document")
    expected = [dataset.tensors(row, row + 8) for row in range(0, len(sequence) // 8 * 8, 8)]
    options = {"num_workers": workers, "multiprocessing_context": method}
    faces = {
        "map": DataLoader(dataset, batch_size=8, drop_last=True, **options),
        "iterable": DataLoader(dataset.batches(8), batch_size=None, **options),
        "loader": dataset.loader(8, **options),
    }
    if method == "spawn":  # the workers of one face tell for all: starting them takes seconds
        faces = {"loader": faces["loader"]}
    for loader in faces.values():
        assert len(loader) == len(expected)
        found = list(loader)
        assert len(found) == len(expected)
        assert all(equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("workers", [0, 2])
def test_ranks_share_each_batch(sequence: ArrowSequence, workers: int) -> None:
    dataset = TorchDataset(sequence)
    for face in ("loader", "batches"):
        ranks = []
        for rank in range(3):
            if face == "loader":
                ranks.append(list(dataset.loader(6, rank=rank, world_size=3, drop_last=False, num_workers=workers)))
            else:
                part = dataset.batches(6, rank=rank, world_size=3, drop_last=False)
                ranks.append(list(DataLoader(part, batch_size=None, num_workers=workers)))
        together = [row for step in zip(*ranks, strict=True) for row in ids(list(step))]
        assert together == sequence.rows(0, len(sequence)).tolist()


def test_the_state_counts_what_was_handed_out(sequence: ArrowSequence) -> None:
    dataset = TorchDataset(sequence)
    rows = sequence.rows(0, len(sequence)).tolist()
    for workers, persistent in ((0, False), (2, False), (2, True)):
        loader = dataset.loader(4, num_workers=workers, persistent_workers=persistent)
        for taken, _ in enumerate(loader, 1):
            assert loader.state_dict()["rows"] == 4 * taken
            if taken == 5:
                break
        state = json.loads(json.dumps(loader.state_dict()))
        # The same loader goes on, so does another with other workers, batch and world, and so does a plain one.
        assert ids([next(iter(loader))]) == rows[20:24]
        assert loader.state_dict()["rows"] == 24
        loader.load_state_dict(state)
        assert len(loader) == (len(rows) - 20) // 4
        assert ids(list(loader)) == rows[20 : len(rows) // 4 * 4]
        other = dataset.loader(6, rank=1, world_size=2, state=state, num_workers=1)
        assert ids([next(iter(other))]) == rows[23:26]
        assert Loader(sequence, 4, state=state).consumed == 20
    with pytest.raises(UserError, match="another sequence"):
        loader.load_state_dict({"rows": 1, "fingerprint": {**state["fingerprint"], "digest": "0"}})


def test_the_iterable_face_keeps_its_own_state_and_says_when_it_cannot(sequence: ArrowSequence) -> None:
    dataset = TorchDataset(sequence)
    rows = sequence.rows(0, len(sequence)).tolist()
    batches = dataset.batches(4)
    for _, batch in zip(range(3), batches, strict=False):
        last = batch
    assert ids([last]) == rows[8:12]
    state = batches.state_dict()
    assert state["rows"] == 12
    again = dataset.batches(4, state=state)
    assert len(again) == (len(rows) - 12) // 4
    for _ in range(2):  # each iteration starts where it was told to
        assert ids(list(again)) == rows[12 : len(rows) // 4 * 4]
    for method in ("fork", "spawn"):
        batches = dataset.batches(4)
        found = list(DataLoader(batches, batch_size=None, num_workers=1, multiprocessing_context=method))
        assert ids(found) == rows[: len(rows) // 4 * 4]
        with pytest.raises(UserError, match="num_workers"):
            batches.state_dict()


@pytest.mark.parametrize("workers", [0, 2])
def test_torchdata_resumes_both_faces(sequence: ArrowSequence, workers: int) -> None:
    rows = sequence.rows(0, len(sequence)).tolist()
    for face in ("map", "iterable"):

        def loader(face: str = face) -> StatefulDataLoader:
            dataset = TorchDataset(sequence)
            if face == "map":
                return StatefulDataLoader(dataset, batch_size=4, drop_last=True, num_workers=workers)
            return StatefulDataLoader(dataset.batches(4), batch_size=None, num_workers=workers)

        first = loader()
        taken = [batch for _, batch in zip(range(5), first, strict=False)]
        # zip does not ask for a sixth.
        state = first.state_dict()
        second = loader()
        second.load_state_dict(state)
        assert ids([*taken, *second]) == rows[: len(rows) // 4 * 4]


def test_files_of_another_format_are_read_by_workers_that_have_them_open(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "data-00001.h5", "w") as file:
        tokens = np.random.default_rng(0).integers(0, 500, (200, 65)).astype(np.int32)
        loss = np.random.default_rng(1).integers(0, 2, (200, 64)).astype(np.int32)
        rows = np.stack([tokens[:, :-1], loss, tokens[:, 1:]], axis=1)
        file.create_dataset("data", data=rows, chunks=(1, 3, 64), compression="gzip")
    dataset = TorchDataset(open_sequence(tmp_path / "data-00001.h5"))
    assert equal(dataset[7], dataset.__getitems__([7])[0])  # open in the parent when the workers are forked
    found = list(dataset.loader(4, num_workers=3, multiprocessing_context="fork"))
    assert ids(found) == tokens.tolist()
    labels = torch.cat([batch["labels"] for batch in found])
    assert (labels[:, 1:].numpy() == np.where(loss, tokens[:, 1:], -100)).all()


def model_of(sequence: ArrowSequence) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=sequence.vocab_size, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, max_position_embeddings=256,
    )  # fmt: skip
    return LlamaForCausalLM(config)


def test_a_model_of_transformers_learns_exactly_the_targets(sequence: ArrowSequence) -> None:
    model = model_of(sequence).eval()
    for positions in ("row", "document"):
        dataset = TorchDataset(sequence, positions=positions)  # type: ignore[arg-type]
        batch = dataset.tensors(0, 6)
        logits = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"]).logits[:, :-1]
        read = Loader(sequence, 6, dtype="int64").at(0)
        loss = torch.nn.functional.cross_entropy(
            logits[torch.from_numpy(read.loss)], torch.from_numpy(read.tokens[:, 1:][read.loss])
        )
        assert torch.allclose(model(**batch).loss, loss)
        own = TorchDataset(sequence, positions=positions, shifted=True).tensors(0, 6)  # type: ignore[arg-type]
        assert torch.allclose(model(**own).loss, loss, atol=1e-5)


def test_positions_by_document_keep_attention_within_documents(sequence: ArrowSequence) -> None:
    model = model_of(sequence).eval()
    row = next(row for row in range(len(sequence)) if len(sequence.segments(row)) > 2)
    second = int(sequence.segments(row)["start"][1])
    for positions, apart in (("document", True), ("row", False)):
        item = TorchDataset(sequence, positions=positions).tensors(row, row + 1)  # type: ignore[arg-type]
        del item["labels"]
        before = model(**item, use_cache=False).logits[:, second:]
        item["input_ids"][:, :second] = 1
        assert torch.allclose(before, model(**item, use_cache=False).logits[:, second:], atol=1e-6) == apart


class Recording(Trainer):
    """Notes the rows that the model sees."""

    def compute_loss(self, model, inputs, *args, **options):  # type: ignore[no-untyped-def]
        self.seen = [*getattr(self, "seen", []), *inputs["input_ids"].tolist()]
        assert set(inputs) == {"input_ids", "labels", "position_ids"}
        return super().compute_loss(model, inputs, *args, **options)


def test_a_trainer_stopped_and_started_again_goes_on_at_the_right_row(sequence: ArrowSequence, tmp_path: Path) -> None:
    reads = []

    class Counting(TorchDataset):
        def __getitems__(self, rows):  # type: ignore[no-untyped-def]
            reads.extend(rows)
            return super().__getitems__(rows)

    def trainer(folder: str, steps: int, workers: int) -> Recording:
        arguments = TrainingArguments(
            output_dir=str(tmp_path / folder), per_device_train_batch_size=3, gradient_accumulation_steps=2,
            max_steps=steps, save_steps=4, train_sampling_strategy="sequential", dataloader_num_workers=workers,
            report_to="none", use_cpu=True, disable_tqdm=True, lr_scheduler_type="constant", logging_strategy="no",
        )  # fmt: skip
        return Recording(model_of(sequence), arguments, train_dataset=Counting(sequence, positions="document"))

    rows = sequence.rows(0, len(sequence)).tolist()
    whole = trainer("whole", 8, 2)
    whole.train()
    assert whole.seen == rows[:48]
    first = trainer("stopped", 4, 0)
    first.train()
    assert first.seen == rows[:24]
    reads.clear()
    second = trainer("stopped", 8, 0)
    second.train(resume_from_checkpoint=True)
    assert second.seen == rows[24:48]
    assert min(reads) == 24  # what is skipped is not read
    for a, b in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(a, b)
