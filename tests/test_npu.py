"""Everything that runs on an NPU, tested on a stand-in whose results equal the CPU's to the bit (tests/npu_standin).

The stand-in is loaded in another process, since `auto` must still choose the CPU in this one. Functions named on_standin_*
run there.
"""

import contextlib
import io
import json
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from experiments.devices import parity
from reproduce import checkpoints, interleave, record
from reproduce import device as devices
from reproduce.config import SCHEMA, Block, Config, RunOptions
from reproduce.sampling import Images, load_data
from reproduce.step import Training
from tests.conftest import QUICK, assert_equal, interrupt, train_alone
from tests.npu_standin import build
from tests.outcome import read_outcome
from tests.test_sweep import STARTER

STANDIN = Path(__file__).with_name("npu_standin")
ROOT = STANDIN.parents[1]
STEPS = 7
"""Three before capture and four captured."""

pytestmark = pytest.mark.skipif(build.problem() is not None, reason=str(build.problem()))

CONFIGS = {
    **{f"residual-{block}": replace(QUICK, block=block) for block in get_args(Block)},
    "residual-bf16": replace(QUICK, precision="bf16"),
    "residual-adam": replace(QUICK, optimizer="adam"),
    "residual-projections": replace(QUICK, shortcut="C"),
    "plain": replace(QUICK, residual=False),
    "plain-adamw": replace(QUICK, residual=False, optimizer="adamw"),
    "resnet18": Config(family="resnet18", batch_size=2, iterations=8, dataset="synthetic", schedule="onecycle"),
    "lenet": Config(family="lenet", batch_size=8, iterations=8, dataset="synthetic", normalization="none", lr=0.01),
}


@pytest.fixture(scope="module")
def on_standin() -> Iterator[Callable[..., Any]]:
    """Call a function of this module in a process with the stand-in and return its result."""
    build.build()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(STANDIN)
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as executor:

            def call(function: Callable[..., bytes], *arguments: Any) -> Any:
                return torch.load(io.BytesIO(executor.submit(function, *arguments).result()))

            yield call


def pack(content: Any) -> bytes:
    """Serialize tensors to pass them between processes."""
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


def get_device(kind: str) -> devices.Device:
    """Return the device; the CPU with an NPU's memory format and optimizer, so that sums have the same order."""
    return replace(devices.choose_device(kind), memory_format=torch.contiguous_format, fused=False, chunk_iterations=10)


def prepare(kind: str, config: Config, folder: Path, capture: bool = False) -> Training:
    device = get_device(kind)
    devices.set_numerics(device, config.precision, deterministic=False)
    return Training(config, load_data(config, folder, device.torch_device), device, capture)


# The stand-in itself ----------------------------------------------------------------------------------------------------


def on_standin_try(expression: str) -> bytes:
    try:
        return pack(str(eval(expression, {"torch": torch})))
    except (RuntimeError, AttributeError, NotImplementedError) as error:
        return pack(f"{type(error).__name__}: {error}".splitlines()[0])


@pytest.mark.parametrize(
    ("expression", "answer"),
    [
        ("torch.ones(2, device='npu').sum().item()", "2.0"),
        ("torch.empty(2, device='npu').isnan().all().item()", "True"),
        ("torch.ones(2, device='npu') + torch.ones(2)", "at least two devices"),
        ("torch.ones(1, 3, 4, 4, device='npu').to(memory_format=torch.channels_last)", "Only contiguous_format"),
        ("torch.ones(1, 3, 4, 4, device='npu').contiguous(memory_format=torch.channels_last)", "contiguous memory format"),
        ("torch.rand(2, device='npu')", "draws no random numbers"),
        ("torch.npu.no_such_name", "AttributeError"),
        ("torch.npu.utilization", "NotImplementedError"),
        ("torch.ones(2, device='npu:1')", "invalid npu device index 1"),
    ],
)
def test_the_standin_is_as_strict_as_an_npu(on_standin: Callable[..., Any], expression: str, answer: str):
    assert answer in on_standin(on_standin_try, expression)


