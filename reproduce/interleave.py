"""Cooperative tasks: generators that yield, so that several runs can share a device."""

import time
from collections.abc import Callable, Generator, Sequence
from typing import Any, TypeVar

from reproduce.device import Device, make_stream, on_stream

T = TypeVar("T")
Task = Generator[None, None, T]
"""A generator whose return value is a T."""
PAUSE = 1e-4
"""Seconds between two rounds, in each of which every task runs to its next yield."""


def on_own_stream(device: Device, task: Task[T], before_resume: Callable[[], Any]) -> Task[T]:
    """Run the task on a stream of its own and call `before_resume` each time before it resumes."""
    return (yield from resume_on_stream(make_stream(device), device, task, before_resume))


def resume_on_stream(stream: Any, device: Device, task: Task[T], before_resume: Callable[[], Any]) -> Task[T]:
    """Like `on_own_stream`, on a stream from `make_stream`."""
    while True:
        with on_stream(device, stream):
            before_resume()
            try:
                next(task)
            except StopIteration as end:
                return end.value
        yield


def run_task(task: Task[T]) -> T:
    """Run one task to its end and return its result."""
    return run_interleaved([task])[0]


def run_interleaved(tasks: Sequence[Task[T]]) -> list[T]:
    """Run the tasks interleaved and return their results."""
    pending, results = dict(enumerate(tasks)), {}
    while pending:
        for number, task in list(pending.items()):
            try:
                next(task)
            except StopIteration as end:
                results[number] = end.value
                del pending[number]
        time.sleep(PAUSE)
    return [results[number] for number in range(len(tasks))]
