"""The sweep: what it starts, in what order, where, and what it makes of interruptions and failures.

Most tests put a quick stand-in in the place of reproduce/train_many.py, which keeps run folders alike but trains nothing.
"""

import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from experiments import degradation, optimizer, sweep
from experiments.engine import dashboard, local_engine, run_queue, worker
from experiments.engine.progress import judge_ending
from reproduce import record
from reproduce.config import Config, RunOptions
from reproduce.errors import RunLocked, UnsupportedPrecision, UserError
from reproduce.run import main as train
from reproduce.run import parse
from tests.fake_records import SESSION, make_curve
from tests.test_dataset import forbid_network

ROOT = Path(sweep.__file__).parents[1]
CELLS = [Config(depth=8, batch_size=16, residual=residual) for residual in (False, True)]

STAND_IN = """
import json, os, shlex, signal, sys, threading, time
from reproduce import record
from reproduce.config import Locked, UserError
from reproduce.run import main as train
from reproduce.run import parse
from reproduce.schema import Row
from tests.fake_records import SESSION

stop = []
signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
signal.signal(signal.SIGINT, lambda *_: stop.append(1))
visible = {name: os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "ASCEND_RT_VISIBLE_DEVICES")}

def train(config, machine, folder, log):
    began = time.monotonic()
    print("some output")
    checkpoint = folder / "checkpoint.pt"
    done = int(checkpoint.read_text()) if checkpoint.exists() else 0
    log(f"start at {done}")
    record.write_metrics(folder, record.read_metrics(folder)[:done])
    row = {"learning_rate": 0.1, "train_loss": 1.0, "train_error": 40.0, "test_error": 50.0}
    row |= {"held_out_error": 50.0} if config.split == "val" else {}
    if config.net in os.environ.get("REFUSE", ""):
        raise UserError("there is no data")
    if config.net in os.environ.get("DIE", ""):
        print("oh", flush=True)
        os._exit(9)
    for iteration in range(done + 1, config.iterations + 1):
        time.sleep(float(os.environ.get("PACE", 0)))
        record.append_metrics(folder, Row(**row, iteration=iteration, seconds=2.0 * iteration))
        if stop or machine.time_limit is not None and time.monotonic() > began + machine.time_limit:
            checkpoint.write_text(str(iteration))
            return 75, "stopped"
        if config.net in os.environ.get("DIVERGE", ""):
            record.write_json(folder / "result.json", {"status": "diverged", "iteration": iteration})
            return 3, "diverged"
        if config.net in os.environ.get("FAIL", ""):
            print("this went wrong", file=sys.stderr)
            return 1, "Defect"
    record.write_json(folder / "environment.json", [SESSION | {"device_name": "abacus"}])
    record.write_responses(folder, [1.0] * (config.depth - 1), 10_000)
    result = {"status": "finished", "iterations": config.iterations, "mean_of_last_five_test_error": 50.0} | row
    result |= {"best_test_error": 50.0, "parameters": 77_850, "warmup_ended": None, "peak_memory": None, "seconds": 9.0}
    record.write_json(folder / "result.json", result | {"images_per_second": 8.0})
    return 0, "finished"

def take(number, line):
    with one_by_one:  # tyro is not made for several threads at once, and train_many.py does not ask it to be
        config, machine = parse(shlex.split(line))

    def log(event):
        line = {"event": event, "run": f"{config.net}/seed{config.seed}", "pid": os.getpid(), "time": time.monotonic()}
        with open(machine.out / "log", "a") as file:
            file.write(json.dumps(line | {"device": machine.device, "limit": machine.time_limit} | visible) + "\\n")

    try:
        with record.open_folder(config, machine.out) as folder:
            status, sentence = train(config, machine, folder, log)
            log("end")
    except Locked as error:
        status, sentence = error.status, error
    except UserError as error:
        status, sentence = 2, error
    print(f"line {number}, exit status {status}: {sentence}", flush=True)

def read():
    for number, line in enumerate(sys.stdin, start=1):
        threads.append(threading.Thread(target=take, args=(number, line)))
        threads[-1].start()
    threads.append(None)

threads, one_by_one = [], threading.Lock()
threading.Thread(target=read, daemon=True).start()
while any(thread and thread.is_alive() for thread in threads) or not (stop or None in threads):
    time.sleep(0.01)
"""

