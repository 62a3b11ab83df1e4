"""Facts of a made-up run with awkward names and texts, for the tests of what is drawn from facts."""

from __future__ import annotations

import math

from headrace.report.facts import (
    Environment,
    Example,
    LicenceFacts,
    Place,
    RunFacts,
    SourceFacts,
    StageFacts,
    StageSourceFacts,
    TrainingFacts,
    Work,
)
from headrace.report.samples import Generated, Piece, SampleRow

EVIL = "<script>alert('1')</script> & \"more\" \x00 \x1b[31m"


def training(steps: int, start: float, end: float) -> TrainingFacts:
    loss = [end + (start - end) * math.exp(-5 * i / steps) + 0.05 * math.sin(7.1 * i) for i in range(steps)]
    held = {"python": [(0, start + 0.2), (steps, end + 0.1)], "docs": [(0, start), (steps, end + 0.3)]}
    samples = [
        Generated("def add(a, b):\n", None, "    return a + b\n" + EVIL),
        Generated(
            "def area(r):\n", "    return value\n", "    value = 3.14 * r * r\n", "    value = pi * r**2\n", "python"
        ),
    ]
    return TrainingFacts(
        steps=steps,
        tokens=steps * 4096,
        loss_tokens=steps * 4000,
        skipped=0,
        seconds=steps * 0.7,
        parameters=6_823_936,
        step=list(range(1, steps + 1)),
        tokens_at=[4096 * (i + 1) for i in range(steps)],
        loss=loss,
        first=loss[0],
        last=sum(loss[-max(1, steps // 10) :]) / max(1, steps // 10),
        held_out=held,
        samples=samples,
        infilling={"line": (3, 16), "span": (1, 16)},
        learning_rate=[3e-4 * min(1, (i + 1) / 20) * (1 - 0.9 * i / steps) for i in range(steps)],
        grad_norm=[math.nan if i == 30 else 9.0 if i == 50 else 1 + math.sin(i) / 3 for i in range(steps)],
        by_source={
            "python": [x - 0.2 for x in loss],
            "docs": [x + 0.2 if i % 3 else math.nan for i, x in enumerate(loss)],
        },
        skipped_at=["not finite" if i == 30 else "gradient norm" if i == 50 else None for i in range(steps)],
        tokens_per_second=[6000 + 500 * math.sin(i / 9) for i in range(steps)],
        waited=[0.002 + 0.001 * math.cos(i) for i in range(steps)],
    )


def row() -> SampleRow:
    pieces = [
        Piece("docs", "plain", 0, "0a" * 16, "guide.md:0", 17, [("The end of a guide. ", True, False)]),
        Piece(
            "python",
            "fim-psm",
            1,
            "1b" * 16,
            "lib/<b>.py:0",
            0,
            [("<|fim_prefix|>", True, True), ("def f(x):\n", True, False), (EVIL, False, False)],
        ),
        Piece("", "padding", 0, "", "", 0, []),
    ]
    return SampleRow(0, 5, pieces, True)


def facts(trained: bool = True) -> RunFacts:
    sources = [
        SourceFacts(
            "python",
            1812,
            1801,
            11_987_112,
            11_900_001,
            11,
            3,
            1550,
            {"duplicate": 120, "short": 99, "contaminated": 2, "filter:max_line": 30},
            {"train": 1520, "validation": 30},
            3_400_123,
            9_000_000,
            removed_bytes={"duplicate": 900_000, "short": 9_000, "contaminated": 123_456, "filter:max_line": 1_234_567},
            lengths=[0, 0, 3, *[100] * 17, 98],
            kept_lengths=[0, 0, 0, *[90] * 17, 20],
        ),
        SourceFacts("web", 401, 401, 3_999_001, 3_900_000, 0, 0, 361, {"duplicate": 40}, {"train": 361}, 1_234_001),
        SourceFacts(
            "docs",
            2210,
            15_120,
            9_998_000,
            9_900_100,
            1,
            0,
            9_100,
            {"short": 4_020, "duplicate": 2_000},
            {"train": 8_900, "validation": 200},
            2_312_001,
        ),
        SourceFacts("chat", 900, 4_000, 3_999_000, 3_990_000, 0, 0, 3_800, {"short": 200}, {"train": 3_800}, 912_000),
    ]
    stages = [
        StageFacts(
            "stage1",
            2211,
            512,
            1_132_032,
            0,
            311,
            [StageSourceFacts("docs", 4_450, 4_450, (0, 0.5), 1, 1_132_343, 1_132_342)],
            8,
            training=training(30, 9.1, 7.0) if trained else None,
        ),
        StageFacts(
            "stage2",
            15_540,
            512,
            7_956_480,
            0,
            12,
            [
                StageSourceFacts("docs", 4_450, 4_450, (0.5, 1), 1, 1_130_001, 1_130_000),
                StageSourceFacts("python", 1_520, 3_040, (0, 1), 2, 6_826_491, 6_826_400, 0.901, 1_370, 1_366),
            ],
            8,
            [row()],
            training(60, 6.9, 4.4) if trained else None,
        ),
        StageFacts(
            "stage3a",
            1_800,
            512,
            921_600,
            421,
            0,
            [StageSourceFacts("chat", 3_800, 3_800, (0, 1), 1, 921_179, 310_004)],
            8,
            training=training(12, 4.5, 3.9) if trained else None,
        ),
    ]
    examples = [
        Example(
            "duplicate",
            Place("1b" * 16, "docs", "copy.md:0", "Almost the same text. " + EVIL),
            {"kept_id": "2c" * 16, "jaccard": 0.913},
            Place("2c" * 16, "python", "original.py:0", "Almost the same words."),
        ),
        Example("short", Place("3d" * 16, "docs", "tiny.txt:0", "tiny"), {"characters": 4, "limit": 200}),
        Example(
            "contaminated",
            Place("4e" * 16, "python", "solutions.py:0", "before has_close_elements after", [(7, 25)]),
            {"benchmark": "humaneval", "item": "HumanEval/0", "text": "has_close_elements"},
        ),
    ]
    work = [
        Work("documents-0123abcd", "documents", None, 9.4, 14.2, 21_322, 9_000_000, 12, 310_000_000, 0),
        Work("model-stage1-89abcdef", "model", "stage1", 61.2, 60.1, 0, 27_000_000, 1, 910_000_000, 1),
    ]
    return RunFacts(
        run="runs/demo",
        name="demo <i>",
        recipe="name: demo\nseed: 1\n",
        sources=sources,
        duplicates={("docs", "docs"): 1_900, ("docs", "python"): 100, ("python", "python"): 120, ("web", "web"): 40},
        holdout={("docs", "docs"): 7},
        references=None,
        contamination={("humaneval", "python"): 2},
        examples=examples,
        vocabulary=8192,
        stages=stages,
        licences=[
            LicenceFacts("PSF-2.0", 1550, 3_400_123),
            LicenceFacts("", 13_261, 4_458_002),
        ],
        work=work,
        environments=[
            Environment([1, 3], 1, 2, 2_000_000_000, {"headrace": "0.1.0", "python": "3.12.9"}),
            Environment(
                [4],
                1,
                7,
                3_000_000_000,
                {"headrace": "0.1.1", "numpy": "2.2.1"},
                f"A processor {EVIL}",
                6,
                16,
                33_000_000_000,
                ["A card", "A card"],
            ),
        ],
        base=160_000_000,
        seconds=201.4,
        report="runs/demo/report/index.html",
    )
