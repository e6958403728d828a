"""Work that gives way at every yield, so that other work may have its turn on the same device."""

import time
from collections.abc import Callable, Generator, Sequence
from typing import Any, TypeVar

from reproduce.device import Device, make_stream, on_stream

T = TypeVar("T")
Task = Generator[None, None, T]
"""Such work, whose end returns a T."""
PAUSE = 1e-4
"""Seconds from one turn to the next of work that is alone or, of several, from one round to the next."""


def on_own_stream(device: Device, work: Task[T], before_resume: Callable[[], Any]) -> Task[T]:
    """The same work, each of its turns on one stream of its own, and after a call of begin_turn."""
    return (yield from resume_on_stream(make_stream(device), device, work, before_resume))


def resume_on_stream(stream: Any, device: Device, work: Task[T], before_resume: Callable[[], Any]) -> Task[T]:
    """The same work on a stream of `make_stream`."""
    while True:
        with on_stream(device, stream):
            before_resume()
            try:
                next(work)
            except StopIteration as end:
                return end.value
        yield


def run_task(work: Task[T]) -> T:
    """Does all of the work, with nothing in between."""
    return run_interleaved([work])[0]


def run_interleaved(works: Sequence[Task[T]]) -> list[T]:
    """Does several pieces of work, turn by turn, and returns what each returns."""
    left, results = dict(enumerate(works)), {}
    while left:
        for number, work in list(left.items()):
            try:
                next(work)
            except StopIteration as end:
                results[number] = end.value
                del left[number]
        time.sleep(PAUSE)
    return [results[number] for number in range(len(works))]
