"""run.py: flags, user errors, exit statuses, and complete runs."""

import json
import math
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reproduce.cli import run_cli
from reproduce.config import Config, RunOptions
from reproduce.errors import UserError
from reproduce.record import describe_config, read_record, read_result
from reproduce.run import HINTS, STOPPING, main, parse, training_task
from reproduce.schema import Finished
from tests.conftest import QUICK, QUICK_FLAGS
from tests.fake_records import write_run

RUN = Path(__file__).parents[1] / "reproduce" / "run.py"


class Ended(NamedTuple):
    status: int
    out: str
    err: str


Run = Callable[[str], Ended]


@pytest.fixture
def run(workplace: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs a command line in this process."""

    def run(flags: str) -> Ended:
        status = run_cli(main, flags.split())
        captured = capsys.readouterr()
        return Ended(status, captured.out, captured.err)

    return run


# Flags ----------------------------------------------------------------------------------------------------------------


def test_a_config_file_is_trained_and_flags_override_it(tmp_path: Path):
    path, config = tmp_path / "config.json", Config(depth=44, residual=False, optimizer="adam", dataset="synthetic", seed=3)
    path.write_text(json.dumps(describe_config(config)))
    assert parse(["--config", str(path)])[0] == config
    changed = parse(["--seed", "5", "--config", str(path), "--residual", "--optimizer", "sgd", "--data", "elsewhere"])[0]
    assert changed == Config(depth=44, seed=5), "the learning rate of sgd, too"
    path.write_text('{"dropout": 0.5}')
    with pytest.raises(UserError, match="config.json is not a config.json"):
        parse(["--config", str(path)])


@pytest.mark.parametrize("flag", HINTS)
def test_flags_of_other_programs_get_a_hint(flag: str):
    for arguments in ([flag, "3"], [f"{flag}=3"]):
        with pytest.raises(UserError, match=f"no {flag}: use --"):
            parse(arguments)


FLAGS = [f"--{name.replace('_', '-')}" for settings in (Config, RunOptions) for name in settings.__dataclass_fields__]
TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
NUMBER = st.one_of(st.integers(), st.floats()).map(str)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.sampled_from(FLAGS), st.one_of(TEXT, NUMBER)), min_size=1, max_size=3))
def test_any_value_of_any_flag_is_accepted_or_a_user_error(pairs: list[tuple[str, str]]):
    try:
        config, options = parse([part for pair in pairs for part in pair])
    except UserError as error:
        assert len(str(error)) > 10 and "\n" not in str(error)
    else:
        assert config.depth % 6 == 2 and config.lr is not None and 0 < config.lr < math.inf
        assert (options.time_limit is None or options.time_limit > 0) and options.eval_every > 0


# Complete runs ----------------------------------------------------------------------------------------------------------


def test_a_run_from_start_to_finish_and_repeated(workplace: Path, run: Run):
    first = run(f"{QUICK_FLAGS} --eval-every 10")
    assert (first.status, first.err) == (0, "")
    lines = first.out.splitlines()
    header, rows, last = lines[:4], [line for line in lines if "test error" in line][:-1], lines[-1]
    folder = workplace / "runs" / QUICK.folder
    assert "75,290 parameters" in header[0] and "cpu (" in header[1] and "1 thread" in header[1]
    assert "2,000 training, 200 test" in header[2] and f"runs/{QUICK.folder}: new run, 24 iterations" in header[3]
    assert [row.split()[4] for row in rows] == ["10/24", "20/24", "24/24"]
    found = read_record(folder)
    assert isinstance(found.result, Finished) and found.result.parameters == 75_290
    assert f"final test error {found.result.test_error:.2f}%" in last and str(QUICK.folder) in last
    assert [row.learning_rate for row in found.rows] == pytest.approx([0.1, 0.001, 0.001])
    assert {path.name for path in folder.iterdir()} - {".lock"} == {
        "config.json", "environment.json", "metrics.jsonl", "checkpoint.pt", "responses.json", "predictions.txt",
        "confusion.csv", "result.json",
    }  # fmt: skip
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    again = run(QUICK_FLAGS)
    assert again.status == 0 and again.out == f"nothing to do, the run has already ended: {last}\n"
    assert before == {path: path.stat().st_mtime_ns for path in folder.iterdir()}


def test_a_run_that_ends_elsewhere_while_data_are_loaded_stays_as_it_is(workplace: Path, run: Run):
    task = training_task(*parse(QUICK_FLAGS.split()), [])
    next(task)
    assert run(QUICK_FLAGS).status == 0
    folder = workplace / "runs" / QUICK.folder
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir() if path.name != ".lock"}
    with pytest.raises(StopIteration) as ended:
        next(task)
    assert ended.value.value.message.startswith("nothing to do, the run has already ended: residual8: final test error")
    assert before == {path: path.stat().st_mtime_ns for path in folder.iterdir() if path.name != ".lock"}


def test_a_signal_while_data_are_loaded_ends_the_process_at_once(workplace: Path):
    code = (
        "import os, sys\nfrom reproduce import device, sampling, run\n"
        f"sampling.load_data = lambda *_: os.kill(os.getpid(), {int(signal.SIGTERM)})\n"
        "sys.exit(run.main(sys.argv[1:]))"
    )
    process = subprocess.run([sys.executable, "-c", code, *QUICK_FLAGS.split()])
    assert process.returncode == -signal.SIGTERM
    assert not (workplace / "runs").exists()


def test_the_validation_error_is_reported(workplace: Path, run: Run):
    assert run(f"{QUICK_FLAGS} --split val").status == 0
    result = read_result(workplace / "runs" / replace(QUICK, split="val").folder)
    assert isinstance(result, Finished) and 0 < (result.held_out_error or 0) < 100
    assert result.held_out_error != result.test_error


def test_a_stopped_run_outlives_a_full_disk_and_resumes(workplace: Path, run: Run):
    """A limit on the size of files acts like a full disk: no further checkpoint fits."""
    stopped = run(f"{QUICK_FLAGS} --time-limit 0.001")
    assert stopped.status == 75 and "stopped early" in stopped.out
    checkpoint = workplace / "runs" / QUICK.folder / "checkpoint.pt"
    before, names = checkpoint.read_bytes(), set(checkpoint.parent.iterdir())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
        ended = run(QUICK_FLAGS)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert ended.status == 2 and ended.err.count("\n") == 1 and f"{QUICK.folder}/checkpoint.pt: File too large" in ended.err
    assert checkpoint.read_bytes() == before and set(checkpoint.parent.iterdir()) == names
    resumed = run(QUICK_FLAGS)
    assert resumed.status == 0 and "resuming at iteration" in resumed.out


def test_a_second_process_is_refused_and_a_signal_stops_the_first(workplace: Path, run: Run):
    flags = QUICK_FLAGS.replace("24", "100000") + " --eval-every 20"
    line, pipe = [sys.executable, str(RUN), *flags.split()], subprocess.PIPE
    with subprocess.Popen(line, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        while "iteration 20/" not in (printed := process.stdout.readline()):
            assert printed, "the first process has ended"
        second = run(flags)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate()
    assert second.status == 2 and f"locked by process {process.pid} on" in second.err
    assert process.returncode == 75 and "stopped early" in out and err == f"\n{STOPPING}\n"
    (folder,) = (workplace / "runs").glob("*/seed0")
    assert (folder / "checkpoint.pt").exists() and not (folder / "result.json").exists()


def test_divergence_has_its_own_exit_status(run: Run):
    first, again = (run(f"{QUICK_FLAGS} --lr 1e30") for _ in range(2))
    assert first.status == again.status == 3
    assert "diverged at iteration" in first.out and "has already ended" in again.out


def test_the_final_message_gives_the_papers_number_for_the_papers_networks_and_data(run: Run):
    for flags, is_papers in (
        ("--depth 44 --iterations 3", True),
        ("--depth 44 --no-residual", False),
        ("--depth 44 --block bn-after-add", False),
        ("--data synthetic", False),
    ):
        write_run(Path("runs"), parse(flags.split())[0], 7.5, evaluations=1)
        ended = run(flags)
        assert ended.status == 0 and "final test error 7.50%" in ended.out
        assert "(paper: 7.17%" in ended.out if is_papers else "paper" not in ended.out


def test_the_example_of_use_as_a_library(workplace: Path, capsys: pytest.CaptureFixture[str]):
    _, _, rest = (RUN.parents[1] / "docs" / "extending.md").read_text().partition("```python\n")
    exec(rest.partition("```")[0], {})
    printed = capsys.readouterr().out
    assert "final test error" in printed and "Finished(" in printed and "tensor(" in printed
