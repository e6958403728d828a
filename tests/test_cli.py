"""What every command line says, on a terminal and into a pipe: one sentence for what the user can mend."""

import io
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from analysis import runs
from experiments import sweep
from reproduce import cli, evaluate, predict, run
from reproduce.errors import UserError

ROOT = Path(__file__).parents[1]


@contextmanager
def stdout_of(kind: str) -> Iterator[None]:
    """Standard output of this kind in this process: tyro's frames and colours depend on it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TERM", "xterm")
        master, slave = pty.openpty() if "terminal" in kind else os.pipe()
        with open(slave, "w", encoding="ascii" if "ascii" in kind else "utf-8") as stream:
            patch.setattr(sys, "stdout", stream)
            assert sys.stdout.isatty() == ("terminal" in kind)
            yield
    os.close(master)


def run_on_terminal(line: Sequence[str]) -> tuple[int, str]:
    """Exit status and output of a process whose three streams are a terminal's."""
    master, slave = pty.openpty()
    environment = os.environ | {"TERM": "xterm"}
    with subprocess.Popen(line, stdin=slave, stdout=slave, stderr=slave, env=environment) as process:
        os.close(slave)
        output = io.BytesIO()
        try:
            while part := os.read(master, 4096):
                output.write(part)
        except OSError:  # how a terminal whose other side has gone says that it ends
            pass
    os.close(master)
    return process.returncode, output.getvalue().decode().replace("\r\n", "\n")


WRONG: dict[str, tuple[Callable[[list[str]], Any], str, str]] = {
    "value": (run.parse, "--depth 9", "depth must be 6n+2 with n >= 1 (8, 14, 20, 26, 32, ...), and 9 is not"),
    "choice": (
        run.parse,
        "--device tpu",
        "invalid choice 'tpu' for argument '--device'. Expected one of ('auto', 'npu', 'cuda', 'cpu').",
    ),
    "flag": (run.parse, "--dept 9", "Unrecognized options: --dept, 9; perhaps you meant: --depth"),
    "pair": (run.parse, "--residul", "Unrecognized options: --residul; perhaps you meant: --residual, --no-residual"),
    "nothing like it": (run.parse, "--zzz", "Unrecognized options: --zzz"),
    "type": (run.parse, "--batch-size x", "Error parsing --batch-size: invalid literal for int() with base 10: 'x'"),
    "sweep": (
        sweep.parse,
        "",
        "name an experiment: degradation, bn_placement, block_design, optimizer, deep, ambiguity, precision, wide, lenet",
    ),
    "sweep's flag": (
        sweep.parse,
        "degradation --dry-runn",
        "Unrecognized options: --dry-runn; perhaps you meant: --dry-run",
    ),
    "predict": (predict.main, "a.safetensors", "name at least one picture, not none"),
    "evaluate": (evaluate.main, "runs --device tpu", "invalid choice 'tpu' for argument '--device'. Expected one of"),
}


STDOUT = pytest.mark.parametrize("kind", ["terminal", "ascii terminal", "pipe", "ascii pipe"])


@STDOUT
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_command_line_is_the_same_sentence_everywhere(kind: str, name: str):
    parse, line, sentence = WRONG[name]
    with stdout_of(kind), pytest.raises(UserError) as caught:
        parse(line.split())
    assert str(caught.value).startswith(sentence)
    assert len(str(caught.value)) < len(sentence) + 40, "more than the sentence"


@STDOUT
def test_two_wrong_flags_have_a_hint_each(kind: str):
    with stdout_of(kind), pytest.raises(UserError) as caught:
        run.parse("--dept 9 --sed 3".split())
    sentence, _, hint = str(caught.value).partition("; perhaps you meant: ")
    assert sentence == "Unrecognized options: --dept, 9, --sed, 3" and sorted(hint.split(", ")) == ["--depth", "--seed"]


@pytest.mark.parametrize(
    ("script", "sentence"),
    [("reproduce/run.py --dept 9", WRONG["flag"][2]), ("experiments/sweep.py", WRONG["sweep"][2])],
)
def test_the_scripts_say_it_on_a_terminal(script: str, sentence: str):
    path, *flags = script.split()
    assert run_on_terminal([sys.executable, str(ROOT / path), *flags]) == (2, f"error: {sentence}\n")


