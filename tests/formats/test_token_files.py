"""Megatron, OLMo-core and nanotron: each export through the other side's own reader, and files that others wrote."""

from __future__ import annotations

import gzip
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.errors import UserError
from headrace.export import write
from headrace.flow.artifact import Artifact
from headrace.flow.task import TaskContext
from headrace.formats.flat import FlatFormat
from headrace.formats.format import Exported, Part
from headrace.formats.megatron import HEADER, MAGIC, Index
from headrace.formats.nanotron import for_people
from headrace.formats.opening import open_files
from headrace.formats.options import Options
from headrace.formats.registry import SEQUENCES
from headrace.formats.sequences import SequenceExport
from headrace.sequence.reader import SequenceReader
from headrace.sequence.windows import PADDING
from quick import examples

WHOLE, SMALL = Options(), Options(rows_per_file=40)


@pytest.fixture(scope="module")
def exports(sequences: tuple[Exported, ...], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("exports")
    flat = [name for name, format in SEQUENCES.items() if isinstance(format, FlatFormat)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("headrace.formats.megatron.PIECE_TOKENS", 1000)  # several pieces a file
        return {
            name: write(SequenceExport(name, sequences, WHOLE if name == "megatron" else SMALL), folder / name, 0)
            for name in flat
        }


def learned(ours: SequenceReader) -> np.ndarray:
    """[rows, L]: what is learned, padding taken out."""
    segments = ours.segments_in(0, len(ours))
    assert segments is not None
    return ours.targets(0, len(ours)) & ~segments.padding(ours.seq_len)


def read(path: Path) -> None:
    """Open rows of 65 tokens and read what belongs to them."""
    sequence = open_files(path, seq_len=64)
    sequence.segments_in(0, len(sequence)), sequence.targets(0, len(sequence))


# Megatron


def gpt_dataset(prefix: Path, ours: SequenceReader, cache: Path):
    """GPTDataset with the settings of docs/exports.md."""
    from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
    from megatron.core.datasets.utils import Split

    tokenizer = SimpleNamespace(vocab_size=ours.vocab_size, eod=-2, pad=-1, unique_identifiers={})
    config = GPTDatasetConfig(
        random_seed=1234,
        sequence_length=ours.seq_len + 1,
        add_extra_token_to_sequence=False,
        reset_position_ids=False,
        reset_attention_mask=False,
        eod_mask_loss=False,
        create_attention_mask=False,
        path_to_cache=str(cache),
        blend=([str(prefix)], None),
        split="1,0,0",
        tokenizer=tokenizer,
    )
    dataset = GPTDataset.build_low_level_dataset(str(prefix), config)
    return GPTDataset(dataset, str(prefix), np.arange(len(dataset), dtype=np.int32), None, Split.train, config)


@pytest.fixture(scope="module")
def megatron() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("megatron.core.datasets.gpt_dataset")
        yield


def test_megatron_reads_rows_as_sequences_and_documents(megatron, exports, sequences):
    from megatron.core.datasets.indexed_dataset import IndexedDataset

    for one in sequences:
        ours, theirs = one.open(), IndexedDataset(str(exports["megatron"] / one.name))
        assert len(theirs) == len(ours) == len(theirs.document_indices) - 1
        assert (np.stack(theirs[0 : len(ours)]) == ours.rows(0, len(ours))).all()
        assert (theirs.get(3, offset=5, length=7) == ours.rows(3, 4)[0, 5:12]).all()


def test_gpt_dataset_gives_exactly_the_rows(megatron, exports, sequences, tmp_path):
    for one in sequences:
        ours = one.open()
        rows = ours.rows(0, len(ours)).astype(np.int64)
        dataset = gpt_dataset(exports["megatron"] / one.name, ours, tmp_path)
        assert len(dataset) == len(ours)
        order = dataset.document_index[dataset.shuffle_index]
        assert sorted(order) == list(range(len(ours)))
        for i, row in enumerate(order):
            item = dataset[i]
            assert (item["tokens"].numpy() == rows[row]).all()
            assert (item["labels"].numpy()[:-1] == rows[row, 1:]).all()
            assert item["loss_mask"].tolist() == [1] * ours.seq_len + [0]
        dataset.shuffle_index = np.argsort(dataset.document_index)
        assert all((dataset[i]["tokens"].numpy() == rows[i]).all() for i in range(len(ours)))


def test_the_loss_lies_beside_megatrons_files_if_there_is_one(exports, sequences):
    for one in sequences:
        ours, path = one.open(), exports["megatron"] / f"{one.name}.loss"
        if learned(ours).all():
            assert not path.exists()
        else:
            loss = np.fromfile(path, dtype=bool).reshape(len(ours), -1)
            assert (loss[:, 1:] == learned(ours)).all()
    assert (exports["megatron"] / "one.loss").exists()


CODES = [np.uint8, np.int8, np.int16, np.int32, np.int64, np.uint16]


def theirs(folder: Path, documents: list[list[int]], dtype=np.int32) -> Path:
    """Documents by Megatron's own builder."""
    import torch
    from megatron.core.datasets.indexed_dataset import IndexedDatasetBuilder

    builder = IndexedDatasetBuilder(str(folder / "text_document.bin"), dtype=dtype)
    for document in documents:
        builder.add_item(torch.tensor(document, dtype=torch.int64))
        builder.end_document()
    builder.finalize(str(folder / "text_document.idx"))
    return folder / "text_document"


@pytest.mark.parametrize("dtype", CODES)
def test_files_of_megatrons_builder_are_read_as_gpt_dataset_reads_them_unshuffled(megatron, dtype, tmp_path):
    rng = np.random.default_rng(0)
    documents = [rng.integers(0, 100, rng.integers(1, 40)).tolist() for _ in range(50)]
    prefix = theirs(tmp_path, documents, dtype)
    line = [token for document in documents for token in document]
    for seq_len in (1, 7, 30):
        for path in (prefix, prefix.with_suffix(".bin"), prefix.with_suffix(".idx"), tmp_path):
            sequence = open_files(path, seq_len=seq_len)
        n = (len(line) - 1) // seq_len
        assert len(sequence) == n
        assert sequence.rows(0, n).tolist() == [line[i * seq_len : (i + 1) * seq_len + 1] for i in range(n)]
        assert sequence.rows(3, 5).tolist() == sequence.rows(0, n)[3:5].tolist()
        assert sequence.targets(0, n).all()
        begins = {0, *np.cumsum([len(document) for document in documents]).tolist()}
        for row in range(n):
            cuts = [i for i in range(seq_len) if i == 0 or row * seq_len + i in begins]
            assert sequence.segments(row)["start"].tolist() == cuts
            assert sequence.segments(row)["length"].tolist() == np.diff([*cuts, seq_len + 1]).tolist()


@pytest.mark.parametrize("name", ["x", "x.bin", "x.idx", "."])
@pytest.mark.parametrize("cache", [False, True])
def test_files_of_others_are_exported_whatever_they_are_named_by(name, cache, tmp_path):
    """A prefix, one file or the other, a folder; beside the cache that GPTDataset makes."""
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "x.bin"
    np.arange(100, dtype="<i4").tofile(path)
    write_index(path, [30, 70], [0, 120], [0, 1, 2])
    if cache:
        (tmp_path / "in" / "x" / "cache").mkdir(parents=True)
        np.save(tmp_path / "in" / "x" / "cache" / "index.npy", np.arange(3))
    one = Exported.of(tmp_path / "in" / name, None, 10)
    assert [entry[0] for entry in one.digests] == ["x.bin", "x.idx"]
    out = write(SequenceExport("nanotron", (one,), WHOLE), tmp_path / "out", workers=0)
    sequence = open_files(out).verified()
    assert sequence.rows(0, len(sequence)).tolist() == [list(range(10 * i, 10 * i + 11)) for i in range(9)]
    assert sequence.segments(3)["start"].tolist() == [0]
    assert sequence.segments(2)["length"].tolist() == [11]


def test_gpt_dataset_windows_are_ours(megatron, tmp_path):
    """One document, which no shuffling of documents moves."""
    from megatron.core.datasets.gpt_dataset import GPTDataset, GPTDatasetConfig
    from megatron.core.datasets.utils import Split

    prefix = theirs(tmp_path, [list(range(100))])
    config = GPTDatasetConfig(
        random_seed=1,
        sequence_length=8,
        reset_position_ids=False,
        reset_attention_mask=False,
        eod_mask_loss=False,
        create_attention_mask=False,
        blend=([str(prefix)], None),
        split="1,0,0",
        tokenizer=SimpleNamespace(vocab_size=100, eod=-2, pad=-1, unique_identifiers={}),
    )
    low = GPTDataset.build_low_level_dataset(str(prefix), config)
    dataset = GPTDataset(low, str(prefix), np.arange(1, dtype=np.int32), None, Split.train, config)
    sequence = open_files(prefix, seq_len=8)
    assert len(sequence) == len(dataset)
    for i, row in enumerate(dataset.shuffle_index):
        item = dataset[i]
        assert item["tokens"].tolist() == sequence.rows(row, row + 1)[0, :-1].tolist()
        assert item["labels"].tolist() == sequence.rows(row, row + 1)[0, 1:].tolist()


def write_index(path: Path, lengths, pointers, documents, *, code=4, version=1, magic=MAGIC, n=None, d=None, more=b""):
    n, d = len(lengths) if n is None else n, len(documents) if d is None else d
    head = np.array([(magic, version, code, n, d)], dtype=HEADER).tobytes()
    arrays = (np.array(lengths, "<i4"), np.array(pointers, "<i8"), np.array(documents, "<i8"))
    path.with_suffix(".idx").write_bytes(head + b"".join(array.tobytes() for array in arrays) + more)


@settings(max_examples=examples(50))
@given(spans=st.lists(st.tuples(st.integers(0, 90), st.integers(0, 10)), min_size=1), seq_len=st.integers(1, 12))
def test_sequences_that_lie_anywhere_are_joined_in_the_order_of_the_index(tmp_path_factory, spans, seq_len):
    path = tmp_path_factory.mktemp("megatron") / "x.bin"
    np.arange(100, dtype="<i4").tofile(path)
    lengths, pointers = [n for _, n in spans], [at * 4 for at, _ in spans]
    write_index(path, lengths, pointers, [0, len(spans)])
    line = [token for at, n in spans for token in range(at, at + n)]
    sequence = open_files(path, seq_len=seq_len)
    if set(lengths) == {seq_len + 1}:
        expected = [list(range(at, at + n)) for at, n in spans]
    else:
        expected = [line[i * seq_len : (i + 1) * seq_len + 1] for i in range(max(0, len(line) - 1) // seq_len)]
    assert sequence.rows(0, len(sequence)).tolist() == expected
    if len(expected) > 2:
        assert sequence.rows(1, 2).tolist() == expected[1:2]


HOSTILE = {
    "bytes from|from byte": {"pointers": [0, 4000]},
    "from byte -8": {"pointers": [0, -8]},
    "has -1 tokens": {"lengths": [-1, 5]},
    "has 2,147,483,647 tokens": {"lengths": [2**31 - 1, 5]},
    "from byte 9,223,372,036,854,775,807": {"pointers": [0, 2**63 - 1]},
    "promises": {"n": 2**60},
    "promises 1": {"d": 2**64 - 1},
    "version is 2": {"version": 2},
    "type of ids is 7": {"code": 7},
    "type of ids is 0": {"code": 0},
    "multimodal": {"more": b"\0\0"},
    "begin as": {"magic": b"MMIDIDX\x00\x01"},
    "documents go back": {"documents": [0, 2, 1, 2]},
    "documents end with": {"documents": [0, 1]},
    "documents end with sequence 0": {"documents": []},
}


@pytest.mark.parametrize("said", HOSTILE)
def test_an_index_that_lies_is_refused_before_memory_is_taken(said, tmp_path):
    path = tmp_path / "x.bin"
    np.arange(20, dtype="<i4").tofile(path)
    write_index(path, **{"lengths": [5, 5], "pointers": [0, 20], "documents": [0, 1, 2], **HOSTILE[said]})
    with pytest.raises(UserError, match=said) as error:
        open_files(path, seq_len=4)
    assert error.value.where == str(path.with_suffix(".idx"))


def test_ids_that_are_negative_or_beyond_the_vocabulary_are_named(exports, tmp_path):
    path = tmp_path / "x.bin"
    np.array([1, 2, -3, 4, 5, 6], dtype="<i4").tofile(path)
    write_index(path, [3, 3], [0, 12], [0, 1, 2])
    with pytest.raises(UserError, match="id -3, which is negative"):
        open_files(path).rows(0, 2)
    victim = exports["megatron"] / "two.bin"
    whole = victim.read_bytes()
    victim.write_bytes(whole[:-2] + b"\xff\x7f")
    try:
        sequence = open_files(exports["megatron"], "two")
        with pytest.raises(UserError, match="id 32,767, which is beyond the largest"):
            sequence.rows(len(sequence) - 1, len(sequence))
    finally:
        victim.write_bytes(whole)


def test_a_large_index_takes_no_memory_for_what_lies_in_order(tmp_path):
    path = tmp_path / "x.bin"
    path.write_bytes(bytes(3000 * 4))
    write_index(path, [3] * 1000, np.arange(1000) * 12, np.arange(1001))
    index = Index(path)
    assert index.joined
    assert index.uniform == 3
    assert "begins" not in vars(index)


# OLMo-core


def fsl_dataset(paths: list[Path], ours: SequenceReader, masks: list[Path] | None):
    from olmo_core.data.numpy_dataset import NumpyFSLDataset

    return NumpyFSLDataset(
        *paths,
        sequence_length=ours.seq_len + 1,
        pad_token_id=0,
        eos_token_id=0,
        vocab_size=ours.vocab_size,
        dtype=ours.dtype.type,
        label_mask_paths=masks,
    )


def test_olmo_core_reads_rows_and_labels(exports, sequences):
    data = pytest.importorskip("olmo_core.data.utils")
    import torch

    for one in sequences:
        ours, folder = one.open(), exports["olmo-core"] / one.name
        masks = sorted(folder.glob("labels_mask_part_*.npy")) or None
        theirs = fsl_dataset(sorted(folder.glob("token_ids_part_*.npy")), ours, masks)
        n = len(ours)
        assert len(theirs) == n
        items = [theirs[i] for i in range(n)]
        batch = {name: torch.stack([item[name] for item in items]) for name in items[0]}
        assert (batch["input_ids"].numpy() == ours.rows(0, n)).all()
        labels = data.get_labels(batch).numpy()
        assert (labels[:, -1] == -100).all()
        assert (labels[:, :-1] == np.where(learned(ours), ours.rows(0, n)[:, 1:].astype(int), -100)).all()


def test_olmo_core_reads_where_documents_lie(exports, sequences):
    data = pytest.importorskip("olmo_core.data.utils")
    for one in sequences:
        ours = one.open()
        found, expected = [], []
        for number, file in enumerate(sorted((exports["olmo-core"] / one.name).glob("token_ids_part_*.npy"))):
            base = number * 40 * (ours.seq_len + 1)
            found += [
                (base + start, base + end)
                for start, end in data.iter_document_indices(file, use_array_if_local=False, dtype=ours.dtype.type)
            ]
        for row in range(len(ours)):
            for segment in ours.segments(row):
                if segment["kind"] != PADDING:
                    start = row * (ours.seq_len + 1) + int(segment["start"])
                    expected.append((start, start + int(segment["length"])))
        assert found == expected
    with gzip.open(exports["olmo-core"] / "one" / "token_ids_part_00000.csv.gz", "rt") as text:
        start, end, id, src, loc = text.readline().rstrip("\n").split(",")
    first = sequences[0].open().segments(0)[0]
    told = (first["start"], first["start"] + first["length"], first["row"], first["offset"])
    assert (int(start), int(end), int(id), int(loc)) == told
    assert src == sequences[0].open().sources[first["source"]]


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("0,70\n60,80\n", "overlap"),
        ("0,9000000000\n", "ends at token"),
        ("0,-1\n", "overlap"),
        ("zero,one\n", "CSV"),
        ("0,5\n6\n", "CSV"),
        ("0,5," + "x" * (3 << 20) + "\n", "CSV"),
    ],
)
def test_metadata_that_lie_are_refused(lines, said, tmp_path):
    np.arange(130, dtype=np.uint16).tofile(tmp_path / "a.npy")
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(lines.encode()))
    with pytest.raises(UserError, match=said) as error:
        open_files(tmp_path, seq_len=64).segments(0)
    assert error.value.where == str(tmp_path / "a.csv.gz")


def test_metadata_may_tell_of_no_document(tmp_path):
    np.arange(130, dtype=np.uint16).tofile(tmp_path / "a.npy")
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b""))
    assert open_files(tmp_path, seq_len=64).segments(1)["length"].tolist() == [65]