def on_standin_capture(statement: str) -> bytes:
    x = torch.arange(3.0, device="npu")
    device = devices.choose_device("npu")
    with devices.use_stream(device, devices.create_stream(device)):
        return pack(devices.capture_graph(device, lambda: exec(statement, {"torch": torch, "x": x})))


@pytest.mark.parametrize(
    "statement", ["x.sum().item()", "x.cpu()", "x.nonzero()", "x[x > 0]", "x.copy_(torch.zeros(3))", "torch.npu.synchronize()"]
)
def test_capture_refuses_synchronization_with_the_host(on_standin: Callable[..., Any], statement: str):
    """It returns the step's error, not the one that ending the broken capture raises."""
    assert "not permitted while a graph is being captured" in on_standin(on_standin_capture, statement)


# Steps ------------------------------------------------------------------------------------------------------------------


def on_standin_train(kind: str, config: Config, folder: Path, capture: bool = False) -> bytes:
    training = prepare(kind, config, folder, capture)
    capture_step, replays = training.capture_step, []

    def counted():
        capture_step()
        replay = training.replay
        assert replay is not None
        training.replay = lambda: (replays.append(1), replay())[1]

    training.capture_step = counted
    with devices.use_stream(training.device, devices.create_stream(training.device)):
        chunk = interleave.run_task(training.train_chunk(0, STEPS, [config.lr or 0.0] * STEPS))
    return pack({"chunk": chunk, "state": training.state(), "replays": len(replays)})


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_eager_and_captured_steps_equal_the_cpus(on_standin: Callable[..., Any], synthetic_folder: Path, config: Config):
    """Losses, wrong answers, weights, BN statistics and optimizer state, to the bit; for Adam only the first losses."""
    cpu = on_standin(on_standin_train, "cpu", config, synthetic_folder)
    eager = on_standin(on_standin_train, "npu", config, synthetic_folder)
    captured = on_standin(on_standin_train, "npu", config, synthetic_folder, True)
    assert captured.pop("replays") == 4
    assert not eager.pop("replays") and not cpu.pop("replays")
    assert_equal(captured, eager)
    assert all(math.isfinite(loss) for loss in cpu["chunk"][0])
    if config.optimizer == "sgd":
        assert_equal(eager, cpu)
    else:  # capturable=True, which a CPU refuses, computes in another order
        assert eager["chunk"][0][:3] == pytest.approx(cpu["chunk"][0][:3], rel=1e-3)


def on_standin_fail_capture(variable: str, fault: str, folder: Path) -> bytes:
    """Return the state after steps whose capture fails, and the output on stderr."""
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(io.StringIO()) as printed:
        patch.setenv(variable, fault)
        training = prepare("npu", CONFIGS["plain"], folder, capture=True)
        with devices.use_stream(training.device, devices.create_stream(training.device)):
            chunk = interleave.run_task(training.train_chunk(0, STEPS, [0.1] * STEPS))
    return pack({"printed": printed.getvalue(), "chunk": chunk, "state": training.state()})


@pytest.mark.parametrize(
    ("variable", "fault", "reason"),
    [
        ("NPU_STANDIN_CAPTURE", "fails", "RuntimeError: Failed to find function aclmdlRICaptureBegin"),
        ("NPU_STANDIN_CAPTURE", "breaks", "RuntimeError: operation failed due to a previous error during capture"),
        ("NPU_STANDIN_CAPTURE", "silent", "its replay does nothing"),
        (
            "TASK_QUEUE_ENABLE",
            "2",
            "RuntimeError: Do not support TASK_QUEUE_ENABLE = 2 during NPU graph capture, please export TASK_QUEUE_ENABLE=1/0.",
        ),
    ],
)
def test_a_failed_capture_is_reported_and_training_continues_eagerly(
    on_standin: Callable[..., Any], synthetic_folder: Path, variable: str, fault: str, reason: str
):
    found = on_standin(on_standin_fail_capture, variable, fault, synthetic_folder)
    assert found.pop("printed") == f"graph capture failed, training without it: {reason}\n"
    eager = on_standin(on_standin_train, "npu", CONFIGS["plain"], synthetic_folder)
    assert eager.pop("replays") == 0
    assert_equal(found, eager)


