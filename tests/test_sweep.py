"""sweep.py: which runs it starts, in what order and where, and how it handles interruptions and failures.

Most tests replace reproduce/train_many.py by a fast stand-in that writes the same run folders but trains nothing.
"""

import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import termios
import time
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from experiments import degradation, sweep
from experiments.engine import local_engine, run_queue, worker
from reproduce import record
from reproduce.config import Config, load_config
from reproduce.errors import UnsupportedPrecision, UserError
from reproduce.run import main as train
from reproduce.run import parse
from tests.conftest import assert_equal, wait_until
from tests.fake_records import SESSION, write_run
from tests.outcome import read_outcome

ROOT = Path(sweep.__file__).parents[1]
CONFIGS = [Config(depth=8, batch_size=16, residual=residual) for residual in (False, True)]

STAND_IN = """
import json, os, shlex, signal, sys, threading, time
from reproduce import record
from reproduce.errors import UserError
from reproduce.run import parse
from reproduce.schema import Diverged, Responses
from tests.fake_records import SESSION, make_curve, make_result

stop = []
signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
signal.signal(signal.SIGINT, lambda *_: stop.append(1))
visible = {name: os.environ.get(name) for name in ("CUDA_VISIBLE_DEVICES", "ASCEND_RT_VISIBLE_DEVICES")}
assert sys.argv[1] == "--outcomes"

def train(config, options, folder, log):
    def is_set(variable):
        return config.net in os.environ.get(variable, "")

    start, checkpoint = time.monotonic(), folder / "checkpoint.pt"
    done = int(checkpoint.read_text()) if checkpoint.exists() else 0
    log(f"start at {done}")
    record.write_json(folder / record.ENVIRONMENT, [SESSION | {"device_name": "abacus", "eval_every": 1}])
    if is_set("REFUSE"):
        raise UserError("there is no data")
    if is_set("DIE"):
        print("oh", flush=True)
        os._exit(9)
    rows = make_curve(config.iterations, 40.0, 50.0, config.iterations)
    for iteration in range(done + 1, config.iterations + 1):
        time.sleep(float(os.environ.get("PACE", 0)))
        record.write_metrics(folder, rows[:iteration])
        if stop or options.time_limit is not None and time.monotonic() > start + options.time_limit:
            checkpoint.write_text(str(iteration))
            return 75, "stopped"
        if is_set("DIVERGE"):
            record.write_json(folder / record.RESULT, Diverged(iteration=iteration))
            return 3, "diverged"
        if is_set("FAIL"):
            print("this went wrong", file=sys.stderr)
            return 1, "Defect"
    record.write_json(folder / record.RESPONSES, Responses(images=10_000, std=[1.0] * (config.depth - 1)))
    result = make_result(config, rows)
    result.images_per_second = 8.0
    record.write_json(folder / record.RESULT, result)
    return 0, "finished"

def run(number, line):
    with parsing:  # tyro is not thread-safe
        config, options = parse(shlex.split(line))

    def log(event):
        line = {"event": event, "run": f"{config.net}/seed{config.seed}", "pid": os.getpid(), "device": options.device}
        with open(options.out / "log", "a") as file:
            file.write(json.dumps(line | {"limit": options.time_limit} | visible) + "\\n")

    try:
        with record.open_run_folder(config, options.out) as folder:
            status, message = train(config, options, folder, log)
            log("end")
    except UserError as error:
        status, message = error.status, str(error)
    with open(sys.argv[2], "a") as file:
        file.write(json.dumps({"line": number, "status": status, "message": message}) + "\\n")

def read_lines():
    for number, line in enumerate(sys.stdin, start=1):
        threads.append(threading.Thread(target=run, args=(number, line)))
        threads[-1].start()
    threads.append(None)

threads, parsing = [], threading.Lock()
threading.Thread(target=read_lines, daemon=True).start()
while any(thread and thread.is_alive() for thread in threads) or not (stop or None in threads):
    time.sleep(0.01)
"""

STARTER = """
import sys
from pathlib import Path
from experiments import degradation, sweep
from experiments.engine import worker
from reproduce.config import Config
degradation.CONFIGS[:] = [Config(depth=8, batch_size=16, residual=residual) for residual in (False, True)]
if sys.argv[1]:
    sweep.check_data = lambda *_: None
    worker.PROGRAM = Path(sys.argv[1])
sys.exit(sweep.main(sys.argv[2:]))
"""
"""A sweep over CONFIGS in its own process, with the stand-in named first or, if that is empty, with real training."""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "stand_in.py"
    path.write_text(STAND_IN)
    monkeypatch.setattr(worker, "PROGRAM", path)
    monkeypatch.setattr(degradation, "CONFIGS", CONFIGS)
    monkeypatch.setattr(sweep, "check_data", lambda *_: None)
    monkeypatch.setattr(local_engine, "POLL", 0.02)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for variable in local_engine.VISIBLE.values():
        monkeypatch.delenv(variable, raising=False)
    return path