STARTER = """
import sys
from pathlib import Path
from experiments import degradation, sweep
from experiments.engine import worker
from reproduce.config import Config
sweep.check_obstacles = lambda *_: None  # there is no data set, and none is wanted
degradation.CONFIGS[:] = [Config(depth=8, batch_size=16, residual=residual) for residual in (False, True)]
if sys.argv[1] != "-":
    worker.RUNNER = Path(sys.argv[1])
sys.exit(sweep.main(sys.argv[2:]))
"""
"""A sweep as a process of its own, over CELLS, with the stand-in named first or, for "-", with reproduce/train_many.py."""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "stand_in.py"
    path.write_text(STAND_IN)
    monkeypatch.setattr(worker, "RUNNER", path)
    monkeypatch.setattr(degradation, "CONFIGS", CELLS)
    monkeypatch.setattr(sweep, "check_obstacles", lambda *_: None)  # there is no data set, and none is wanted
    monkeypatch.setattr(local_engine, "POLL", 0.02)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for variable in local_engine.VISIBLE.values():
        monkeypatch.delenv(variable, raising=False)
    return path


def arguments(out: Path, *more: str) -> list[str]:
    """By default one run after another, however many cores there are."""
    flags = ["--seeds", "2", "--iterations", "4", "--devices", "cpu", "--per-device", "1", "--out", str(out)]
    return ["degradation", *flags, *more]


def read_log(out: Path) -> list[dict]:
    path = out / "log"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def started(out: Path) -> list[str]:
    return [line["run"] for line in read_log(out) if line["event"].startswith("start")]


def run_folders() -> list[Path]:
    return [replace(cell, iterations=4, seed=seed).folder for seed in (0, 1) for cell in CELLS]


def wait_until(condition: Callable[[], object], seconds: float = 60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.02)


# What is trained, and in what order -----------------------------------------------------------------------------------


def test_seed_0_of_every_cell_comes_before_seed_1_of_any_and_what_is_done_is_skipped(stand_in, tmp_path, capsys):
    out = tmp_path / "records"
    assert sweep.main(arguments(out)) == 0
    assert started(out) == ["plain8/seed0", "residual8/seed0", "plain8/seed1", "residual8/seed1"]
    assert "4 of 4 runs finished" in capsys.readouterr().out
    assert sweep.main(arguments(out, "--seeds", "3")) == 0
    assert started(out)[4:] == ["plain8/seed2", "residual8/seed2"]
    assert sweep.main(arguments(out, "--seeds", "3")) == 0
    assert len(started(out)) == 6


def test_only_selects_by_folder_and_flags(stand_in, tmp_path):
    def lines(*patterns: str) -> list[str]:
        found = sweep.list_runs(sweep.parse(["bn_placement", "--seeds", "2", "--only", *patterns]))
        return [f"{config.net} {config.block} {config.seed}" for config in found]

    assert lines("residual32") == [f"residual32 {block} {k}" for k in (0, 1) for block in ("original", "bn-after-add")]
    assert lines("bn-after") == [f"residual{n} bn-after-add {k}" for k in (0, 1) for n in (20, 32, 44, 56, 110)]
    assert lines("residual[25]0*/seed1 ") == ["residual20 original 1", "residual20 bn-after-add 1"]


def test_several_patterns_are_trained_in_their_order(stand_in, tmp_path):
    assert sweep.main(arguments(tmp_path, "--only", "residual8*seed1", "plain8", "seed1")) == 0
    assert started(tmp_path) == ["residual8/seed1", "plain8/seed0", "plain8/seed1"]


def test_a_shortened_sweep_shortens_in_proportion_and_marks_other_data():
    flags = ["--iterations", "640", "--precision", "bf16", "--data", "synthetic", "--seeds", "2"]
    found = sweep.list_runs(sweep.parse(["optimizer", *flags]))
    assert {config.iterations for config in found if config.split == "full"} == {640}
    assert {(config.iterations, config.seed) for config in found if config.split == "val"} == {(160, 0)}
    assert {(config.precision, config.dataset) for config in found} == {("bf16", "synthetic")}


def test_cells_at_the_chosen_lr_join_when_their_grid_has_ended_before_seed_1_of_any(stand_in, tmp_path, monkeypatch, capsys):
    grid = [Config(depth=8, optimizer="adam", lr=lr, split="val") for lr in (1e-3, 1e-2)]
    monkeypatch.setattr(optimizer, "GRID", grid)
    monkeypatch.setattr(optimizer, "CONFIGS", [Config(depth=14)])
    chosen = [Config(depth=26)]
    monkeypatch.setattr(optimizer, "derived", lambda result_of: chosen if all(map(result_of, grid)) else [])
    command = ["optimizer", *arguments(tmp_path / "records")[1:]]
    assert sweep.main([*command, "--status"]) == 0
    assert "0 of 2 grid runs have ended" in capsys.readouterr().out
    assert sweep.main(command) == 0
    expected = ["residual8/seed0"] * 2 + [f"residual{depth}/seed{seed}" for seed in (0, 1) for depth in (14, 26)]
    assert started(tmp_path / "records") == expected
    assert "grid runs" not in capsys.readouterr().out


