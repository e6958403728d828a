"""Runs that do not fit into memory are refused in one sentence, and their folders stay as they were."""

from pathlib import Path

import pytest

from reproduce import cli, memory, record, run, train_many
from reproduce.config import Config
from reproduce.errors import OutOfMemory
from reproduce.step import Training
from tests.conftest import CPU
from tests.test_run import QUICK_FLAGS, QUICK_FOLDER


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch):
    """A machine with 16 GB."""
    monkeypatch.setattr(memory, "available_memory", lambda device: 16 * 10**9)


@pytest.mark.parametrize(
    ("config", "gigabytes"),
    [
        (Config(), 0.197),  # autograd was measured to keep 1.5207 MB per image, and there are 269,722 parameters
        (Config(depth=56, batch_size=1), 0.0145),
        (Config(precision="bf16"), 0.105),
    ],
)
def test_the_estimate_agrees_with_measurements(config: Config, gigabytes: float):
    assert 0.95 < memory.estimate_memory(config) / 1e9 / gigabytes < 1.02


def test_the_available_memory_is_limited_by_the_system_and_the_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    assert memory.available_memory(CPU) is None
    memory.MEMINFO.write_text("MemTotal: 9 kB\nMemAvailable:   5 kB\n")
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert memory.available_memory(CPU) == 5120
    (tmp_path / "memory.max").write_text("5000\n")
    assert memory.available_memory(CPU) == 4000
    (tmp_path / "memory.stat").write_text("anon 300\ninactive_file 600\nfile 700\n")
    assert memory.available_memory(CPU) == 4600, "the page cache can be dropped"


@pytest.mark.parametrize(
    ("flags", "lower"),
    [
        ("--batch-size 99999999", "--batch-size"),
        ("--depth 60002", "--batch-size and --depth"),
        ("--depth 600002 --batch-size 1", "--depth"),
    ],
)
def test_a_run_that_cannot_fit_is_refused_before_it_is_built(
    small: None, workplace: Path, capsys: pytest.CaptureFixture[str], flags: str, lower: str
):
    before = sorted(workplace.rglob("*"))
    assert cli.run_cli(run.main, f"{flags} --data synthetic --device cpu".split()) == 2
    printed = capsys.readouterr().err
    assert "GB of memory, but the cpu has 16.0 GB" in printed and printed.endswith(f": lower {lower}\n")
    assert sorted(workplace.rglob("*")) == before


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("[enforce fail at alloc_cpu.cpp:130] err == 0. DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("NPU out of memory. Tried to allocate 2.00 GiB."),
        MemoryError("Unable to allocate 9 GiB for an array"),
    ],
    ids=["cpu", "cuda", "npu", "numpy"],
)
def test_running_out_of_memory_is_one_sentence(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
):
    monkeypatch.setattr(Training, "step", lambda self: (_ for _ in ()).throw(error))
    assert cli.run_cli(run.main, QUICK_FLAGS.split()) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: out of memory: training residual8") and printed.count("\n") == 1


def test_iterations_before_memory_ran_out_are_kept(workplace: Path, monkeypatch: pytest.MonkeyPatch):
    step, steps = Training.step, []

    def fail_late(self: Training):
        steps.append(1)
        if len(steps) == 15:
            raise RuntimeError("CUDA out of memory.")
        step(self)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "step", fail_late)
        assert cli.run_cli(run.main, f"{QUICK_FLAGS} --checkpoint-every 10 --eval-every 10".split()) == 2
    folder = workplace / "runs" / QUICK_FOLDER
    assert len((folder / record.METRICS).read_text().splitlines()) == 1
    assert run.main(QUICK_FLAGS.split()) == 0


def test_only_the_run_that_does_not_fit_is_refused(small: None, workplace: Path, capsys: pytest.CaptureFixture[str]):
    assert train_many.train_lines([f"{QUICK_FLAGS} --depth 60002", QUICK_FLAGS]) == OutOfMemory.status
    printed = capsys.readouterr().out
    assert "line 1, exit status 6: training residual60002" in printed and "line 2, exit status 0: residual8" in printed