@pytest.fixture
def out(stand_in: Path, tmp_path: Path) -> Path:
    return tmp_path / "records"


def arguments(out: Path, *more: str) -> list[str]:
    """By default one run after another."""
    flags = ["--seeds", "2", "--iterations", "4", "--devices", "cpu", "--per-device", "1", "--out", str(out)]
    return ["degradation", *flags, *more]


def read_log(out: Path) -> list[dict]:
    path = out / "log"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def list_started(out: Path) -> list[str]:
    return [line["run"] for line in read_log(out) if line["event"].startswith("start")]


def run_folders() -> list[Path]:
    return [replace(config, iterations=4, seed=seed).folder for seed in (0, 1) for config in CONFIGS]


def start_sweep(*flags: str, program: Path | str = "", output: int = subprocess.PIPE, **environment: str) -> subprocess.Popen:
    """Start a sweep in its own process group."""
    return subprocess.Popen(
        [sys.executable, "-c", STARTER, str(program), *flags],
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        start_new_session=True,
        stdout=output,
        stderr=output if output >= 0 else subprocess.STDOUT,
        text=True,
    )


# Which runs -----------------------------------------------------------------------------------------------------------


def test_seed_0_of_all_configurations_comes_first_and_finished_runs_are_skipped(out, capsys):
    assert sweep.main(arguments(out)) == 0
    assert list_started(out) == ["plain8/seed0", "residual8/seed0", "plain8/seed1", "residual8/seed1"]
    assert "4 of 4 runs finished" in capsys.readouterr().out
    assert sweep.main(arguments(out, "--seeds", "3")) == 0
    assert list_started(out)[4:] == ["plain8/seed2", "residual8/seed2"]


def test_only_selects_by_folder_and_flags_in_the_order_of_the_patterns():
    def select(*patterns: str) -> list[str]:
        found = sweep.list_runs(sweep.parse(["bn_placement", "--seeds", "2", "--only", *patterns]))
        return [f"{config.net} {config.block} {config.seed}" for config in found]

    assert select("residual32") == [f"residual32 {block} {k}" for k in (0, 1) for block in ("original", "bn-after-add")]
    assert select("resnet32") == select("residual32")
    assert select("residual[25]0*/seed1 ") == ["residual20 original 1", "residual20 bn-after-add 1"]
    in_order = [f"residual{depth} bn-after-add {seed}" for depth, seed in ((44, 1), (32, 0), (32, 1))]
    assert select("residual44*seed1*after", "residual32*after") == in_order
    everything = sweep.parse(["degradation", "--seeds", "1", "--only", "resnet", "residual"])
    assert {config.residual for config in sweep.list_runs(everything)} == {True}, "plain runs have the flag --no-residual"


def test_iterations_shortens_the_grid_in_proportion():
    flags = ["--iterations", "640", "--precision", "bf16", "--data", "synthetic", "--seeds", "2"]
    found = sweep.list_runs(sweep.parse(["optimizer", *flags]))
    assert {config.iterations for config in found if config.split == "full"} == {640}
    assert {config.iterations for config in found if config.split == "val"} == {160}
    assert {(config.precision, config.dataset) for config in found} == {("bf16", "synthetic")}


# Where ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "variable", "before", "expected"),
    [("npu", "ASCEND_RT_VISIBLE_DEVICES", None, {"0", "1"}), ("cuda", "CUDA_VISIBLE_DEVICES", "4,7", {"4", "7"})],
)
def test_each_worker_sees_one_device_and_trains_two_runs_on_it(out, monkeypatch, kind, variable, before, expected):
    monkeypatch.setattr(sweep, "find_devices", lambda names: list(names))
    monkeypatch.setenv("PACE", "0.3")
    if before:
        monkeypatch.setenv(variable, before)
    assert sweep.main(arguments(out, "--seeds", "3", "--devices", f"{kind}:0", f"{kind}:1", "--per-device", "2")) == 0
    log = read_log(out)
    assert {line["device"] for line in log} == {kind}
    assert {line[variable] for line in log} == expected
    for device in expected:
        steps = [1 if line["event"].startswith("start") else -1 for line in log if line[variable] == device]
        assert max(sum(steps[: i + 1]) for i in range(len(steps))) == 2