def test_arrays_with_a_header_are_not_taken_for_tokens(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(130))
    with pytest.raises(UserError, match="array with a header"):
        open_files(tmp_path, seq_len=64)


# nanotron


@pytest.mark.parametrize("to", ["nanotron", "olmo-core"])
def test_documents_that_are_known_by_their_bounds_alone_keep_them(to, exports, sequences, tmp_path):
    """From one format's own index to the other's, without headrace's segments."""
    ours = sequences[0].open()
    source = tmp_path / "source"
    shutil.copytree(exports["olmo-core" if to == "nanotron" else "nanotron"] / "one", source)
    sequence = open_files(source, seq_len=64)
    out = write(SequenceExport(to, (Exported.of(source, None, 64),), SMALL), tmp_path / "out", workers=0)
    n = len(ours)
    for opened in (open_files(out).verified(), open_files(out / "source", seq_len=64)):
        assert (opened.rows(0, n) == ours.rows(0, n)).all()
        assert (opened.targets(0, n) == sequence.targets(0, n)).all()
        for row in range(n):
            assert opened.segments(row).dtype.names == ("start", "length", "kind")
            assert (opened.segments(row) == sequence.segments(row)).all()
            assert (opened.segments(row)["start"] == ours.segments(row)["start"]).all()


@pytest.mark.parametrize("to", ["nanotron", "olmo-core", "megatron"])
def test_a_flipped_bit_in_any_file_is_seen(to, exports, tmp_path):
    out = tmp_path / "out"
    shutil.copytree(exports[to], out)
    files = [out / entry["name"] for entry in Artifact.open(out).entries if entry["name"].startswith("one")]
    assert len({file.suffix for file in files}) >= 3
    for file in files:
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
        sequence = open_files(out, "one").verified()
        with pytest.raises(UserError, match="damaged") as error:
            sequence.rows(0, len(sequence))
        assert error.value.where == str(file)
        data[len(data) // 2] ^= 1
        file.write_bytes(data)


def test_rows_of_which_nothing_more_is_known_are_written_without_it(exports, sequences, tmp_path):
    """Rows that come from files without a manifest: no segments, no documents, no tokenizer's name."""
    rows = np.random.default_rng(0).integers(0, 50_000, (10, 65)).astype(np.uint16)
    rows.tofile(tmp_path / "a.ds")
    sequence = open_files(tmp_path, seq_len=64)
    for name in exports:
        ctx = TaskContext(tmp_path, SequenceExport(name, sequences, WHOLE), "write", 0)
        part = Part(SEQUENCES[name].file("one", 0), 0, 0, 10)
        assert SEQUENCES[name].write(ctx, sequence, part) == {"masked": False, "told": False}
        assert len(ctx.files) == (2 if name == "nanotron" else 1)
        assert np.fromfile(ctx.folder / ctx.files[0]["name"], np.uint16).tolist() == rows.reshape(-1).tolist()


def test_datatrove_reads_rows_and_positions(exports, sequences):
    dataset = pytest.importorskip("datatrove.utils.dataset")
    for one in sequences:
        ours, folder = one.open(), exports["nanotron"] / one.name
        theirs = dataset.DatatroveFolderDataset(
            str(folder), ours.seq_len, token_size=ours.dtype.itemsize, return_positions=True
        )
        n = len(ours)
        assert len(theirs) == n
        for row in range(n):
            item = theirs[row]
            assert (item["input_ids"].numpy() == ours.rows(row, row + 1)[0]).all()
            expected = np.concatenate([np.arange(segment["length"]) for segment in ours.segments(row)])
            assert (item["positions"].numpy() == expected).all()


def test_files_are_those_of_datatroves_writer(exports, sequences, tmp_path):
    """Byte for byte, with the names that it gives."""
    tokenizer = pytest.importorskip("datatrove.pipeline.tokens.tokenizer")
    for one in sequences[:2]:
        ours, folder = one.open(), exports["nanotron"] / one.name
        file = tokenizer.TokenizedFile(
            str(tmp_path),
            "data-00000.ds",
            save_loss_metadata=True,
            save_final_metadata=True,
            tokenizer_name_or_path=ours.manifest["tokenizer"],
            token_size=ours.dtype.itemsize,
        )
        loss = np.pad(learned(ours), ((0, 0), (1, 0)))
        for row in range(40):
            for segment in ours.segments(row):
                part = slice(segment["start"], segment["start"] + segment["length"])
                file.write(ours.rows(row, row + 1)[0, part].tolist(), loss[row, part])
        file.close()
        for suffix in ("", ".index", ".loss", ".metadata"):
            name = f"data-00000.ds{suffix}"
            assert (folder / name).read_bytes() == (tmp_path / name).read_bytes()


@given(st.integers(0, 10**18) | st.builds(lambda n, p: n * 10**p, st.integers(990, 1010), st.integers(0, 15)))
def test_counts_for_people_are_humanizes(tokens):
    humanize = pytest.importorskip("humanize")
    assert for_people(tokens) == humanize.metric(tokens, unit="T")


@pytest.mark.parametrize(
    ("suffix", "content", "said"),
    [
        ("index", np.array([65, 64, 130], "<u8").tobytes(), "go back"),
        ("index", np.array([65, 2**63], "<u8").tobytes(), "ends at token"),
        ("index", b"123", "within a number"),
        ("metadata", b"gpt2|3\n130", "3"),
        ("metadata", b"gpt2|2\n131", "131"),
        ("metadata", b"x" * 5000, "more than"),
        ("loss", bytes(129), "129 bytes"),
        ("loss", b"\2" * 130, "neither 0 nor 1"),
    ],
)
def test_what_lies_beside_is_checked(suffix, content, said, tmp_path):
    np.arange(130, dtype=np.uint16).tofile(tmp_path / "a.ds")
    (tmp_path / f"a.ds.{suffix}").write_bytes(content)
    with pytest.raises(UserError, match=said) as error:
        read(tmp_path)
    assert error.value.where == str(tmp_path / f"a.ds.{suffix}")


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32, np.uint64])
@pytest.mark.parametrize("suffix", [".ds", ".npy"])
def test_the_width_of_ids_is_found(dtype, suffix, tmp_path):
    ids = np.random.default_rng(0).integers(0, 50_000, 650).astype(dtype)
    ids.tofile(tmp_path / f"a{suffix}")
    sequence = open_files(tmp_path, seq_len=64)
    assert sequence.dtype == min(np.dtype(dtype), np.dtype(np.uint32))
    assert (sequence.rows(0, 10).reshape(-1) == ids).all()
    assert sequence.segments_in(0, 10) is None


def test_segments_of_ours_that_do_not_fill_their_rows_are_refused(exports):
    for path in (exports["nanotron"] / "two" / "data-00000.ds.segments", exports["megatron"] / "two.segments"):
        whole = path.read_bytes()
        for damaged in (whole[:-1], whole[:-25], whole[:4] + b"\1\0\0\0" + whole[8:], b""):
            path.write_bytes(damaged)
            with pytest.raises(UserError) as error:
                open_files(path.parents[path.name.startswith("data")], "two").segments_in(0, 40)
            assert error.value.where == str(path)
        path.write_bytes(whole)