# Ctrl-C -----------------------------------------------------------------------------------------------------------------


def test_ctrl_c_is_one_line_and_a_status_of_its_own(capsys: pytest.CaptureFixture[str]):
    def main(arguments: Sequence[str]) -> int:
        raise KeyboardInterrupt

    try:
        status = cli.run_cli(main, [])
    except KeyboardInterrupt:
        pytest.fail("it went through, and would end the tests as well")
    assert status == 130
    assert capsys.readouterr() == ("", "interrupted\n")


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="tells by /proc what a process has loaded")
@pytest.mark.parametrize(
    "script",
    ["reproduce/run.py --data synthetic --device cpu", "experiments/devices/throughput.py --data synthetic --device cpu"],
)
def test_ctrl_c_while_torch_loads_leaves_no_traceback(tmp_path: Path, script: str):
    """run.py loads it when the flags are read, throughput.py before its main is called."""
    path, *flags = script.split()
    line = [sys.executable, str(ROOT / path), *flags]
    with subprocess.Popen(line, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        maps = Path(f"/proc/{process.pid}/maps")
        while "libtorch" not in maps.read_text():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", "interrupted\n")


SCRIPTS = [
    path
    for folder in ("analysis", "experiments", "reproduce")
    for path in sorted((ROOT / folder).glob("*.py"))
    if '__name__ == "__main__"' in path.read_text()
]


def start_script(path: Path, *flags: str, **environment: str) -> tuple[int, str, str]:
    line = [sys.executable, *flags, str(path), "--version"]
    done = subprocess.run(line, capture_output=True, text=True, env=os.environ | environment)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_script_is_ready_before_it_loads_a_package(path: Path, tmp_path: Path):
    """Without the installation, and with Ctrl-C at the first package that takes its time."""
    remedy = "is not installed: pip install -r requirements.txt\n"
    package = "analysis" if path.parent.name == "analysis" else "reproduce"
    # -S: no packages but Python's own, as where nothing is installed
    assert start_script(path, "-S", PYTHONPATH="") == (1, "", f"error: {package} {remedy}")
    for name in ("pandas", "tyro", "torch"):
        (tmp_path / f"{name}.py").write_text("raise KeyboardInterrupt")
    assert start_script(path, PYTHONPATH=f"{tmp_path}:{ROOT}") == (130, "", "interrupted\n")


def test_version_tells_commit_and_device(capsys: pytest.CaptureFixture[str]):
    for main, parts in ((run.main, ("; torch ", " (")), (runs.main, ())):
        with pytest.raises(SystemExit) as ended:
            main(["--version"])
        said = capsys.readouterr().out
        assert not ended.value.code and said.startswith("cifar10-resnet-reproduction ") and "; Python 3." in said
        assert all(part in said for part in parts) and said.count("\n") == 1


def test_a_library_leaves_the_interpreters_hook_alone():
    assert sys.excepthook is not cli.tell_while_loading


# What loads, and what is missing ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["evaluate", "export", "predict"])
@pytest.mark.parametrize(("flags", "status"), [("--help", 0), ("--dept 9", 2)])
def test_the_command_line_is_read_before_torch_is_loaded(name: str, flags: str, status: int):
    code = (
        f"import sys, runpy; sys.argv = ['{name}.py', *{flags.split()!r}]\n"
        f"try: runpy.run_path({str(ROOT / 'reproduce' / f'{name}.py')!r}, run_name='__main__')\n"
        f"except SystemExit as exit: assert (exit.code or 0) == {status}, exit.code\n"
        "assert not {'torch', 'torchvision', 'PIL'} & set(sys.modules)"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    assert ("--data" in process.stdout) == (status == 0)


@pytest.mark.parametrize("script", ["reproduce/predict.py a.safetensors b.png", "experiments/devices/throughput.py"])
def test_a_missing_package_is_one_sentence(tmp_path: Path, script: str):
    """predict.py loads torch when the flags are read, throughput.py before its main is called."""
    (tmp_path / "torch.py").write_text("raise ModuleNotFoundError(name='torch')")
    path, *flags = script.split()
    environment = os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    process = subprocess.run([sys.executable, str(ROOT / path), *flags], capture_output=True, text=True, env=environment)
    assert (process.returncode, process.stdout) == (2, "")
    assert process.stderr == "error: torch is not installed: pip install -r requirements.txt\n"