def test_devices_are_those_of_the_machine(monkeypatch):
    from reproduce import device as devices

    monkeypatch.setattr(devices, "explain_unusable", lambda kind: None if kind in ("cuda", "cpu") else "there is none")
    monkeypatch.setattr(devices.torch.cuda, "device_count", lambda: 2)
    assert local_engine.find_devices([]) == local_engine.find_devices(["cuda"]) == ["cuda:0", "cuda:1"]
    assert local_engine.find_devices(["cuda:1", "cpu"]) == ["cuda:1", "cpu"]
    with pytest.raises(UserError, match="no device cuda:2"):
        local_engine.find_devices(["cuda:2"])
    with pytest.raises(UserError, match="npu is not usable"):
        local_engine.find_devices(["npu:0"])


@pytest.mark.parametrize(("threads", "runs", "slots"), [("", 50, 6), ("2", 50, 3), ("8", 4, 1), ("", 4, 4)])
def test_a_cpu_trains_one_run_per_available_core(monkeypatch, threads, runs, slots):
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1, 3, 5, 8, 9}, raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    assert local_engine.choose_concurrency("cpu", runs) == slots
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert local_engine.build_worker_environment("cpu", 2)["OMP_NUM_THREADS"] == "3"
    assert "OMP_NUM_THREADS" not in local_engine.build_worker_environment("cpu", 1)


# Failures -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("variable", "reason", "output"), [("FAIL", "Defect", "this went wrong"), ("DIE", ".* exit status 9", "oh")]
)
def test_a_failed_run_does_not_stop_the_others_and_is_retried_next_time(out, monkeypatch, capsys, variable, reason, output):
    """FAIL: an unexpected error in the run. DIE: the death of its worker."""
    monkeypatch.setenv(variable, "plain8")
    assert sweep.main(arguments(out)) == 1
    printed = capsys.readouterr().out
    assert "2 of 4 runs finished, 0 diverged, 2 failed, 0 left" in printed
    for folder in run_folders()[::2]:
        assert re.search(rf"{folder}: failed: {reason}\n(    .*\n)*    {output}\n", printed)
    pids = [line["pid"] for line in read_log(out) if line["event"].startswith("start")]
    assert pids[0] != pids[1] == pids[2] != pids[3], "after an unexpected error a worker gets no more runs"
    monkeypatch.delenv(variable)
    assert sweep.main(arguments(out)) == 0
    assert list_started(out)[4:] == ["plain8/seed0", "plain8/seed1"]


def test_an_error_common_to_all_runs_ends_the_sweep(out, monkeypatch):
    monkeypatch.setenv("REFUSE", "plain8 residual8")
    for flags, started in (([], 2), (["--only", "plain8"], 4)):
        with pytest.raises(UserError, match="^there is no data$"):
            sweep.main(arguments(out, "--seeds", "50", *flags))
        assert len(list_started(out)) == started


def test_outcomes_that_do_not_stop_other_runs(tmp_path):
    configs = [Config(precision=precision, seed=seed) for seed in (0, 1) for precision in ("tf32", "fp32")]
    queue = run_queue.RunQueue(configs, tmp_path)
    while (config := queue.take_run()) is not None:
        if config.precision == "tf32":
            queue.record_outcome(config, UnsupportedPrecision.status, "tf32 needs an accelerator", stopping=False)
    assert queue.common_error is None and list(queue.failures) == configs[::2]
    for status in (-signal.SIGKILL, 130):
        queue.record_outcome(configs[1], status, "its process ended", stopping=True)
    assert configs[1] not in queue.failures, "it was killed because the sweep is stopping"
    for config in configs[1::2]:
        queue.record_outcome(config, 2, "its batches are too large", stopping=False)
    assert queue.common_error is None, "an error of one configuration"


def test_a_damaged_record_is_reported_before_training(out):
    damaged = out / run_folders()[1]
    damaged.mkdir(parents=True)
    (damaged / "config.json").write_text("{")
    for flags in ([], ["--status"], ["--dry-run"]):
        with pytest.raises(UserError, match="config.json is damaged"):
            sweep.main(arguments(out, *flags))
    assert list_started(out) == []