def on_standin_count(config: Config, folder: Path, capture: bool, steps: int) -> bytes:
    """Return the counts of operators and copies before, during and after the steps of a chunk."""
    import torch_npu  # pyright: ignore[reportMissingImports]

    training = prepare("npu", config, folder, capture)
    with devices.use_stream(training.device, devices.create_stream(training.device)):
        interleave.run_task(training.train_chunk(0, 5, [0.1] * 5))  # the optimizer's state, the capture
        name = "replay" if capture else "step"
        step, seen = getattr(training, name), []

        def counted():
            seen.append(torch_npu.counts())
            step()
            seen.append(torch_npu.counts())

        setattr(training, name, counted)
        torch_npu.reset_counts()
        interleave.run_task(training.train_chunk(5, 5 + steps, [0.1] * steps))
        return pack([seen[0], seen[-1], torch_npu.counts()])


HOST = ("copy to device", "copy to host", "read by host", "synchronize")


@pytest.mark.parametrize("name", ["residual-bf16", "residual-adam"])
@pytest.mark.parametrize("capture", [False, True])
def test_a_chunk_synchronizes_with_the_host_only_at_its_start_and_end(
    on_standin: Callable[..., Any], synthetic_folder: Path, name: str, capture: bool
):
    before, after, end = on_standin(on_standin_count, CONFIGS[name], synthetic_folder, capture, 8)
    assert {kind: before.get(kind, 0) for kind in HOST} == {kind: after.get(kind, 0) for kind in HOST}
    assert before["copy to device"] == 2 and "copy to host" not in before, "crops and learning rates"
    assert end["copy to device"] == 2 and end["copy to host"] == 2, "losses and wrong answers"
    assert end.get("read by host", 0) == int(capture), "the cursor"


def on_standin_count_update(folder: Path) -> bytes:
    import torch_npu  # pyright: ignore[reportMissingImports]

    training = prepare("npu", QUICK, folder)
    interleave.run_task(training.train_chunk(0, 1, [0.1]))
    torch_npu.reset_counts()
    training.optimizer.step()
    return pack(torch_npu.counts())


def test_an_update_takes_five_kernels_for_all_parameters(on_standin: Callable[..., Any], synthetic_folder: Path):
    """Weight decay, momentum, gradients, the learning rate, the step."""
    counts = on_standin(on_standin_count_update, synthetic_folder)
    lists = ["aten::_foreach_add.List", "aten::_foreach_add_.List", "aten::_foreach_sub_.List"]
    assert counts == dict.fromkeys(lists, 1) | {"aten::mul.out": 2}


# Whole runs -------------------------------------------------------------------------------------------------------------


def read_portable_outcome(folder: Path) -> dict[str, Any]:
    """Read the outcome of a run without what depends on the device."""
    found = read_outcome(folder)
    del found["result.json"]["peak_memory"]
    return found


def on_standin_run(kind: str, config: Config, folder: Path, out: Path, stop_at: int | None = None) -> bytes:
    """Train a run, or stop it by SIGTERM soon after an iteration."""
    device = get_device(kind)
    data = load_data(config, folder, device.torch_device)
    data = replace(data, test=Images(data.test.pixels[: 100 * 1600], data.test.labels[:100]))
    with record.open_run_folder(config, out) as run_folder, pytest.MonkeyPatch.context() as patch:
        if stop_at is not None:
            interrupt(patch, stop_at, lambda: os.kill(os.getpid(), signal.SIGTERM))
        result = train_alone(config, RunOptions(eval_every=6, checkpoint_every=4), data, device, run_folder)
    assert (result is None) == (stop_at is not None)
    return pack(read_portable_outcome(run_folder) if stop_at is None else None)


@pytest.mark.parametrize(("first", "second"), [("npu", "cpu"), ("cpu", "npu")])
def test_a_run_can_move_between_devices(
    on_standin: Callable[..., Any], synthetic_folder: Path, tmp_path: Path, first: str, second: str
):
    unbroken = on_standin(on_standin_run, "cpu", QUICK, synthetic_folder, tmp_path / "unbroken")
    assert on_standin(on_standin_run, first, QUICK, synthetic_folder, tmp_path / "moved", 9) is None
    moved = checkpoints.read_checkpoint(tmp_path / "moved" / QUICK.folder / checkpoints.NEWEST, {"schema": SCHEMA})
    assert isinstance(moved, dict) and 9 <= moved["history"]["iteration"] < QUICK.iterations
    assert_equal(on_standin(on_standin_run, second, QUICK, synthetic_folder, tmp_path / "moved"), unbroken)


