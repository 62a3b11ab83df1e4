import importlib.metadata
import os
import platform

import psutil

from headrace.environment import gpus, hardware, processor, versions


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