# Where ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "variable", "before", "expected"),
    [
        ("npu", "ASCEND_RT_VISIBLE_DEVICES", None, {"0", "1"}),
        ("cuda", "CUDA_VISIBLE_DEVICES", "4,7", {"4", "7"}),
    ],
)
def test_every_worker_sees_one_device_and_so_many_share_it(stand_in, tmp_path, monkeypatch, kind, variable, before, expected):
    out = tmp_path / "records"
    monkeypatch.setattr(sweep, "find_devices", lambda names: list(names))
    monkeypatch.setenv("PACE", "0.3")
    if before:
        monkeypatch.setenv(variable, before)
    devices = ["--devices", f"{kind}:0", f"{kind}:1", "--per-device", "2"]
    assert sweep.main(arguments(out, "--seeds", "3", *devices)) == 0
    log = read_log(out)
    assert {line["device"] for line in log} == {kind}
    assert {line[variable] for line in log} == expected
    for device in expected:
        steps = [1 if line["event"].startswith("start") else -1 for line in log if line[variable] == device]
        side_by_side = [sum(steps[: i + 1]) for i in range(len(steps))]
        assert max(side_by_side) == 2, f"on {device}: {side_by_side}"


def test_devices_are_those_of_the_machine(monkeypatch):
    from reproduce import device as devices

    monkeypatch.setattr(devices, "unusable_reason", lambda kind: None if kind in ("cuda", "cpu") else "there is none")
    monkeypatch.setattr(devices.torch.cuda, "device_count", lambda: 2)
    assert local_engine.find_devices([]) == ["cuda:0", "cuda:1"]
    assert local_engine.find_devices(["cuda"]) == ["cuda:0", "cuda:1"]
    assert local_engine.find_devices(["cuda:1", "cpu"]) == ["cuda:1", "cpu"]
    with pytest.raises(UserError, match="no device cuda:2"):
        local_engine.find_devices(["cuda:2"])
    with pytest.raises(UserError, match="npu is not usable: there is none"):
        local_engine.find_devices(["npu:0"])


def test_runs_side_by_side_on_a_cpu_share_its_cores(monkeypatch):
    monkeypatch.setattr(local_engine, "count_cores", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert local_engine.make_environment("cpu", 2)["OMP_NUM_THREADS"] == "4"
    assert "OMP_NUM_THREADS" not in local_engine.make_environment("cpu", 1)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert local_engine.make_environment("cpu", 2)["OMP_NUM_THREADS"] == "3"


@pytest.mark.parametrize(
    ("threads", "runs", "lanes", "reason"),
    [
        (None, 50, 6, "1 thread each; usable cores: 6"),
        ("", 50, 6, "1 thread each; usable cores: 6"),
        ("2", 50, 3, "2 threads each; usable cores: 6"),
        ("8", 50, 1, "8 threads each; usable cores: 6"),
        ("4,2", 50, 6, "1 thread each; usable cores: 6"),
        (None, 4, 4, "as many as there are to train; usable cores: 6"),
    ],
)
def test_a_cpu_has_a_run_for_every_core_that_may_be_used(monkeypatch, capsys, threads, runs, lanes, reason):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 3, 5, 8, 9}, raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if threads is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
    assert local_engine.choose_concurrency(["cpu"], [Config(seed=seed) for seed in range(runs)]) == {"cpu": lanes}
    expected = f"{lanes} {'run at a time' if lanes == 1 else 'runs at the same time'} on cpu ({reason}); --per-device"
    assert capsys.readouterr().out.startswith(expected)


def test_an_accelerator_has_as_many_runs_as_were_measured_the_fastest(tmp_path, monkeypatch, capsys):
    from reproduce import device as devices

    def row(depth: int, precision: str, candidate: str, median: float) -> dict:
        return {"depth": depth, "precision": precision, "candidate": candidate, "median": median}

    rows = [row(20, "fp32", "eager", 0.1), row(20, "fp32", "captured", 3.0), row(20, "fp32", "2 together", 2.0)]
    rows += [row(20, "fp32", "2 together contiguous", 0.1), row(20, "bf16", "2 together", 2.0)]
    rows += [row(20, "bf16", "captured", 3.0), row(20, "bf16", "4 together", 1.0), row(56, "bf16", "4 together", 3.0)]
    rows += [row(56, "bf16", "captured", 2.0), row(56, "bf16", "2 together", 1.6), row(56, "bf16", "8 together", 0.1)]
    quick = [row(20, "fp32", "captured", 1.0), row(20, "fp32", "2 together", 2.0)]
    (tmp_path / "A0-quick.json").write_text(json.dumps({"device_name": "A1", "rows": quick}))
    for name in ("A1", "B2"):
        own = [one | {"median": 1.0 if name == "B2" else one["median"]} for one in rows]
        (tmp_path / f"{name}.json").write_text(json.dumps({"device_name": name, "rows": own}))
    monkeypatch.setattr(local_engine, "THROUGHPUT", tmp_path)
    monkeypatch.setattr(devices.torch.cuda, "get_device_name", lambda index: ["A1", "other"][index])

    def choose(precision) -> dict[str, int]:
        return local_engine.choose_concurrency(["cuda:0", "cuda:1"], [Config(precision=precision)])

    assert choose("fp32") == {"cuda:0": 2, "cuda:1": 1}
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"2 runs at the same time on cuda:0 (the fastest in {tmp_path / 'A1.json'})")
    assert said[1].startswith("1 run at a time on cuda:1 (experiments/devices/throughput.py has not measured other)")
    assert choose("bf16")["cuda:0"] == 4, "1 * 3 ms are less than 2 * 1.6, and 8 are measured of one net only"
    assert choose("tf32")["cuda:0"] == 2, "of all nets, for want of that precision"
    (tmp_path / "A1.json").write_text(json.dumps({"device_name": "A1", "rows": rows[:2]}))
    assert choose("fp32")["cuda:0"] == 1 and "compares no other number" in capsys.readouterr().out
    (tmp_path / "A1.json").write_text("{}")
    with pytest.raises(UserError, match="A1.json is damaged .*: restore it or measure again"):
        choose("fp32")


