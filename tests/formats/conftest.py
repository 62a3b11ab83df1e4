"""Sequences to export: short rows, padding, masks, infilling, several shards."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

# ``datasets`` asks the hub about folders of this machine, too.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).parents[1] / "sequence"))

from small_build import CHANGED, build, of_stage

from headrace.formats.format import Exported
from headrace.recipe.stages import Stage
from headrace.sequence import layout


@pytest.fixture(scope="session")
def sequences(tmp_path_factory: pytest.TempPathFactory) -> tuple[Exported, ...]:
    """Three stages of a run: infilling and conversations, best fit with padding, weights."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layout, "SHARD_BYTES", 20_000)
        run = tmp_path_factory.mktemp("run")
        made = [build(run, of_stage(Stage.model_validate(keys))) for keys in CHANGED]
    return tuple(
        Exported(str(one.artifact.manifest.stage), str(one.path), one.artifact.manifest.identity) for one in made
    )
