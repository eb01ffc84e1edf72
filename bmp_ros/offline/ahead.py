# SPDX-License-Identifier: Apache-2.0
"""``ahead``: images are read and pass the networks while results of earlier ones are written."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


def ahead(
    items: Iterable[Item], ask: Callable[[Item], Answer], at_once: int
) -> Generator[tuple[Item, Callable[[], Answer]], None, None]:
    """Yield (item, answer) in the order of the items; ``answer()`` is ``ask(item)``, or raises.

    at_once: so many items are asked for at a time, each on a thread of its own, and one more is
    taken out of ``items`` beforehand, on the caller's. 0: ``ask`` runs in ``answer()``, for those
    that depend on what became of the answer before.
    An exception of ``items`` is raised after all answers to what came before it. When the caller
    stops early, what has begun is waited for and what has not is dropped.
    """
    if at_once == 0:
        for item in items:
            yield item, partial(ask, item)
        return
    waiting: deque[tuple[Item, Future[Answer]]] = deque()
    taken, more = iter(items), True
    problem: Exception | None = None
    pool = ThreadPoolExecutor(at_once, "bmp_ahead")
    try:
        while more or waiting:
            while more and len(waiting) <= at_once:
                try:
                    item = next(taken)
                except StopIteration:
                    more = False
                except Exception as error:
                    problem, more = error, False
                else:
                    waiting.append((item, pool.submit(ask, item)))
            if waiting:
                item, future = waiting.popleft()
                yield item, future.result
                del item, future  # nothing is kept alive while the next ones are waited for
        if problem is not None:
            raise problem
    finally:
        pool.shutdown(cancel_futures=True)
