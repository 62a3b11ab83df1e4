"""Generation in batches: as one by one; greedy, keyed draws, stops."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from headrace.evaluate.generation import Cached, draw, generate
from headrace.model.config import ModelConfig
from headrace.model.transformer import Transformer

PROMPTS = [[10, 20, 30], [7], [10, 20, 30, 40, 50], [1, 2], list(range(60, 80)), [7]]


@pytest.fixture(scope="module")
def model():
    torch.set_num_threads(1)
    model = Transformer(ModelConfig(vocab_size=264, layers=2, width=32, heads=4, kv_heads=2, ffn=40))
    model.initialise(1)
    with torch.no_grad():
        model.embedding.weight.mul_(20)
    return model


def one_by_one(model, keys, **options):
    return [generate(Cached(model), [p], 12, [k], **options)[0] for p, k in zip(PROMPTS, keys, strict=True)]


def test_greedy_is_the_likeliest_token_of_the_whole_row_each_time(model):
    [new] = generate(Cached(model), [PROMPTS[0]], 8, [0])
    row = list(PROMPTS[0])
    for token in new:
        with torch.no_grad():
            assert int(model(torch.tensor([row]))[0, -1].argmax()) == token
        row.append(token)
    assert generate(Cached(model), [PROMPTS[0]], 8, [0], stop={new[3]}) == [new[: new.index(new[3])]]


@pytest.mark.parametrize("options", [{}, {"temperature": 1.3}, {"temperature": 0.9, "top_p": 0.8}])
def test_a_batch_writes_what_its_prompts_write_alone(model, options):
    keys = [3, 1, 4, 1, 5, 9]
    alone = one_by_one(model, keys, **options)
    assert generate(Cached(model), PROMPTS, 12, keys, **options) == alone
    stop = {alone[4][2], alone[0][5]}
    stopped = one_by_one(model, keys, stop=stop, **options)
    assert len(set(map(len, stopped))) > 1
    assert generate(Cached(model), PROMPTS, 12, keys, stop=stop, **options) == stopped


def test_samples_of_one_prompt_read_it_once(model):
    class Counting(Cached):
        read_tokens = 0

        def read(self, tokens):
            self.read_tokens += tokens.size
            return super().read(tokens)

    decoding = Counting(model)
    texts = generate(decoding, [PROMPTS[4]] * 5, 3, range(5), temperature=1.5)
    assert decoding.read_tokens == len(PROMPTS[4]) + 2 * 5
    assert texts == [generate(Cached(model), [PROMPTS[4]], 3, [k], temperature=1.5)[0] for k in range(5)]
    assert len({tuple(text) for text in texts}) > 1


def test_a_text_ends_when_its_caller_says_so(model):
    [whole] = generate(Cached(model), [PROMPTS[0]], 9, [0])
    ended = generate(Cached(model), PROMPTS, 9, [0] * 6, ended=lambda row, tokens: row == 0 and len(tokens) == 4)
    assert ended[0] == whole[:4]
    assert all(len(one) == 9 for one in ended[1:])


def test_draws_depend_on_their_key_alone(model):
    texts = [generate(Cached(model), [[1, 2]], 12, [key], 1.5)[0] for key in (3, 3, 4)]
    assert texts[0] == texts[1] != texts[2]


def test_a_draw_follows_the_distribution():
    logits = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64).log().expand(1000, 3)
    at = torch.from_numpy((np.arange(1000) + 0.5) / 1000)
    assert draw(logits, at).bincount(minlength=3).tolist() == [200, 500, 300]
    assert draw(logits, at, 0.6).bincount(minlength=3).tolist() == [0, 625, 375]
    assert draw(logits, at, 0.5).bincount(minlength=3).tolist() == [0, 1000, 0]
    last = torch.tensor([1 - 2**-53], dtype=torch.float64)
    assert draw(torch.tensor([[0.0, -torch.inf]], dtype=torch.float64), last).tolist() == [0]