def test_a_sweep_on_a_cpu_trains_side_by_side_unless_told_otherwise(stand_in, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {1, 2, 3}, raising=False)
    flags = [word for word in arguments(tmp_path) if word not in ("--per-device", "1")]
    assert sweep.main(flags) == 0
    assert "3 runs at the same time on cpu (1 thread each; usable cores: 3)" in capsys.readouterr().out
    assert len({line["pid"] for line in read_log(tmp_path)}) == 3
    assert sweep.main([*flags, "--seeds", "3", "--dry-run"]) == 0
    assert "with 3 side by side" in capsys.readouterr().out


# Failures -------------------------------------------------------------------------------------------------------------


def test_a_failed_run_does_not_stop_the_others_and_is_tried_again_next_time(stand_in, tmp_path, monkeypatch, capsys):
    out = tmp_path / "records"
    monkeypatch.setenv("FAIL", "plain8")
    assert sweep.main(arguments(out)) == 1
    said = capsys.readouterr().out
    assert "2 of 4 runs finished, 0 diverged, 2 failed, 0 left" in said
    for folder in run_folders()[::2]:
        assert re.search(
            rf"{folder}: failed, exit status 1\n(    .*\n)*    this went wrong\n    line \d, exit status 1: Defect\n", said
        )
    monkeypatch.delenv("FAIL")
    assert sweep.main(arguments(out)) == 0
    assert started(out)[4:] == ["plain8/seed0", "plain8/seed1"]


def test_a_worker_that_dies_takes_its_own_runs_with_it_and_no_others(stand_in, tmp_path, monkeypatch, capsys):
    out = tmp_path / "records"
    monkeypatch.setenv("DIE", "plain8")
    assert sweep.main(arguments(out)) == 1
    said = capsys.readouterr().out
    assert "2 of 4 runs finished, 0 diverged, 2 failed, 0 left" in said
    for folder in run_folders()[::2]:
        assert re.search(rf"{folder}: failed, exit status 9\n(    .*\n)*    oh\n", said)
    assert len({line["pid"] for line in read_log(out)}) == 3, (
        "a worker takes run after run, and there is a new one after a death"
    )


def test_after_a_defect_a_worker_gets_no_more_runs(stand_in, tmp_path, monkeypatch):
    """Whatever is wrong with its device may be wrong for good."""
    monkeypatch.setenv("FAIL", "residual8")
    assert sweep.main(arguments(tmp_path / "records")) == 1
    pids = [line["pid"] for line in read_log(tmp_path / "records") if line["event"] == "end"]
    assert pids[0] == pids[1] != pids[2] == pids[3]


def test_what_every_run_is_refused_for_ends_the_sweep_in_its_words(stand_in, tmp_path, monkeypatch):
    out = tmp_path / "records"
    monkeypatch.setenv("REFUSE", "plain8 residual8")
    with pytest.raises(UserError, match="^there is no data$"):
        sweep.main(arguments(out, "--seeds", "50"))
    assert len(started(out)) == 2
    monkeypatch.setenv("REFUSE", "plain8")
    assert sweep.main(arguments(out, "--seeds", "1")) == 1


