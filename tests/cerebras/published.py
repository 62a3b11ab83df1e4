"""CrystalCoder's three published params files, small enough to train on."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import yaml

L, VOCAB, WIDTH = 16, 96, 16
BASE_WIDTH = 4  # so that decoder_kernel is 1 / 4


def published(shared: Path, phase: int) -> dict[str, Any]:
    """A file as published."""
    return yaml.safe_load((shared / f"fixtures/crystalcoder/params_phase{phase}.yaml").read_text())


def tiny(shared: Path, phase: int, data: Path) -> dict[str, Any]:
    """The same with other sizes and places alone; every other key and value is the published one.

    Args:
        shared: the folder of fixtures.
        phase: 1, 2 or 3.
        data: the folder in the place of ``/path/to``.
    """
    params = copy.deepcopy(published(shared, phase))
    sizes = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_heads": 2, "filter_size": 24, "rotary_dim": 4}
    params["model"] |= sizes | {"vocab_size": VOCAB, "max_position_embeddings": L}
    for name in ("train_input", "eval_input"):
        params[name] |= {"batch_size": 4, "vocab_size": VOCAB}
        for entry in params[name].get("mixture", [params[name]]):
            entry["data_dir"] = moved(entry["data_dir"], data)
    params["runconfig"] |= {"max_steps": 6, "eval_steps": 2, "checkpoint_steps": 2, "log_steps": 1}
    return params


def moved(place: str | list[str], data: Path) -> str | list[str]:
    """A folder of the published file below another."""
    return [moved(one, data) for one in place] if isinstance(place, list) else place.replace("/path/to", str(data))


def write_data(params: dict[str, Any], rows: int = 40) -> None:
    """The folders that a file names, in the published layout, by h5py alone: int32 (N, 3, L), gzip, a chunk a row."""
    for name in ("train_input", "eval_input"):
        for entry in params[name].get("mixture", [params[name]]):
            folders = entry["data_dir"]
            for folder in [folders] if isinstance(folders, str) else folders:
                path = Path(folder) / "data-00000.h5"
                if path.exists():
                    continue
                path.parent.mkdir(parents=True, exist_ok=True)
                with h5py.File(path, "w") as file:
                    tokens = made(folder, rows)
                    block = np.ones((rows, 3, L), dtype=np.int32)
                    block[:, 0], block[:, 2] = tokens[:, :-1], tokens[:, 1:]
                    block[::5, 1, : L // 2] = 0
                    file.attrs["n_examples"] = rows
                    file.create_dataset("data", data=block, dtype="i4", chunks=(1, 3, L), compression="gzip")


def made(folder: str, rows: int) -> np.ndarray:
    """int64[rows, L + 1]: rows that count upwards, from the number of the row on, in the way of their folder."""
    step = 1 + len(Path(folder).name) % 5
    return (np.arange(rows)[:, None] * 7 + np.arange(L + 1)[None] * step) % VOCAB


def save(params: dict[str, Any], path: Path) -> Path:
    """Write a file."""
    path.write_text(yaml.safe_dump(params, sort_keys=False))
    return path
