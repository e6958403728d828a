"""Parse flags into dataclasses, and report user errors as one sentence on stderr with exit status 2."""

import contextlib
import importlib.metadata
import io
import os
import platform
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import tyro

from reproduce.errors import ABORTED, USER_ERROR, UserError, explain_out_of_memory

T = TypeVar("T")
BROKEN_PIPE = 141
"""Exit status if the reader of the output has gone, as in `... | head`; a shell reports the same for SIGPIPE."""


def parse_args(target: Callable[..., T], arguments: Sequence[str], prog: str, description: str | None, *markers: Any) -> T:
    """Parse a command line into `target`, a dataclass or a function of dataclasses. --help and --version print and exit.

    Raises:
        UserError: a flag or value is wrong.
    """
    if "--version" in arguments:
        print(format_version())
        sys.exit()
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(target, prog=prog, description=description, args=list(arguments), config=markers)
    except SystemExit as exit:
        if not exit.code:
            raise
        raise UserError(summarize_parser_error(errors.getvalue())) from None


def format_version() -> str:
    """Return the commit and the versions of Python and torch."""
    from reproduce.record import describe_git

    code = describe_git()
    commit = "unknown commit" if code is None else f"commit {code['commit'][:8]}{' with changes' if code['dirty'] else ''}"
    return f"{commit}; Python {platform.python_version()}; torch {importlib.metadata.version('torch')}"


def summarize_parser_error(box: str) -> str:
    """Return tyro's error message in one line, with the flags that it suggests.

    tyro draws a box with a title; rules inside separate the message from suggestions and help. Without UTF-8 it draws rules
    of hyphens only, and on a terminal it adds colors.
    """
    lines = [line.strip("│ ") for line in re.sub(r"\x1b\[[\d;]*m", "", box).splitlines()[1:]]
    message, *others = re.split(r"^[─╰╯-]+$", "\n".join(lines).lstrip("-\n"), flags=re.MULTILINE)
    sentence = re.sub(r"^Error parsing (?!--)[^:]*: ", "", " ".join(message.split()))  # prefix of an error from __post_init__
    sentence = sentence.partition(" Got errors:")[0]  # for each type of a union
    if sentence.startswith("Unrecognized options"):
        suggested = dict.fromkeys(re.findall(r"(?<=\n)--[\w-]+", "\n".join(others)))
        sentence += f"; perhaps you meant: {', '.join(suggested)}" if suggested else ""
    return sentence


def run_cli(main: Callable[[Sequence[str]], int], arguments: Sequence[str]) -> int:
    """Return the exit status of `main`; after a user error print one sentence and return 2, after Ctrl-C return 130."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # closed, as by >&-
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))
    warnings.formatwarning = lambda message, *_: f"warning: {message}\n"  # omit the file and the line of code
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")  # a file name may contain characters that stdout cannot encode
    try:
        try:
            with explain_out_of_memory():
                return main(arguments)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return ABORTED
    except UserError as error:
        message = str(error)
    except OSError as error:
        message = format_os_error(error)
    with contextlib.suppress(OSError):  # stderr is full or gone
        print(f"error: {message}", file=sys.stderr)
    return USER_ERROR


def format_os_error(error: OSError) -> str:
    return f"cannot read or write {error.filename or 'a file'}: {error.strerror or error}"
