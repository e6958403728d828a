"""Work that gives way at every yield, so that other work may have its turn on the same device."""

import time
from collections.abc import Callable, Generator, Sequence
from typing import Any, TypeVar

from reproduce.device import Device, make_stream, on_stream

T = TypeVar("T")
Turns = Generator[None, None, T]
"""Such work, whose end returns a T."""
PAUSE = 1e-4
"""Seconds from one turn to the next of work that is alone or, of several, from one round to the next."""


def on_own_stream(device: Device, work: Turns[T], begin_turn: Callable[[], Any]) -> Turns[T]:
    """The same work, each of its turns on one stream of its own, and after a call of begin_turn."""
    return (yield from each_turn_on(make_stream(device), device, work, begin_turn))


def each_turn_on(stream: Any, device: Device, work: Turns[T], begin_turn: Callable[[], Any]) -> Turns[T]:
    """The same work on a stream of `make_stream`."""
    while True:
        with on_stream(device, stream):
            begin_turn()
            try:
                next(work)
            except StopIteration as end:
                return end.value
        yield


def complete(work: Turns[T]) -> T:
    """Does all of the work, with nothing in between."""
    return complete_all([work])[0]


def complete_all(works: Sequence[Turns[T]]) -> list[T]:
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
