from __future__ import annotations

import os
import subprocess
import sys
import time

SHOW = "import headrace, numba, os; print(os.environ.get('NUMBA_CACHE_DIR'), numba.config.CACHE_DIR)"


def shown(code: str, **environment: str) -> list[str]:
    kept = {k: v for k, v in os.environ.items() if k != "NUMBA_CACHE_DIR"}
    return subprocess.run(
        [sys.executable, "-c", code], env=kept | environment, capture_output=True, text=True
    ).stdout.split()


def test_kernels_are_kept_in_a_folder_of_these_sources(tmp_path):
    stated, used = shown(SHOW, XDG_CACHE_HOME=str(tmp_path))
    assert stated == used
    assert stated.startswith(str(tmp_path / "headrace" / "kernels"))
    assert shown(SHOW, XDG_CACHE_HOME=str(tmp_path)) == [stated, used]


def test_numba_imported_first_is_told_too(tmp_path):
    stated, used = shown("import numba; " + SHOW, XDG_CACHE_HOME=str(tmp_path))
    assert stated == used


def test_a_place_stated_by_the_user_is_kept(tmp_path):
    assert shown(SHOW, NUMBA_CACHE_DIR=str(tmp_path)) == [str(tmp_path)] * 2


def test_folders_long_out_of_use_are_removed(tmp_path):
    old, young = tmp_path / "headrace" / "kernels" / "old", tmp_path / "headrace" / "kernels" / "young"
    old.mkdir(parents=True)
    young.mkdir()
    os.utime(old, (time.time() - 31 * 86_400,) * 2)
    shown(SHOW, XDG_CACHE_HOME=str(tmp_path))
    assert not old.exists()
    assert young.exists()


def test_any_changed_source_changes_the_folder(tmp_path, monkeypatch):
    from headrace import kernel_cache

    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "kernel.py").write_text("x = 1\n")
    monkeypatch.setattr(kernel_cache, "__file__", str(tmp_path / "kernel_cache.py"))
    before = kernel_cache.sources_state()
    assert kernel_cache.sources_state() == before
    (tmp_path / "a" / "kernel.py").write_text("x = 22\n")
    assert kernel_cache.sources_state() != before
