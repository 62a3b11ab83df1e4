"""The client against a real server on loopback that misbehaves on purpose."""

from __future__ import annotations

import asyncio
import heapq
import json
import random
import socket
import time
from contextlib import suppress
from types import SimpleNamespace

import pytest
from model_server import ModelServer, Plain, completion, number_of
from pydantic import ValidationError

from headrace.errors import UserError
from headrace.recipe.synthetic import Server
from headrace.synthetic.answers import Answers
from headrace.synthetic.client import MOST_BODY, Client, _duration, _retry_after
from headrace.synthetic.limits import Allowance, Concurrency
from headrace.synthetic.requests import Rubbish, read_reply, request_of

KEY = "sk-a-secret-that-nobody-may-see"


def section(url, **more):
    return Server.model_validate({"url": url, "model": "m", "backoff": 0.005, "timeout": 60, **more})


def ask(server, tmp_path, prompts, **more):
    """The replies to prompts, asked all at once, and the client."""
    config = section(server.url, **more)

    async def all_of_them():
        with Answers(tmp_path / "answers" / "hq.jsonl") as answers:
            async with Client(config, answers, "synthetic.hq.server") as client:
                tasks = [client.ask(request_of(config, "", prompt, 1)) for prompt in prompts]
                return await asyncio.gather(*tasks), client

    return asyncio.run(all_of_them())


def echo(prompt, body):
    return f"answer to {prompt}"


def test_many_requests_at_once_are_answered_each_by_its_own(tmp_path):
    prompts = [f"question {i}" for i in range(200)]
    with ModelServer(echo, delay=0.01) as server:
        replies, client = ask(server, tmp_path, prompts)
        assert [reply.text for reply in replies] == [f"answer to {prompt}" for prompt in prompts]
        assert server.most > 1
        assert (client.asked, client.input, client.output) == (200, 2000, 4000)
        assert not client.trouble


def test_no_more_requests_at_once_than_allowed(tmp_path):
    with ModelServer(echo, delay=0.005) as server:
        ask(server, tmp_path, [str(i) for i in range(60)], concurrency=3)
        assert server.most <= 3


