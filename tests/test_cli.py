"""Command lines: user errors in one sentence on any terminal, exit statuses, fast --help, --version."""

import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from experiments import sweep
from reproduce import cli, predict, run
from reproduce.errors import UserError
from tests.conftest import QUICK_FLAGS

ROOT = Path(__file__).parents[1]


@contextmanager
def stdout_of(kind: str) -> Iterator[None]:
    """Replace stdout: tyro draws its error boxes according to the kind of terminal and its encoding."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TERM", "xterm")
        master, slave = pty.openpty() if "terminal" in kind else os.pipe()
        with open(slave, "w", encoding="ascii" if "ascii" in kind else "utf-8") as stream:
            patch.setattr(sys, "stdout", stream)
            yield
    os.close(master)


WRONG: list[tuple[Callable[[list[str]], Any], str, str]] = [
    (run.parse, "--depth 9", "depth must be 6n+2"),
    (run.parse, "--device tpu", "invalid choice 'tpu' for argument '--device'. Expected one of ('auto', 'npu', "),
    (run.parse, "--batch-size x", "Error parsing --batch-size: invalid literal for int() with base 10: 'x'"),
    (sweep.parse, "", "name an experiment: degradation, "),
    (predict.main, "", "Missing from predict.py: PATH Folder of a finished run"),
]


@pytest.mark.parametrize("kind", ["terminal", "ascii pipe"])
def test_errors_in_flags_are_the_same_sentence_on_any_stdout(kind: str):
    for parse, flags, sentence in WRONG:
        with stdout_of(kind), pytest.raises(UserError) as caught:
            parse(flags.split())
        assert str(caught.value).startswith(sentence)
        assert len(str(caught.value)) < len(sentence) + 100
    with stdout_of(kind), pytest.raises(UserError) as caught:
        run.parse("--dept 9 --sed 3".split())
    sentence, _, suggested = str(caught.value).partition("; perhaps you meant: ")
    assert sentence == "Unrecognized options: --dept, 9, --sed, 3" and sorted(suggested.split(", ")) == ["--depth", "--seed"]


def test_exit_statuses_and_messages(capsys: pytest.CaptureFixture[str]):
    for error, status, message in (
        (KeyboardInterrupt(), 130, "interrupted"),
        (UserError("use it well"), 2, "error: use it well"),
        (OSError(28, "No space left on device", "a.pt"), 2, "error: cannot read or write a.pt: No space left on device"),
        (RuntimeError("CUDA out of memory.\nTried"), 2, "error: out of memory: stop other processes"),
    ):
        assert cli.run_cli(Mock(side_effect=error), []) == status
        out, err = capsys.readouterr()
        assert out == "" and err.startswith(message) and err.count("\n") == 1
    with pytest.raises(RuntimeError, match="a bug"):
        cli.run_cli(Mock(side_effect=RuntimeError("a bug")), [])


def test_a_broken_pipe_ends_a_listing_quietly(capfd: pytest.CaptureFixture[str]):
    """As in `runs.py | head`, whether the output fails on the way or at the end."""
    for count in (1, 100_000):
        reader, writer = os.pipe()
        os.close(reader)
        with open(writer, "w") as stream, pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stdout", stream)
            assert cli.run_cli(lambda lines: print("\n".join(lines)) or 0, ["a line"] * count) == 141
    assert capfd.readouterr() == ("", "")


def test_a_run_trains_without_standard_streams(workplace: Path):
    command = f"exec {sys.executable} {ROOT}/reproduce/run.py {QUICK_FLAGS} <&- >&- 2>&-"
    assert subprocess.run(["sh", "-c", command]).returncode == 0
    assert len(list(workplace.glob("runs/*/seed0/result.json"))) == 1


SCRIPTS = {
    "reproduce/run.py": True, "reproduce/evaluate.py": True, "reproduce/export.py": True, "reproduce/predict.py": True,
    "experiments/sweep.py": True, "experiments/devices/parity.py": False, "analysis/runs.py": True,
}  # fmt: skip
"""Some commands, and whether they parse their flags before torch is imported."""


@pytest.mark.parametrize(("script", "is_fast"), SCRIPTS.items())
def test_a_script_parses_flags_in_its_own_checkout(script: str, is_fast: bool, tmp_path: Path):
    """Even if another copy of the package is installed."""
    for package in ("reproduce", "experiments", "analysis"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("raise ImportError('another copy')")
    code = (
        "import sys, runpy\n"
        "for flags, status in (['--help'], 0), (['--version'], 0), (['--dept', '9'], 2):\n"
        f"    sys.argv = ['script', *flags]\n"
        f"    try: runpy.run_path({str(ROOT / script)!r}, run_name='__main__')\n"
        "    except SystemExit as exit: assert (exit.code or 0) == status, exit.code\n"
        "print({'torch', 'torchvision', 'PIL'} & set(sys.modules))"
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert process.returncode == 0 and process.stdout.startswith("usage: "), process.stderr
    *_, version, imported = process.stdout.splitlines()
    assert all(part in version for part in ("commit ", "; Python 3.", "; torch "))
    assert process.stderr.startswith("error: ") and process.stderr.count("\n") == 1
    assert imported == "set()" or not is_fast