def test_a_diverged_run_is_not_trained_again(out, monkeypatch, capsys):
    monkeypatch.setenv("DIVERGE", "plain8")
    for _ in range(2):
        assert sweep.main(arguments(out)) == 1
        assert "2 of 4 runs finished, 2 diverged, 0 failed, 0 left" in capsys.readouterr().out
    assert len(list_started(out)) == 4


@pytest.mark.parametrize("is_seen", [True, False], ids=["found locked by the sweep", "found locked by its worker"])
def test_a_run_locked_by_another_process_is_left_to_it(out, monkeypatch, capsys, is_seen):
    if not is_seen:
        monkeypatch.setattr(run_queue, "is_locked", lambda folder: False)
    folder = run_folders()[0]
    (out / folder).mkdir(parents=True)
    with FileLock(out / folder / ".lock"):
        assert sweep.main(arguments(out)) == 75
    printed = capsys.readouterr().out
    assert printed.count(f"{folder}: another process is training it\n") == 1
    assert "3 of 4 runs finished, 0 diverged, 0 failed, 1 left" in printed
    assert sweep.main(arguments(out)) == 0
    monkeypatch.setattr(run_queue, "is_locked", lambda folder: pytest.fail(f"{folder} has ended"))
    assert run_queue.RunQueue([load_config(out / folder / "config.json")], out).take_run() is None


# Interruptions --------------------------------------------------------------------------------------------------------


def test_a_stopped_sweep_leaves_checkpoints_and_resumes(stand_in, out):
    process = start_sweep(*arguments(out, "--per-device", "2"), program=stand_in, PACE="0.4")
    wait_until(lambda: len(list(out.glob("*/seed0/metrics.jsonl"))) == 2)
    process.send_signal(signal.SIGTERM)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 75, printed
    assert "0 of 4 runs finished, 0 diverged, 0 failed, 4 left; the same command resumes" in printed
    assert len(list(out.glob("*/seed0/checkpoint.pt"))) == 2 and not list(out.glob("*/seed1"))
    assert sweep.main(arguments(out)) == 0
    resumed = [line["event"] for line in read_log(out) if line["event"].startswith("start")][2:4]
    assert all(re.fullmatch("start at [123]", event) for event in resumed), resumed


def test_a_second_interrupt_kills_the_workers(stand_in, out):
    process = start_sweep(*arguments(out), program=stand_in, PACE="1000")  # checks its signals after each iteration only
    wait_until(lambda: list_started(out))
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 75, printed
    assert not is_alive(read_log(out)[0]["pid"])


def is_alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.is_file() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux signals a process that its parent died")
def test_workers_do_not_outlive_a_killed_sweep(stand_in, out):
    process = start_sweep(*arguments(out), program=stand_in, PACE="0.2")
    wait_until(lambda: list(out.glob("*/seed0/metrics.jsonl")))
    process.kill()
    process.communicate(timeout=60)
    wait_until(lambda: not is_alive(read_log(out)[0]["pid"]))
    assert len(list(out.glob("*/seed0/checkpoint.pt"))) == 1


def test_the_time_limit_applies_to_the_whole_sweep(out, monkeypatch, capsys):
    monkeypatch.setenv("PACE", "1")
    assert sweep.main(arguments(out, "--time-limit", "4")) == 75
    limits = [line["limit"] for line in read_log(out) if line["event"].startswith("start")]
    assert limits and all(0 < limit <= 4 for limit in limits) and limits == sorted(limits, reverse=True)
    monkeypatch.setenv("PACE", "0")
    assert sweep.main(arguments(out)) == 0


