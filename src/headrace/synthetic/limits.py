"""How much to ask of a server at once: it is told by how the server answers.

The number of requests at once grows by one for each round of answers, and is halved when the server says that it is
busy (additive increase, multiplicative decrease: Chiu and Jain 1989; RFC 5681). Since a server that batches gets slower
with each request long before it refuses one, the number also shrinks by a tenth when an output token takes
:data:`SLOWER` times as long as at best.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

from headrace.recipe.synthetic import Rate

FIRST = 8.0  # requests at once to begin with
# vLLM's own benchmarks show throughput still growing where an output token takes three times as long as for a single
# request; beyond, requests only wait for each other.
SLOWER = 4.0
SMOOTH = 0.1  # weight of an answer in the mean time of an output token
MINUTE = 60.0


class Concurrency:
    """The number of requests at once.

    Args:
        most: the largest.
        clock: the time in seconds.

    Attributes:
        limit: how many there may be now.
        running: how many there are.
    """

    def __init__(self, most: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.limit = min(FIRST, float(most))
        self.running = 0
        self._most, self._clock = most, clock
        self._shrunk = self._until = clock()
        self._mean = self._best = 0.0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def enter(self) -> float:
        """Wait for a place; returns the time."""
        while self.running >= int(self.limit) or self._waiting:
            future = asyncio.get_running_loop().create_future()
            self._waiting.append(future)
            try:
                await future
            finally:
                if future in self._waiting:
                    self._waiting.remove(future)
            if self.running < int(self.limit):
                break
        self.running += 1
        try:
            while (left := self._until - self._clock()) > 0:
                await asyncio.sleep(left)
        except BaseException:
            self.leave()
            raise
        return self._clock()

    def leave(self) -> None:
        """Give the place back."""
        self.running -= 1
        self._wake()

    def _wake(self) -> None:
        free = int(self.limit) - self.running
        while self._waiting and free > 0:
            future = self._waiting.popleft()
            if not future.done():
                future.set_result(None)
                free -= 1

    def answered(self, began: float, tokens: int) -> None:
        """A request that began at a time was answered in full, by so many tokens."""
        each = (self._clock() - began) / max(tokens, 1)
        self._mean = each if not self._mean else self._mean + SMOOTH * (each - self._mean)
        self._best = min(self._best or self._mean, self._mean)
        if self._mean > SLOWER * self._best and began >= self._shrunk:
            if self.limit > 1:
                self._shrink(0.9)
            else:
                self._best = self._mean  # one request at a time is as slow: the server has become so for good
        elif self._mean <= SLOWER * self._best:
            self.limit = min(float(self._most), self.limit + 1 / self.limit)
        self._wake()

    def refused(self, began: float) -> None:
        """A request that began at a time was not answered, because the server is busy or fails."""
        if began >= self._shrunk:  # once for all that were under way
            self._shrink(0.5)

    def pause(self, seconds: float) -> None:
        """Let no request begin for some time, as the server asks."""
        self._until = max(self._until, self._clock() + seconds)

    def _shrink(self, factor: float) -> None:
        self.limit, self._shrunk = max(1.0, self.limit * factor), self._clock()


class Allowance:
    """What may be sent in a minute: a bucket that fills steadily and holds what a tenth of a minute gives.

    Args:
        rate: the recipe's limits.
        clock: the time in seconds.
    """

    def __init__(self, rate: Rate, clock: Callable[[], float] = time.monotonic) -> None:
        self._rates = {"requests": rate.requests, "tokens": rate.tokens}
        self._left = {name: each / 10 for name, each in self._rates.items() if each is not None}
        self._clock = clock
        self._filled = clock()

    async def take(self, tokens: int) -> None:
        """Wait until a request with so many tokens, prompt and answer, may be sent."""
        want = {"requests": 1.0, "tokens": float(tokens)}
        while (seconds := self._take(want)) > 0:
            await asyncio.sleep(seconds)

    def _take(self, want: dict[str, float]) -> float:
        """Take it, or say how long to wait. The bucket may run into debt, or a large request would never be sent."""
        now = self._clock()
        for name in self._left:
            each = float(self._rates[name] or 0)
            self._left[name] = min(each / 10, self._left[name] + (now - self._filled) * each / MINUTE)
        self._filled = now
        waits = [-left * MINUTE / float(self._rates[name] or 1) for name, left in self._left.items() if left < 0]
        if waits:
            return max(max(waits), 0.001)
        for name in self._left:
            self._left[name] -= want[name]
        return 0.0

    def correct(self, tokens: int) -> None:
        """Take so many tokens more (or fewer) than was thought."""
        if "tokens" in self._left:
            self._left["tokens"] -= tokens
