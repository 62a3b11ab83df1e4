"""What is found wrong with documents."""

from __future__ import annotations

import random

from headrace.evaluate.sandbox import Job
from headrace.recipe.synthetic import Synthetic
from headrace.synthetic.items import Made, Seed
from headrace.synthetic.judge import Judge, job_of, looping


def config(**more):
    return Synthetic.model_validate(
        {"method": "files", "count": 9, "server": {"url": "http://x/v1", "model": "m"}, **more}
    )


def text(seed, words=80):
    rng = random.Random(seed)
    return " ".join(f"word{rng.randrange(10**6)}" for _ in range(words))


def test_a_loop_at_the_end_is_found_whatever_its_length():
    rng = random.Random(5)
    for period in (1, 2, 7, 30, 200, 600):
        loop = "".join(rng.choice("abcdefghij ") for _ in range(period - 1)) + "x"
        found = looping(text(1) + loop * max(6, 250 // period + 1))
        assert found is not None
        assert found["times"] >= 5


def test_repetition_that_is_no_loop():
    assert looping(text(1, 600)) is None
    assert looping("\n".join(f"| {i} | {i * i} |" for i in range(200))) is None
    assert looping("for x in y:\n    pass\n" * 4) is None
    assert looping("") is None


def test_order_of_findings_and_their_evidence():
    judge = Judge(config(similar=0.8))
    seed = Seed("s" * 32, 0, text(0), "a")
    first, again = Made(text(1)), Made(text(1))
    near = Made(text(1) + " and two more")
    copied = Made(text(0)[:400] + " " + text(2, 8))
    looped = Made(text(3) + "na " * 200)
    for number, made in enumerate([first, again, near, copied, looped]):
        judge.judge(made, [seed], number)
    assert first.finding is None
    assert (again.finding, again.evidence) == ("duplicate", {"of": 0})
    assert near.finding == "similar"
    assert near.evidence["to"] == 0
    assert near.evidence["rouge_l"] > 0.9
    assert copied.finding == "copied"
    assert copied.evidence["seed"] == seed.id
    assert copied.evidence["share"] > 0.7
    assert looped.finding == "repeats"


def test_what_is_not_kept_is_not_compared_with():
    judge = Judge(config(similar=0.7))
    seed = Seed("s" * 32, 0, text(0), "a")
    copied, like_it = Made(text(0)), Made(text(0) + " " + text(9, 20))
    judge.judge(copied, [seed], 0)
    judge.judge(like_it, [Seed("t" * 32, 1, text(5), "a")], 1)
    assert copied.finding == "copied"
    assert like_it.finding is None


def test_jobs():
    job = job_of("def twice(x):\n    return 2 * x\nhidden = 3\n", "assert twice(2) == 4\n")
    assert isinstance(job, Job)
    assert job.names == ("twice",)
    assert "not Python" in job_of("def (", "assert True")
    assert "not Python" in job_of("x = 1", "assert x ==")
    assert job_of("x = 1", "x") == "the tests assert nothing"
    assert job_of("x = 1", "assert 1 == 1") == "the tests use nothing of the program"