def test_a_precision_that_the_device_lacks_is_in_the_way_of_no_other_run(tmp_path):
    configs = [Config(precision=precision, seed=seed) for seed in (0, 1) for precision in ("tf32", "fp32")]
    waiting = run_queue.RunQueue(lambda: configs, tmp_path, dashboard.Dashboard())
    refused = []
    while (config := waiting.take_run()) is not None:
        if config.precision == "tf32":
            refused.append(config)
            waiting.note_end(config, UnsupportedPrecision.status, "tf32 needs an accelerator", stopping=False)
    assert waiting.obstacle is None and list(waiting.failures) == refused == configs[::2]
    assert set(waiting.failures.values()) == {"exit status 2\n    tf32 needs an accelerator"}, "as run.py has it"


def test_a_damaged_record_stops_no_other_run_and_is_told_at_the_end(stand_in, tmp_path, capsys):
    out = tmp_path / "records"
    damaged = run_folders()[0]
    (out / damaged).mkdir(parents=True)
    (out / damaged / "config.json").write_text("{")
    assert sweep.main(arguments(out)) == 1
    said = capsys.readouterr().out
    assert "3 of 4 runs finished, 0 diverged, 1 failed, 0 left" in said
    told = rf"\n{damaged}: failed, exit status 2\n    \S+config.json is damaged .*restore it, or remove"
    assert re.search(told, said.partition("plain8/seed1: test error")[2] or said), said
    assert (out / damaged / "config.json").read_text() == "{"


def test_a_damaged_data_set_is_told_before_the_first_run(tmp_path, monkeypatch):
    """By one of its files, since a folder of its name is there."""
    data = tmp_path / "cifar-10-batches-py"
    data.mkdir()
    (data / "data_batch_1").write_bytes(b"not CIFAR-10")
    monkeypatch.setattr("urllib.request.urlopen", forbid_network)
    with pytest.raises(UserError, match=f"is damaged .{data / 'data_batch_1'}"):
        sweep.main(arguments(tmp_path / "records", "--data", str(tmp_path)))
    assert not (tmp_path / "records").exists()


def test_a_diverged_run_does_not_stop_the_others_and_is_not_trained_again(stand_in, tmp_path, monkeypatch, capsys):
    out = tmp_path / "records"
    monkeypatch.setenv("DIVERGE", "plain8")
    assert sweep.main(arguments(out)) == 1
    said = capsys.readouterr().out
    assert all(said.count(f"{folder}: diverged at iteration 1\n") == 2 for folder in run_folders()[::2]), said
    assert len(started(out)) == 4
    assert sweep.main(arguments(out)) == 1
    assert "2 of 4 runs finished, 2 diverged, 0 failed, 0 left" in capsys.readouterr().out
    assert len(started(out)) == 4


def test_a_run_that_another_process_is_training_is_left_to_it(stand_in, tmp_path, monkeypatch, capsys):
    out = tmp_path / "records"
    monkeypatch.setattr(run_queue, "LOCK_INTERVAL", 0.1)
    monkeypatch.setattr(run_queue, "LOCK_PATIENCE", 0.5)
    folder = run_folders()[0]
    (out / folder).mkdir(parents=True)
    with FileLock(out / folder / ".lock"):
        assert sweep.main(arguments(out)) == 75
    said = capsys.readouterr().out
    assert said.count(f"{folder}: another process is training it\n") == 1
    assert "3 of 4 runs finished, 0 diverged, 0 failed, 1 left" in said
    assert sweep.main(arguments(out)) == 0


def test_a_run_found_locked_only_by_its_worker_is_not_tried_for_ever(stand_in, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run_queue, "LOCK_INTERVAL", 0.1)
    monkeypatch.setattr(run_queue, "LOCK_PATIENCE", 0.5)
    monkeypatch.setattr(run_queue, "is_locked", lambda folder: False)
    folder = tmp_path / "records" / run_folders()[0]
    folder.mkdir(parents=True)
    with FileLock(folder / ".lock"):
        assert sweep.main(arguments(tmp_path / "records", "--seeds", "1")) == 75
    assert "1 of 2 runs finished, 0 diverged, 0 failed, 1 left" in capsys.readouterr().out


def test_a_run_taken_by_another_process_in_the_meantime_is_no_failure(tmp_path):
    config = CELLS[0]
    for stopping in (False, True):
        assert judge_ending(config, tmp_path, RunLocked.status, stopping) == "locked"
        assert judge_ending(config, tmp_path, UnsupportedPrecision.status, stopping) == "failed"
        assert judge_ending(config, tmp_path, 2, stopping) == "failed"


# Interruptions --------------------------------------------------------------------------------------------------------


