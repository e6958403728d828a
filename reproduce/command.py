"""What the command lines share: flags from dataclasses, and one sentence with exit status 2 for what the user can mend."""

import contextlib
import io
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import tyro

from reproduce.config import UserError

T = TypeVar("T")


def parse(target: Callable[..., T], arguments: Sequence[str], prog: str, description: str | None, *markers: Any) -> T:
    """What `target`, a dataclass or a function of dataclasses, makes of a command line; --help prints and exits.

    Raises:
        UserError: a flag or value is wrong.
    """
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(target, prog=prog, description=description, args=list(arguments), config=markers)
    except SystemExit as exit:
        if not exit.code:
            raise
        raise UserError(one_sentence(complaint.getvalue())) from None


def one_sentence(box: str) -> str:
    """What tyro says on stderr between its heading and the first rule, in one line.

    It draws a frame or, where stdout's encoding is not UTF-8, rules of hyphens, the first one below the heading.
    """
    message = []
    for line in box.splitlines()[1:]:
        line = line.strip("│╭╮╰╯ ")
        if set(line) <= {"─"} or set(line) == {"-"}:
            if not message:
                continue
            break
        message.append(line)
    sentence = " ".join(message)
    before, _, after = sentence.partition(": ")
    of_a_dataclass = before.startswith("Error parsing ") and "--" not in before
    return after if of_a_dataclass else sentence


def tell(main: Callable[[Sequence[str]], int], arguments: Sequence[str]) -> int:
    """The exit status of `main`, or 2 after one sentence on stderr about what it raises for the user to mend."""
    try:
        return main(arguments)
    except (UserError, OSError) as error:
        print(f"error: {explain(error)}", file=sys.stderr)
    return 2


def shorten_warnings():
    """A warning is its sentence alone, without the line of code that gave it."""
    warnings.formatwarning = lambda message, *_: f"warning: {message}\n"


def explain(error: UserError | OSError) -> str:
    """The sentence about what the user can mend."""
    if isinstance(error, UserError):
        return str(error)
    return f"cannot read or write {error.filename or 'a file'}: {error.strerror}"
