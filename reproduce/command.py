"""What the command lines share: flags from dataclasses, and one sentence with exit status 2 for what the user can mend."""

import contextlib
import io
import sys
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
    """What tyro says inside the frame it draws on stderr, above the first rule, in one line."""
    message = []
    for line in box.splitlines()[1:]:
        line = line.strip("│╭╮╰╯ ")
        if set(line) <= {"─"}:
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
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
    except OSError as error:
        print(f"error: cannot read or write {error.filename or 'a file'}: {error.strerror}", file=sys.stderr)
    return 2
