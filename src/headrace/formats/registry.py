"""The formats by the name that ``--to`` takes."""

from __future__ import annotations

from headrace.formats.format import SequenceFormat
from headrace.formats.hdf5 import HDF5, VariableHDF5
from headrace.formats.hub import Hub

SEQUENCES: dict[str, SequenceFormat] = {format.name: format for format in (HDF5(), VariableHDF5(), Hub())}
