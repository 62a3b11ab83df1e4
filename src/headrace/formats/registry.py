"""The formats by the name that ``--to`` takes."""

from __future__ import annotations

from headrace.formats.array_record import ArrayRecord
from headrace.formats.arrow import Arrow
from headrace.formats.documents import DocumentFormat
from headrace.formats.format import SequenceFormat
from headrace.formats.hdf5 import HDF5, VariableHDF5
from headrace.formats.hub import Hub
from headrace.formats.jsonl import JsonLines
from headrace.formats.litdata import LitData, LitDataTokens
from headrace.formats.mds import MDS
from headrace.formats.megatron import Megatron
from headrace.formats.nanotron import Nanotron
from headrace.formats.olmo import OLMoCore
from headrace.formats.packed_jsonl import PackedJsonLines
from headrace.formats.parquet_documents import ParquetDocuments
from headrace.formats.slimpajama import SlimPajama
from headrace.formats.webdataset import WebDataset

SEQUENCES: dict[str, SequenceFormat] = {
    format.name: format
    for format in (
        HDF5(),
        VariableHDF5(),
        Hub(),
        Arrow(),
        Megatron(),
        OLMoCore(),
        Nanotron(),
        PackedJsonLines(),
        MDS(),
        LitData(),
        LitDataTokens(),
        WebDataset(),
        ArrayRecord(),
    )
}

DOCUMENTS: dict[str, DocumentFormat] = {
    format.name: format for format in (JsonLines("zst"), JsonLines("gz"), ParquetDocuments(), SlimPajama())
}
