import importlib.metadata
import os
import platform

import psutil
import pytest

from headrace.environment import gpus, hardware, multiplies_bfloat16, processor, versions


def test_versions_are_those_of_what_is_imported():
    import numpy
    import pyarrow

    found = versions()
    assert (found["python"], found["numpy"], found["pyarrow"]) == (
        platform.python_version(),
        numpy.__version__,
        pyarrow.__version__,
    )
    assert all(found[name] == importlib.metadata.version(name) for name in found if name != "python")


def test_hardware_is_what_this_process_can_use():
    found = hardware()
    assert 1 <= found["cores"] <= found["cores_in_all"] == os.cpu_count()
    assert 0 < found["memory"] <= psutil.virtual_memory().total
    assert found["processor"]


def test_models_are_read_as_the_kernel_and_the_driver_tell_them(tmp_path):
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nmodel name\t: A: fast one\n\nmodel name\t: Another\n")
    assert processor(tmp_path / "cpuinfo") == "A: fast one"
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nBogoMIPS\t: 50\n")  # ARM names no model
    assert processor(tmp_path / "cpuinfo") in (platform.processor(), platform.machine())
    assert gpus(tmp_path / "none") == []
    for number, text in enumerate(("Model: \t\t A card\nIRQ: 1\n", "Model: \t\t A card\n", "IRQ: 2\n")):
        (tmp_path / "gpus" / f"0000:0{number}:00.0").mkdir(parents=True)
        (tmp_path / "gpus" / f"0000:0{number}:00.0" / "information").write_text(text)
    assert gpus(tmp_path / "gpus") == ["A card", "A card"]


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("flags\t\t: fpu sse2 avx2 fma", False),
        ("flags\t\t: fpu avx2 avx512f avx512bw avx512dq avx512vl", True),
        ("Features\t: fp asimd bf16", True),
        ("Features\t: fp asimd", False),
        ("nothing that is known", True),
    ],
)
def test_which_processors_multiply_bfloat16(tmp_path, told, expected):
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{told}\n")
    assert multiplies_bfloat16(tmp_path / "cpuinfo") == expected
    assert multiplies_bfloat16(tmp_path / "none")


def test_torch_says_the_same_of_this_processor():
    torch = pytest.importorskip("torch")
    assert multiplies_bfloat16() == torch.ops.mkldnn._is_mkldnn_bf16_supported()
