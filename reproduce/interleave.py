"""Cooperative tasks: generators that yield, so that several runs can share a device."""

import time
from collections.abc import Callable, Generator, Sequence
from typing import Any, TypeVar

from reproduce.device import Device, use_stream

T = TypeVar("T")
Task = Generator[None, None, T]
"""A generator whose return value is a T."""
PAUSE = 1e-4
"""Pause in seconds after each round, in which every task runs to its next yield."""


def run_on_stream(device: Device, stream: Any, task: Task[T], before_resume: Callable[[], Any]) -> Task[T]:
    """Run the task on a stream from `create_stream`; call `before_resume` each time before it resumes."""
    while True:
        with use_stream(device, stream):
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
