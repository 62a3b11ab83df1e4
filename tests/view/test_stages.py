"""The pages of stages, and the log they read on."""

from __future__ import annotations

import math

import numpy as np
import orjson
from hypothesis import given
from hypothesis import strategies as st

from headrace.report.gather import gather
from headrace.train.metrics import FILE, read
from headrace.view.curves import CurveReader
from headrace.view.pages.stage import POINTS, thinned


def test_tokens_and_fim_are_the_reports(client, viewed):
    """Also what is counted in the background."""
    facts = gather(viewed)
    while (told := client.get("/stages?format=json").json())["counting"]:
        pass
    for shown, stage in zip(told["stages"], facts.stages, strict=True):
        assert [(s["name"], s["tokens"], s["fim"]) for s in shown["sources"]] == [
            (s.name, s.tokens, s.fim) for s in stage.sources
        ]


def test_steps_are_those_of_the_log(client, target):
    """Loss and learning rate of each step, also of some steps only; a click leads to each of them."""
    lines = read(target.artifact("model", "stage2").file_path(FILE))
    told = client.get("/stages/stage2?format=json").json()
    assert told["step"] == [line["step"] for line in lines]
    assert told["values"]["loss"] == [line["loss"] for line in lines]
    assert told["values"]["learning_rate"] == [line["learning_rate"] for line in lines]
    for name, column in told["by_source"].items():
        assert column == [line["sources"].get(name, {}).get("loss") for line in lines]
    some = client.get("/stages/stage2?first=2&last=4&format=json").json()
    assert some["step"] == [2, 3, 4]
    page = client.get("/stages/stage2?first=2&last=4").text
    assert all(f'href="/stages/stage2/steps/{step}"' in page for step in (2, 3, 4))
    assert 'href="/stages/stage2/steps/1"' not in page


def test_wrong_stages_and_steps(client):
    """Answered in words."""
    answer = client.get("/stages/stage22?format=json")
    assert answer.status_code == 404
    assert "stage2" in answer.json()["fix"]
    assert client.get("/stages/stage2?first=0&format=json").status_code == 400
    beyond = client.get("/stages/stage2?first=99&last=100&format=json").json()
    assert beyond["step"] == [6]


LINES = st.lists(
    st.tuples(
        st.integers(1, 12),
        st.one_of(st.none(), st.floats(0, 20)),
        st.dictionaries(st.sampled_from(["a", "b"]), st.floats(0, 20), max_size=2),
        st.sampled_from([None, "loss"]),
    ),
    max_size=20,
)


@given(LINES, st.lists(st.integers(0, 2000), max_size=4))
def test_a_log_is_read_on(tmp_path_factory, lines, cuts):
    """Read in any pieces, with steps that come again after a rollback: as if read at once by the plain reader."""
    path = tmp_path_factory.mktemp("log") / FILE
    data = b"".join(
        orjson.dumps(
            {"step": step, "loss": loss, "sources": {n: {"loss": v} for n, v in by.items()}, "skipped": why},
            option=orjson.OPT_APPEND_NEWLINE,
        )
        for step, loss, by, why in lines
    )
    reader = CurveReader()
    for cut in [*sorted(min(cut, len(data)) for cut in cuts), len(data)]:
        path.write_bytes(b"") if not path.exists() else None
        with open(path, "r+b") as file:
            file.write(data[:cut])
        found = reader.read(path)
    expected: dict[int, tuple] = {}
    for step, loss, by, why in lines:
        expected = {k: v for k, v in expected.items() if k < step}
        expected[step] = loss, by, why
    assert found.step.tolist() == list(expected)
    for i, (loss, by, _) in enumerate(expected.values()):
        assert found.values["loss"][i] == loss or (loss is None and math.isnan(found.values["loss"][i]))
        for name, column in found.by_source.items():
            assert column[i] == by.get(name) or (name not in by and math.isnan(column[i]))
    assert found.skipped == {step: why for step, (_, _, why) in expected.items() if why is not None}


def test_a_log_that_was_cut_back_is_read_again(tmp_path):
    """A resumed training cuts its log to its checkpoint and writes on."""
    path = tmp_path / FILE
    one = b'{"step":1,"loss":1.0}\n'
    path.write_bytes(one + b'{"step":2,"loss":2.0}\n')
    reader = CurveReader()
    assert reader.read(path).step.tolist() == [1, 2]
    path.write_bytes(one)
    assert reader.read(path).step.tolist() == [1]
    path.write_bytes(one + b'{"step":2,"loss":3.0}\n{"step":3,"loss":4.0}\n')
    assert reader.read(path).values["loss"].tolist() == [1, 3, 4]
    path.write_bytes(one + b'{"step":2,"loss":5.0}\n{"step":3,"loss":6.0}\n{"step":4,"loss":7.0}\n')
    assert reader.read(path).values["loss"].tolist() == [1, 5, 6, 7]
    path.unlink()
    assert reader.read(path).step.tolist() == []


def test_many_steps_become_means(tmp_path):
    """Means of stretches, without what is not known."""
    n = 10 * POINTS
    path = tmp_path / FILE
    path.write_bytes(b"".join(b'{"step":%d,"loss":%d}\n' % (i + 1, i % 10) for i in range(n)))
    found = thinned(CurveReader().read(path))
    assert found.step.tolist() == list(range(10, n + 1, 10))
    np.testing.assert_allclose(found.values["loss"], 4.5)
    assert np.isnan(found.values["tokens"]).all()