FAULTS = {
    "HTML": Plain(body=b"<html><body>502 Bad Gateway</body></html>"),
    "no JSON": Plain(body=b'{"choices": [{"mess'),
    "nothing": Plain(body=b""),
    "another shape": Plain(body=b'{"result": "yes"}'),
    "an error with status 200": Plain(body=b'{"error": {"message": "overloaded"}}'),
    "no choices": Plain(body=b'{"choices": []}'),
    "a list": Plain(body=b"[1, 2]"),
    "no text": Plain(body=completion(None)),
    "not UTF-8": Plain(body=b"\xff\xfe\x00garbage"),
    "deep nesting": Plain(body=b"[" * 200_000),
    "a long number": Plain(body=b'{"choices": ' + b"9" * 10_000 + b"}"),
    "too large": Plain(body=b" " * (MOST_BODY + 1)),
    "cut off": Plain(body=completion("long " * 1000), cut=500),
    "no content": Plain(204),
    "500": Plain(500, b"oops"),
    "503 with a wait": Plain(503, b"busy", {"retry-after": "0.02"}),
    "429": Plain(429, b'{"error": {"message": "slow down"}}', {"retry-after": "0"}),
    "gzip that is none": Plain(body=b"\x1f\x8bxxxx", headers={"content-encoding": "gzip"}),
    "a stall": Plain(body=completion("late"), wait=30),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_counted_and_the_request_repeated(name, tmp_path):
    """Every third request fails twice in this way before it is answered."""

    def fault(body, before):
        return FAULTS[name] if before < 2 and number_of(body) % 3 == 0 else None

    prompts = [f"question {i}" for i in range(12)]
    with ModelServer(echo, fault) as server:
        replies, client = ask(server, tmp_path, prompts, timeout=3 if name == "a stall" else 60)
        assert [reply.text for reply in replies] == [f"answer to {prompt}" for prompt in prompts]
        faulty = sum(number_of(body) % 3 == 0 for body in {json.dumps(b): b for b in server.bodies}.values())
    assert faulty
    assert client.trouble.total() == 2 * faulty
    with Answers(tmp_path / "answers" / "hq.jsonl") as answers:
        assert answers.trouble == client.trouble


def test_a_request_that_never_succeeds_is_given_up_if_others_do(tmp_path):
    def fault(body, before):
        return Plain(500, b"cannot") if "poison" in body["messages"][-1]["content"] else None

    with ModelServer(echo, fault) as server:
        replies, client = ask(server, tmp_path, ["poison", *map(str, range(20))], retries=3)
        assert replies[0].failed == "HTTP 500: cannot"
        assert all(reply.failed is None for reply in replies[1:])
        assert client.given_up == 1
        assert sum("poison" in body["messages"][-1]["content"] for body in server.bodies) == 4
        with Answers(tmp_path / "answers" / "hq.jsonl") as answers:
            key = request_of(section(server.url), "", "poison", 1).key
            assert answers.reply(key).failed == "HTTP 500: cannot"


def test_a_request_that_is_refused_for_good_is_not_repeated(tmp_path):
    def fault(body, before):
        return Plain(400, b'{"error": {"message": "too long"}}') if "poison" in str(body) else None

    with ModelServer(echo, fault) as server:
        replies, _ = ask(server, tmp_path, ["poison"])
        assert replies[0].failed == "HTTP 400: too long"
        assert sum("poison" in str(body) for body in server.bodies) == 1


@pytest.mark.parametrize("status", [500, 400, 429, 200])
def test_a_server_that_answers_nothing_stops_the_run(status, tmp_path):
    with ModelServer(echo, lambda body, before: Plain(status, b"no")) as server:
        with pytest.raises(UserError, match="The server gives no answers") as error:
            ask(server, tmp_path, [str(i) for i in range(5)], retries=2)
        assert "run again" in str(error.value)


@pytest.mark.parametrize(("status", "mend"), [(401, "key"), (403, "access"), (402, "account"), (404, "address")])
def test_what_no_repetition_mends_stops_the_run_at_once(status, mend, tmp_path):
    with ModelServer(echo, lambda body, before: Plain(status, b'{"error": "no"}')) as server:
        with pytest.raises(UserError) as error:
            ask(server, tmp_path, ["a"])
        assert mend in error.value.fix
        assert len(server.bodies) == 2  # the request and a trivial question, neither of them repeated


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_firewall_that_dislikes_a_prompt_costs_that_request_alone(status, tmp_path):
    def fault(body, before):
        return Plain(status, b"blocked") if "poison" in str(body) else None

    with ModelServer(echo, fault) as server:
        replies, client = ask(server, tmp_path, ["poison", *map(str, range(8))])
    assert [reply.failed for reply in replies] == [f"HTTP {status}: blocked", *[None] * 8]
    assert client.given_up == 1


@pytest.mark.parametrize("retries", [0, 2])
def test_a_server_that_dies_takes_no_request_with_it(retries, tmp_path):
    """Those under way when it last answered are asked again by the next run, not given up."""
    arrived = []

    def fault(body, before):
        arrived.append(body)
        return None if len(arrived) <= 3 else Plain(503, b"dead", wait=0.05)

    prompts = [str(i) for i in range(8)]
    with ModelServer(echo, fault) as server, pytest.raises(UserError, match="gives no answers: HTTP 503: dead"):
        ask(server, tmp_path, prompts, retries=retries)
    with ModelServer(echo) as server:
        config = section(server.url)
        with Answers(tmp_path / "answers" / "hq.jsonl") as answers:
            kept = [answers.reply(request_of(config, "", prompt, 1).key) for prompt in prompts]
        assert [reply.failed for reply in kept if reply is not None] == [None] * 3


def test_a_trivial_question_is_asked_more_than_once(tmp_path):
    seen = []

    def fault(body, before):
        if "poison" in str(body):
            return Plain(400, b"no")
        seen.append(body)
        return Plain(503, b"busy") if len(seen) == 1 else None

    with ModelServer(echo, fault) as server:
        replies, _ = ask(server, tmp_path, ["poison"])
    assert replies[0].failed == "HTTP 400: no"


def test_no_server_at_all(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"

    with pytest.raises(UserError, match="The server gives no answers: the connection failed"):
        ask(SimpleNamespace(url=url), tmp_path, ["a"], retries=1)


def test_a_redirection_is_not_followed_with_the_key(tmp_path, monkeypatch):
    monkeypatch.setenv("THE_KEY", KEY)
    with ModelServer(echo) as other:
        away = Plain(302, b"", {"location": f"{other.url}/chat/completions"})
        with (
            ModelServer(echo, lambda body, before: away) as server,
            pytest.raises(UserError, match="redirections are not followed"),
        ):
            ask(server, tmp_path, ["a"], key="THE_KEY")
        assert not other.bodies


def test_the_key_is_sent_and_written_nowhere(tmp_path, monkeypatch):
    monkeypatch.setenv("THE_KEY", KEY)

    def fault(body, before):
        return None if before else Plain(500, f"your key {KEY} is fine".encode())

    with ModelServer(lambda prompt, body: f"I saw {KEY}", fault) as server:
        replies, _ = ask(server, tmp_path, ["a"], key="THE_KEY")
        assert server.headers[0]["authorization"] == f"Bearer {KEY}"
    assert replies[0].text == "I saw ..."
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


def test_a_key_that_is_not_set(tmp_path, monkeypatch):
    monkeypatch.delenv("THE_KEY", raising=False)
    with ModelServer(echo) as server, pytest.raises(UserError, match="THE_KEY holds no API key"):
        ask(server, tmp_path, ["a"], key="THE_KEY")


def test_retry_after_is_respected_by_all(tmp_path):
    times = []

    def fault(body, before):
        times.append(time.monotonic())
        return Plain(429, b"", {"retry-after": "0.4"}) if len(times) == 1 else None

    with ModelServer(echo, fault) as server:
        ask(server, tmp_path, [str(i) for i in range(30)], concurrency=1)
    assert times[1] - times[0] >= 0.4


def test_nothing_is_sent_when_nothing_is_left_of_the_rate(tmp_path):
    times = []

    def fault(body, before):
        times.append(time.monotonic())
        left = {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "300ms"}
        return Plain(body=completion("yes"), headers=left) if len(times) == 1 else None

    with ModelServer(echo, fault) as server:
        ask(server, tmp_path, ["a", "b"], concurrency=1)
    assert times[1] - times[0] >= 0.29


def test_completions_of_a_base_model(tmp_path):
    def fault(body, before):
        return Plain(
            body=json.dumps({"choices": [{"text": f"on {body['prompt']}", "finish_reason": "length"}]}).encode()
        )

    with ModelServer(echo, fault) as server:
        config = section(server.url, api="completions", options={"temperature": 1, "seed": None})
        request = request_of(config, "be brief", "once", 7)
        assert request.body == {"model": "m", "max_tokens": 2048, "temperature": 1, "prompt": "be brief\n\nonce"}
        assert request.key != request_of(config, "be brief", "once", 8).key  # another answer to the same question
        replies, _ = ask(server, tmp_path, ["once"], api="completions")
        assert server.paths == ["/v1/completions"]
    assert (replies[0].text, replies[0].finish) == ("on once", "length")


def test_a_query_of_the_address_stays_behind_the_path(tmp_path):
    with ModelServer(echo) as server:
        ask(SimpleNamespace(url=f"{server.url}/?api-version=3"), tmp_path, ["a"])
        assert server.paths == ["/v1/chat/completions?api-version=3"]


def test_any_bytes_are_an_answer_or_rubbish():
    rng = random.Random(3)
    whole = completion("text")
    for _ in range(3000):
        data = bytearray(whole)
        for _ in range(rng.randrange(1, 6)):
            at = rng.randrange(len(data))
            data[at : at + rng.randrange(3)] = bytes(rng.randrange(256) for _ in range(rng.randrange(3)))
        with suppress(Rubbish):
            read_reply(data.decode("utf-8", "replace")).text.encode()


def test_durations_and_dates():
    assert [_duration(text) for text in ("6m0s", "20ms", "1.5", "1h2m", "soon")] == [360, 0.02, 1.5, 3720, 0]
    assert _retry_after({"retry-after": "3"}) == 3
    assert _retry_after({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0
    assert _retry_after({"retry-after": "nan"}) == 0
    assert _retry_after({"retry-after": "inf"}) == 600
    assert _retry_after({}) == 0


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def test_concurrency_grows_by_one_a_round_and_halves_once_for_all_that_were_under_way():
    clock = Clock()
    limit = Concurrency(100, clock)
    first = limit.limit
    for _ in range(int(first)):
        limit.answered(clock.now, 10)
    assert first + 0.9 < limit.limit < first + 1.1
    before = limit.limit
    began, clock.now = clock.now, clock.now + 1
    for _ in range(5):
        limit.refused(began)
    assert limit.limit == before / 2
    for _ in range(20):
        clock.now += 1
        limit.refused(clock.now)
    assert limit.limit == 1


def test_concurrency_shrinks_when_tokens_take_much_longer():
    clock = Clock()
    limit = Concurrency(100, clock)

    def answers(seconds, count):
        for _ in range(count):
            began, clock.now = clock.now, clock.now + seconds
            limit.answered(began, 100)

    answers(1.0, 50)
    before = limit.limit
    answers(10.0, 50)
    assert limit.limit < before


@pytest.mark.parametrize("at_best", [4, 32])
def test_concurrency_settles_at_a_server_that_gets_slower_with_load(at_best):
    """A server that answers no more tokens in all beyond some load: waiting for each other gains nothing."""
    clock, under_way, limits = Clock(), [], []
    limit = Concurrency(4096, clock)
    for number in range(20_000):
        while len(under_way) < int(limit.limit):
            each = 0.02 * max(1.0, len(under_way) / at_best)
            heapq.heappush(under_way, (clock.now + 100 * each, number, clock.now))
        clock.now, _, began = heapq.heappop(under_way)
        limit.answered(began, 100)
        limits.append(limit.limit)
    assert all(at_best < one < 5 * at_best for one in limits[5_000:])


def test_a_server_that_became_slower_for_good_is_asked_as_much_again():
    clock = Clock()
    limit = Concurrency(20, clock)

    def round_of(seconds):
        began, clock.now = clock.now, clock.now + seconds
        for _ in range(int(limit.limit)):
            limit.answered(began, 100)

    for _ in range(50):
        round_of(1.0)
    assert limit.limit == 20
    for _ in range(400):
        round_of(10.0)
    assert limit.limit == 20


def test_a_rate_holds_over_any_minute():
    clock = Clock()
    allowance = Allowance(section("http://x/v1", rate={"requests": 60, "tokens": "6k"}).rate, clock)
    sent = []
    for _ in range(300):
        while (wait := allowance._take({"requests": 1.0, "tokens": 50.0})) > 0:
            clock.now += wait
        sent.append(clock.now)
    for begin in sent:
        within = [at for at in sent if begin <= at < begin + 60]
        assert len(within) <= 60 * 1.1 + 2


def test_counts_that_are_none():
    usage = {"prompt_tokens": True, "completion_tokens": 1e3}
    reply = read_reply(json.dumps({"choices": [{"text": "x"}], "usage": usage}))
    assert (reply.input, reply.output) == (0, 0)


@pytest.mark.parametrize(
    "options",
    [
        {"max_tokens": "2k"},
        {"max_tokens": 0},
        {"max_completion_tokens": [1]},
        {"max_tokens": True},
        {"temperature": float("nan")},
        {"top_k": 10**30},
        {"stop": {1: 2}},
        {"stop": "\ud800"},
    ],
)
def test_options_that_cannot_be_sent(options):
    with pytest.raises(ValidationError, match=r"cannot be sent as JSON|is not a number of tokens"):
        section("http://x/v1", options=options)