def on_standin_compare(folder: Path) -> bytes:
    return pack(parity.compare_devices(replace(QUICK, iterations=10), get_device("cpu"), get_device("npu"), folder))


def test_parity_with_the_cpu_is_exact(on_standin: Callable[..., Any], synthetic_folder: Path):
    assert set(on_standin(on_standin_compare, synthetic_folder).values()) == {0.0}


FLAGS = "--depth 8 --batch-size 16 --iterations 30 --eval-every 15 --checkpoint-every 2 --data synthetic".split()
SHORT = replace(QUICK, batch_size=16, iterations=30)


@pytest.fixture
def host(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder on a host with the stand-in as its torch_npu."""
    build.build()
    monkeypatch.setenv("PYTHONPATH", f"{STANDIN}{os.pathsep}{ROOT}")
    monkeypatch.delenv("ASCEND_RT_VISIBLE_DEVICES", raising=False)
    return workplace


def execute(*line: str, lines: str = "", status: int = 0) -> subprocess.CompletedProcess:
    done = subprocess.run(line, input=lines, capture_output=True, text=True, timeout=300)
    assert done.returncode == status, done.stderr
    return done


def test_a_killed_and_resumed_run_equals_a_concurrent_one(host: Path):
    """The concurrent runs are captured, on the NPU that `auto` chooses."""
    flags = " ".join(FLAGS)
    lines = f"{flags}\n{flags} --seed 1\n{flags} --no-residual --precision bf16"
    done = execute(sys.executable, str(ROOT / "reproduce/train_many.py"), lines=lines)
    assert done.stderr == "", "no message that capture failed"
    assert done.stdout.count("exit status 0: ") == 3
    concurrent, killed = host / "runs" / SHORT.folder, host / "killed" / SHORT.folder
    (session,) = json.loads((concurrent / "environment.json").read_text())
    assert session["device_name"] == "NPU stand-in 0" and session["flags"]["convolution.allow_hf32"] is False

    command = [sys.executable, str(ROOT / "reproduce/run.py"), *FLAGS, "--out", "killed"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while not (killed / checkpoints.NEWEST).exists() and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL, "the run finished before it was killed: train longer"
    assert "resuming" in execute(*command, "--device", "npu").stdout
    assert_equal(read_portable_outcome(killed), read_portable_outcome(concurrent))


def test_a_sweep_trains_two_runs_on_each_visible_device(host: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NPU_STANDIN_DEVICES", "4")
    monkeypatch.setenv("ASCEND_RT_VISIBLE_DEVICES", "1,3")
    flags = "degradation --seeds 2 --per-device 2 --iterations 2 --data synthetic --out records".split()
    assert "4 of 4 runs finished" in execute(sys.executable, "-c", STARTER, "", *flags).stdout
    sessions = [json.loads(path.read_text()) for path in (host / "records").glob("*/*/environment.json")]
    places = sorted((session["device_name"], session["beside"]) for (session,) in sessions)
    assert places == [("NPU stand-in 1", 0), ("NPU stand-in 1", 1), ("NPU stand-in 3", 0), ("NPU stand-in 3", 1)]


def test_a_missing_device_is_reported_and_auto_uses_the_cpu(host: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NPU_STANDIN_DEVICES", "0")
    code = "import sys; from reproduce import cli, device, run; print(device.choose_device('auto').kind); "
    code += "sys.exit(cli.run_cli(run.main, sys.argv[1:]))"
    done = execute(sys.executable, "-c", code, *FLAGS, "--device", "npu", status=2)
    assert "torch_npu loads but sees no device" in done.stderr and done.stderr.count("\n") == 1
    assert done.stdout == "cpu\n" and not (host / "runs").exists()