def test_a_killed_sweep_ends_like_an_uninterrupted_one(workplace, monkeypatch):
    """With reproduce/train_many.py itself."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    flags = ["degradation", "--seeds", "1", "--only", "residual8", "--iterations", "60", "--data", "synthetic"]
    flags += ["--devices", "cpu", "--eval-every", "20", "--checkpoint-every", "10", "--out", "killed"]
    alone = "--depth 8 --batch-size 16 --iterations 60 --data synthetic --device cpu --eval-every 20 --out uninterrupted"
    assert train(alone.split()) == 0
    killed = start_sweep(*flags)
    wait_until(lambda: list(Path("killed").glob("*/seed0/checkpoint.pt")))
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate(timeout=60)
    assert not list(Path("killed").glob("*/seed0/result.json"))
    resumed = start_sweep(*flags)
    printed, _ = resumed.communicate(timeout=120)
    assert resumed.returncode == 0, printed
    (folder,) = Path("killed").glob("*/seed0")
    assert len(json.loads((folder / record.ENVIRONMENT).read_text())) == 2
    assert_equal(read_outcome(folder), read_outcome(Path("uninterrupted") / folder.relative_to("killed")))


# --dry-run, --status and the table --------------------------------------------------------------------------------------


def test_a_dry_run_prints_the_commands_and_writes_nothing(out, tmp_path, capsys):
    before = sorted(tmp_path.rglob("*"))
    assert sweep.main(arguments(out, "--dry-run")) == 0
    assert sweep.main(arguments(out, "--status")) == 0
    assert sorted(tmp_path.rglob("*")) == before
    lines = capsys.readouterr().out.splitlines()
    commands = [shlex.split(line, comments=True) for line in lines if line.startswith("python reproduce/run.py")]
    assert [parse(command[2:])[0].folder for command in commands] == run_folders()
    assert {parse(command[2:])[1].device for command in commands} == {"cpu"}
    assert lines[0] == f"0 finished, 0 diverged, 0 unfinished, 4 missing in {out}, which is not a folder"


def test_the_estimate_uses_the_throughput_of_finished_runs(out, capsys):
    assert sweep.main(arguments(out, "--seeds", "1", "--only", "plain8")) == 0
    capsys.readouterr()
    for where in ("cpu", "cuda --engine ray"):
        assert sweep.main(arguments(out, "--seeds", "3", "--dry-run", "--devices", *where.split())) == 0
        # Two runs of 4 iterations with 16 images remain of the known network, at 8 images/s.
        expected = "recorded throughput: 0:00:16, without 3 runs of networks not measured there (residual8 in fp32)"
        assert f"estimated time on abacus, one run after another at the {expected}\n" in capsys.readouterr().out
    (sessions,) = out.glob("plain8*/seed0/environment.json")
    record.write_json(sessions, [SESSION | {"device_name": name, "eval_every": 1} for name in ("abacus", "another")])
    assert sweep.main(arguments(out, "--dry-run")) == 0
    assert "estimated time: unknown" in capsys.readouterr().out, "the run moved between devices"


def test_runs_recorded_in_another_precision_are_named(out, capsys):
    write_run(out, replace(CONFIGS[0], precision="bf16"))
    for flag in ("--status", "--dry-run"):
        assert sweep.main(["degradation", "--seeds", "2", "--out", str(out), flag]) == 0
        heading = f"0 finished, 0 diverged, 0 unfinished, 4 missing in {out}\n1 recorded in bf16: add --precision bf16\n"
        assert capsys.readouterr().out.startswith(heading)


def test_status_prints_the_state_of_every_run(out, capsys):
    plain, residual = CONFIGS
    write_run(out, plain, test_error=50.0)
    write_run(out, replace(plain, seed=1), status="diverged")
    write_run(out, residual, status="unfinished")
    assert sweep.main(["degradation", "--seeds", "2", "--out", str(out), "--status"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"1 finished, 1 diverged, 1 unfinished, 1 missing in {out}",
        f"{plain.folder.parent} --depth 8 --no-residual --batch-size 16",
        "    seed 0 finished (50.00%), 1 diverged (32005/64000)",
        f"{residual.folder.parent} --depth 8 --batch-size 16",
        "    seed 0 unfinished (32000/64000), 1 missing",
    ]


def test_status_and_dry_run_do_not_import_torch(tmp_path):
    code = """if True:
        import sys
        from experiments import sweep
        for flag in ("--dry-run", "--status"):
            assert sweep.main(["optimizer", flag]) == 0
        assert "torch" not in sys.modules and "ray" not in sys.modules
    """
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True, stdout=subprocess.DEVNULL)


def test_a_terminal_shows_a_progress_bar(stand_in, out):
    terminal, its_end = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 120))
    process = start_sweep(*arguments(out, "--seeds", "1"), program=stand_in, output=its_end, PACE="0.8")
    os.close(its_end)
    printed = ""
    while process.poll() is None or not printed.endswith("left\r\n"):
        try:
            printed += os.read(terminal, 4096).decode()
        except OSError:  # the other end is closed
            break
    os.close(terminal)
    assert process.wait(60) == 0, printed
    done = re.findall(r"1 in training \|.*?\| (\d)/8, \d\d:\d\d left", printed)
    assert done == sorted(done) and set("123") & set(done) and set("567") & set(done), printed


def test_a_missing_ray_is_a_user_error(out, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match="pip install ray"):
        sweep.main(arguments(out, "--engine", "ray"))