def begin(runner: Path | str, *command: str, **environment: str) -> subprocess.Popen:
    """A sweep as a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-c", STARTER, str(runner), *command],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_sweep_leaves_checkpoints_and_goes_on_from_there(stand_in, tmp_path, number):
    out = tmp_path / "records"
    process = begin(stand_in, *arguments(out, "--per-device", "2"), PACE="0.4")
    wait_until(lambda: len(list(out.glob("*/seed0/metrics.jsonl"))) == 2)
    process.send_signal(number)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 75, said
    assert "0 of 4 runs finished, 0 diverged, 0 failed, 4 left; the same command goes on from there" in said
    assert len(list(out.glob("*/seed0/checkpoint.pt"))) == 2 and not list(out.glob("*/seed1"))
    assert sweep.main(arguments(out)) == 0
    resumed = [line["event"] for line in read_log(out) if line["event"].startswith("start")][2:4]
    assert all(re.fullmatch("start at [123]", event) for event in resumed), resumed


def test_a_worker_that_somebody_else_stops_loses_no_run(stand_in, tmp_path):
    out = tmp_path / "records"
    process = begin(stand_in, *arguments(out), PACE="0.3")
    wait_until(lambda: list(out.glob("*/seed0/metrics.jsonl")))
    os.kill(read_log(out)[0]["pid"], signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 75, said
    assert "3 of 4 runs finished, 0 diverged, 0 failed, 1 left; the same command goes on from there" in said


def test_a_second_interrupt_kills_the_workers(stand_in, tmp_path):
    out = tmp_path / "records"
    process = begin(stand_in, *arguments(out), PACE="1000")  # never comes to looking at its signals
    wait_until(lambda: started(out))
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 75, said
    assert not is_alive(read_log(out)[0]["pid"])


def is_alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.is_file() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent died")
def test_workers_do_not_outlive_a_killed_sweep(stand_in, tmp_path):
    out = tmp_path / "records"
    process = begin(stand_in, *arguments(out), PACE="0.2")
    wait_until(lambda: list(out.glob("*/seed0/metrics.jsonl")))
    process.kill()
    process.communicate(timeout=60)
    wait_until(lambda: not is_alive(read_log(out)[0]["pid"]))
    assert len(list(out.glob("*/seed0/checkpoint.pt"))) == 1


def test_the_time_limit_is_that_of_the_whole_sweep(stand_in, tmp_path, monkeypatch, capsys):
    out = tmp_path / "records"
    monkeypatch.setenv("PACE", "0.3")
    assert sweep.main(arguments(out, "--time-limit", "3")) == 75
    log = read_log(out)
    limits = [line["limit"] for line in log if line["event"].startswith("start")]
    assert all(0 < limit <= 3 for limit in limits) and limits == sorted(limits, reverse=True)
    assert limits
    assert "left; the same command goes on from there" in capsys.readouterr().out
    monkeypatch.setenv("PACE", "0")
    assert sweep.main(arguments(out)) == 0


def outcome(out: Path) -> dict[str, dict]:
    """All that training has decided, by run: results, curves and responses, apart from times."""
    times = ("seconds", "images_per_second")
    found = {}
    for path in out.glob("*/seed*"):
        rows = [json.loads(text) for text in (path / "metrics.jsonl").read_text().splitlines()]
        rows.append(json.loads((path / "result.json").read_text()))
        kept = [{key: value for key, value in row.items() if key not in times} for row in rows]
        found[str(path.relative_to(out))] = {"rows": kept, "responses": (path / "responses.json").read_text()}
    return found


def test_a_sweep_killed_with_all_its_processes_completes_as_if_unbroken(tmp_path, monkeypatch):
    """With reproduce/train_many.py itself; one run, since it is importing torch that takes the time here."""
    from reproduce.dataset import write_synthetic

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    small_set = tmp_path / "data" / "synthetic" / "cifar-10-batches-py"
    small_set.mkdir(parents=True)
    write_synthetic(small_set, train=500, test=100)
    flags = ["degradation", "--seeds", "1", "--only", "residual8", "--iterations", "60", "--data", "synthetic"]
    flags += ["--devices", "cpu", "--eval-every", "20", "--checkpoint-every", "10"]
    alone = "--depth 8 --batch-size 16 --iterations 60 --data synthetic --device cpu --eval-every 20 --out unbroken"
    assert train(alone.split()) == 0
    broken = begin("-", *flags, "--out", "broken")
    wait_until(lambda: list(Path("broken").glob("*/seed0/checkpoint.pt")))
    os.killpg(broken.pid, signal.SIGKILL)
    broken.communicate(timeout=60)
    assert not list(Path("broken").glob("*/seed0/result.json")), "it was over before it was killed"
    resumed = begin("-", *flags, "--out", "broken")
    said, _ = resumed.communicate(timeout=120)
    assert resumed.returncode == 0, said
    (environment,) = Path("broken").glob("*/seed0/environment.json")
    assert len(json.loads(environment.read_text())) == 2, "it was resumed"
    expected = outcome(Path("unbroken"))
    assert len(expected) == 1
    assert outcome(Path("broken")) == expected


def test_a_killed_sweep_completes_every_run(stand_in, tmp_path):
    out = tmp_path / "records"
    process = begin(stand_in, *arguments(out, "--per-device", "2"), PACE="0.4")
    wait_until(lambda: len(list(out.glob("*/seed0/metrics.jsonl"))) == 2)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=60)
    wait_until(lambda: not any(is_alive(line["pid"]) for line in read_log(out)))
    assert not list(out.glob("*/*/result.json"))
    assert sweep.main(arguments(out, "--per-device", "2")) == 0
    assert sorted(started(out)[2:]) == ["plain8/seed0", "plain8/seed1", "residual8/seed0", "residual8/seed1"]


# Telling without training ---------------------------------------------------------------------------------------------


def test_a_dry_run_prints_the_commands_starts_nothing_and_leaves_nothing(stand_in, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert sweep.main(arguments(tmp_path / "records", "--dry-run")) == 0
    assert sweep.main(arguments(tmp_path / "records", "--status")) == 0
    assert sorted(tmp_path.rglob("*")) == before
    lines = capsys.readouterr().out.splitlines()
    commands = [shlex.split(line, comments=True) for line in lines if line.startswith("python reproduce/run.py")]
    assert [parse(command[2:])[0].folder for command in commands] == run_folders()
    assert {parse(command[2:])[1].device for command in commands} == {"cpu"}
    assert "4 runs to train, 0 have ended" in lines
    assert "time: unknown, since no record tells the speed of a device" in lines


def test_the_estimate_takes_the_speed_from_the_records(stand_in, tmp_path, capsys):
    out = tmp_path / "records"
    assert sweep.main(arguments(out, "--seeds", "1", "--only", "plain8")) == 0
    capsys.readouterr()
    assert sweep.main(arguments(out, "--seeds", "3", "--per-device", "2", "--dry-run")) == 0
    said = capsys.readouterr().out
    # Two runs of 4 iterations of 16 images are left of the known net, at 8 images per second.
    expected = "time on abacus, by its records: 0:00:16 one run after another, 0:00:08 with 2 side by side"
    assert f"{expected}; unknown: 3 runs (residual8 in fp32)\n" in said
    assert "5 runs to train, 1 have ended\n" in said
    assert sweep.main(arguments(out, "--only", "plain8", "--precision", "bf16", "--dry-run")) == 0
    assert "time on abacus, by its records: unknown: 2 runs (plain8 in bf16)\n" in capsys.readouterr().out
    (sessions,) = out.glob("plain8*/seed0/environment.json")
    record.write_json(sessions, [SESSION | {"device_name": "another"}, SESSION | {"device_name": "abacus"}])
    assert sweep.main(arguments(out, "--seeds", "3", "--dry-run")) == 0
    assert "time: unknown" in capsys.readouterr().out, "the speed of a run that has moved is no device's"


def test_status_tells_the_state_of_every_run(stand_in, tmp_path, monkeypatch, capsys):
    out = tmp_path / "records"
    assert sweep.main(arguments(out, "--seeds", "1", "--only", "plain8")) == 0
    with record.open_run_folder(replace(CELLS[1], iterations=4), out) as folder:
        record.append_metrics(folder, make_curve(3, 40.0, 12.0, 1)[0])
    monkeypatch.setenv("DIVERGE", "plain8")
    assert sweep.main(arguments(out, "--only", "plain8")) == 1
    capsys.readouterr()
    assert sweep.main(arguments(out, "--status")) == 0
    plain, residual = (folder.parent for folder in run_folders()[:2])
    assert capsys.readouterr().out.splitlines() == [
        f"1 finished, 1 diverged, 1 unfinished, 1 missing; in {out}",
        f"{plain} --depth 8 --no-residual --batch-size 16 --iterations 4",
        "    seed 0 finished (50.00%), 1 diverged (1/4)",
        f"{residual} --depth 8 --batch-size 16 --iterations 4",
        "    seed 0 unfinished (3/4), 1 missing",
    ]
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "150")
    assert sweep.main(arguments(out, "--status")) == 0
    _, heading, *lines = capsys.readouterr().out.splitlines()
    assert [line.replace(" ", "") for line in lines] == [
        f"{plain}/seed0{20 * '█'}100%50.00%finished--depth8--no-residual--batch-size16--iterations4",
        f"{residual}/seed0{15 * '█'}{5 * '░'}75%12.00%0:00:20--depth8--batch-size16--iterations4",  # 60 s until 3 of 4
        f"{plain}/seed1{5 * '█'}{15 * '░'}25%-diverged--depth8--no-residual--batch-size16--iterations4",
        f"{residual}/seed1{20 * '░'}0%-0:01:20--depth8--batch-size16--iterations4",
    ]
    assert {line.index("--depth") for line in lines} == {heading.index("flags")}
    monkeypatch.setenv("COLUMNS", "90")
    assert sweep.main(arguments(out, "--status")) == 0
    assert [line[:90].rstrip() for line in lines] == capsys.readouterr().out.splitlines()[2:]


def test_telling_needs_no_torch(tmp_path):
    code = """if True:
        import sys
        from experiments import sweep
        for flag in ("--dry-run", "--status"):
            assert sweep.main(["optimizer", flag]) == 0
        assert "torch" not in sys.modules and "ray" not in sys.modules
    """
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True, stdout=subprocess.DEVNULL)
    assert not list(tmp_path.iterdir())


def begin_on_terminal(runner: Path, out: Path) -> tuple[subprocess.Popen, int]:
    """A sweep of one run, and the other end of the terminal it writes to, which does not control it."""
    terminal, its_end = pty.openpty()
    command = [sys.executable, "-c", STARTER, str(runner), *arguments(out, "--seeds", "1", "--only", "residual8")]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PACE": "0.8", "COLUMNS": "120", "LINES": "10"}
    process = subprocess.Popen(command, env=environment, stdout=its_end, start_new_session=True)
    os.close(its_end)
    return process, terminal


def test_a_sweep_whose_terminal_is_gone_goes_on(stand_in, tmp_path):
    process, terminal = begin_on_terminal(stand_in, tmp_path / "records")
    wait_until(lambda: list(tmp_path.glob("records/*/seed0/metrics.jsonl")))
    os.close(terminal)
    assert process.wait(60) == 0
    assert list(tmp_path.glob("records/*/seed0/result.json"))


def test_on_a_terminal_a_table_shows_the_runs_in_training(stand_in, tmp_path):
    out = tmp_path / "records"
    process, terminal = begin_on_terminal(stand_in, out)
    said = ""
    while process.poll() is None or not said.endswith("left\r\n"):
        try:
            said += os.read(terminal, 4096).decode()
        except OSError:  # what reading gives when the other end is closed
            break
    os.close(terminal)
    assert process.wait(60) == 0, said
    assert "0 of 1 done, 1 in training\r\n" in said
    rows = [rf"{run_folders()[1]} +cpu +training +{done}/4 +50\.00% +0:00:0{8 - 2 * done}\r\n" for done in (1, 2, 3)]
    assert any(re.search(row, said) for row in rows), said  # each is there for less than the seconds between two drawings
    assert dashboard.ERASE in said
    assert said.endswith("1 of 1 runs finished, 0 diverged, 0 failed, 0 left\r\n")


# Wrong use ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("nosuch", "invalid choice 'nosuch'.*degradation"),
        ("", "name an experiment: degradation, bn_placement"),
        ("degradation --only residual21", "no run of degradation matches 'residual21'"),
        ("degradation --only plain21 residual21", "no run of degradation matches 'plain21' or 'residual21'"),
        ("degradation --seeds 0", "seeds must be at least 1, not 0"),
        ("degradation --seeds many", "--seeds.*'many'"),
        ("degradation --iterations 0", "iterations must be at least 1, not 0"),
        ("degradation --precision fp16", "'fp16'"),
        ("degradation --per-device 0", "per-device must be at least 1, not 0"),
        ("degradation --time-limit -1", "time-limit must be positive, not -1.0"),
        ("degradation --devices gpu:0", "devices are named .* not 'gpu:0'"),
        ("degradation --devices cpu cpu", "a device is named twice"),
        ("degradation --data", "--data"),
    ],
)
def test_wrong_use_is_one_sentence(line: str, sentence: str, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=f"^[^\n]*{sentence}[^\n]*$"):
        sweep.main(line.split())
    assert not list(tmp_path.iterdir())


def test_wrong_use_on_the_command_line_exits_with_2_and_no_traceback(tmp_path):
    command = [sys.executable, str(ROOT / "experiments" / "sweep.py"), "degradation", "--devices", "tpu"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert process.returncode == 2 and process.stdout == ""
    assert process.stderr == "error: devices are named cpu, cuda:0, npu:0 and so on, not 'tpu'\n"
    assert not list(tmp_path.iterdir())


def test_without_ray_the_cluster_engine_says_what_to_install(stand_in, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match="pip install ray"):
        sweep.main(arguments(tmp_path / "records", "--engine", "ray"))


def test_a_device_that_is_not_there_is_refused_before_anything_is_written(stand_in, tmp_path):
    with pytest.raises(UserError, match="no device|not usable"):
        sweep.main([*arguments(tmp_path / "records"), "--devices", "cuda:99"])
    assert not (tmp_path / "records").exists()


def test_machine_settings_reach_the_runs():
    options = sweep.parse(["deep", "--eval-every", "7", "--checkpoint-every", "9", "--data", "here"]).options()
    assert options == RunOptions(data="here", out=Path("experiments/records"), eval_every=7, checkpoint_every=9)
