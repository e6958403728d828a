"""What the command lines share: flags from dataclasses, and one sentence with exit status 2 for what the user can mend."""

import contextlib
import errno
import importlib.metadata
import io
import platform
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar


def tell_while_loading(kind: type[BaseException], error: BaseException, trace: TracebackType | None):
    """What `run_cli` does about Ctrl-C and missing packages, while a script still loads what it wants before it calls `run_cli`."""
    if isinstance(error, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    if isinstance(error, ModuleNotFoundError):
        print(f"error: {format_error(error)}", file=sys.stderr)
        sys.exit(2)
    sys.__excepthook__(kind, error, trace)


script = getattr(sys.modules["__main__"], "__file__", None)
if script is not None and Path(script).resolve().parent.parent == Path(__file__).resolve().parent.parent:
    sys.excepthook = tell_while_loading  # in the scripts of this repository, not where this is a library

import tyro  # noqa: E402 - may take its time, and be missing

from reproduce.errors import UserError, is_out_of_memory  # noqa: E402

T = TypeVar("T")


def parse_args(target: Callable[..., T], arguments: Sequence[str], prog: str, description: str | None, *markers: Any) -> T:
    """What `target`, a dataclass or a function of dataclasses, makes of a command line; --help and --version print and exit.

    Raises:
        UserError: a flag or value is wrong.
    """
    if "--version" in arguments:
        print(format_version(with_device=True))
        sys.exit()
    description = f"{description}\n--version: of this package, Python and torch, the commit, and the device that auto takes."
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(target, prog=prog, description=description, args=list(arguments), config=markers)
    except SystemExit as exit:
        if not exit.code:
            raise
        raise UserError(shorten_parser_error(complaint.getvalue())) from None


def format_version(with_device: bool) -> str:
    """Version and commit of this package, Python's version and, which loads torch, its version and the device."""
    from reproduce.record import describe_git

    name, code = "cifar10-resnet-reproduction", describe_git()
    version = "not installed"
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        version = importlib.metadata.version(name)
    commit = "no commit known" if code is None else f"commit {code['commit'][:8]}{' with changes' if code['dirty'] else ''}"
    parts = [f"{name} {version}", commit, f"Python {platform.python_version()}"]
    if with_device:
        from reproduce import device as devices

        parts += [f"torch {devices.torch.__version__}", devices.format_device(devices.choose_device("auto"))]
    return "; ".join(parts)


def shorten_parser_error(box: str) -> str:
    """What tyro says on stderr between its heading and the first rule, in one line, with the flags that it takes for meant.

    It draws a frame or, where stdout's encoding is not UTF-8, rules of hyphens, the first one below the heading; in
    colours where stdout is a terminal.
    """
    sections: list[list[str]] = [[]]
    for line in re.sub(r"\x1b\[[\d;]*m", "", box).splitlines()[1:]:
        line = line[2:].rstrip("│╯ ")
        if set(line) <= {"─"} or set(line) == {"-"}:
            sections.append([])
        else:
            sections[-1].append(line)
    message, *others = [section for section in sections if section] or [[box.strip()]]
    sentence = " ".join(line.strip() for line in message)
    before, _, after = sentence.partition(": ")
    of_a_dataclass = before.startswith("Error parsing ") and "--" not in before
    hints = [section for section in others if section[0].startswith(("Perhaps you meant:", "Arguments similar to "))]
    flags = [line for hint in hints for line in hint if line.startswith("    --")]  # what they mean stands further in
    meant = dict.fromkeys(flag for line in flags for flag in re.findall(r"--[\w-]+", line))
    return (after if of_a_dataclass else sentence) + (f"; perhaps you meant: {', '.join(meant)}" if meant else "")


def run_cli(main: Callable[[Sequence[str]], int], arguments: Sequence[str]) -> int:
    """The exit status of `main`; 2 after one sentence on stderr about what it raises for the user to mend, 130 after Ctrl-C.

    What stdout's encoding has no character for, as a file's name can hold, is printed as its escape.
    """
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return main(arguments)
    except (UserError, OSError, ModuleNotFoundError, KeyboardInterrupt) as error:
        return report_error(error)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return report_error(UserError(f"out of memory ({str(error).strip().partition(chr(10))[0][:200]})"))


def report_error(error: UserError | OSError | ModuleNotFoundError | KeyboardInterrupt) -> int:
    """Says in one line what has ended the program; its exit status."""
    if isinstance(error, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
        return 130
    print(f"error: {format_error(error)}", file=sys.stderr)
    return 2


def shorten_warnings():
    """A warning is its sentence alone, without the line of code that gave it."""
    warnings.formatwarning = lambda message, *_: f"warning: {message}\n"


def format_error(error: UserError | OSError | ModuleNotFoundError) -> str:
    """The sentence about what the user can mend."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, ModuleNotFoundError):
        return f"{error.name or error} is not installed: pip install -r requirements.txt"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        what = error.filename or "a file"
        remedy = "free some there (of runs that have ended, nothing needs checkpoint.previous.pt) and give the command again"
        return f"no space is left to write {what}: {remedy}"
    return f"cannot read or write {error.filename or 'a file'}: {error.strerror}"
