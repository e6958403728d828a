"""What does not fit into memory is refused in a sentence, and leaves the run folder as it was."""

import json
from pathlib import Path

import pytest

from experiments.engine import dashboard, run_queue
from reproduce import memory, record, run, train_many
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
        (Config(), 0.197),  # 1.5207 MB an image were seen to be kept, and 269,722 weights
        (Config(depth=56, batch_size=1), 0.0145),
        (Config(precision="bf16"), 0.105),
    ],
)
def test_the_estimate_is_what_autograd_was_seen_to_keep(config: Config, gigabytes: float):
    assert 0.95 < memory.estimate_memory(config) / 1e9 / gigabytes < 1.02


def test_memory_is_what_the_system_and_the_container_leave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
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
    assert memory.available_memory(CPU) == 4600, "files that were read can be dropped"


@pytest.mark.parametrize(
    ("flags", "lower"),
    [
        ("--batch-size 99999999", "lower --batch-size"),
        ("--depth 60002", "lower --batch-size and --depth"),
        ("--depth 600002 --batch-size 1", "lower --depth"),
    ],
)
def test_what_cannot_fit_is_refused_before_anything_is_built(
    small: None, workplace: Path, capsys: pytest.CaptureFixture[str], flags: str, lower: str
):
    before = sorted(workplace.rglob("*"))
    assert run.main(f"{flags} --data synthetic --device cpu".split()) == 2
    said = capsys.readouterr().err
    assert "GB or more of memory and the cpu has 16.0 GB" in said and said.endswith(f"{lower}\n") and said.count("\n") == 1
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
def test_memory_that_runs_out_is_one_sentence_and_leaves_the_folder_as_it_was(
    workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
):
    folder = workplace / "runs" / QUICK_FOLDER

    def fail():
        with monkeypatch.context() as patch:
            patch.setattr(Training, "step", lambda self: (_ for _ in ()).throw(error))
            assert run.main(QUICK_FLAGS.split()) == 2
        said = capsys.readouterr().err
        assert said.startswith("error: out of memory: training residual8 in batches of 8 takes") and said.count("\n") == 1

    fail()
    assert not (workplace / "runs").exists()
    assert run.main(f"{QUICK_FLAGS} --time-limit 0.001".split()) == 75
    with open(folder / record.METRICS, "a") as file:
        file.write("{")  # of a crash, which the next session mends
    before = {path: path.read_bytes() for path in folder.iterdir()}
    fail()
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_what_was_trained_before_memory_ran_out_stays(workplace: Path, monkeypatch: pytest.MonkeyPatch):
    step, steps = Training.step, []

    def late(self: Training):
        steps.append(1)
        if len(steps) == 15:
            raise RuntimeError("CUDA out of memory.")
        step(self)

    with monkeypatch.context() as patch:
        patch.setattr(Training, "step", late)
        assert run.main(f"{QUICK_FLAGS} --checkpoint-every 10 --eval-every 10".split()) == 2
    folder = workplace / "runs" / QUICK_FOLDER
    assert [row["iteration"] for row in record.read_metrics(folder)] == [10]
    assert run.main(QUICK_FLAGS.split()) == 0
    assert len(json.loads((folder / record.ENVIRONMENT).read_text())) == 2


def test_of_several_runs_only_the_one_that_does_not_fit_is_refused(
    small: None, workplace: Path, capsys: pytest.CaptureFixture[str]
):
    lines = [f"{QUICK_FLAGS} --depth 60002", QUICK_FLAGS]
    assert train_many.train_lines(lines) == OutOfMemory.status
    said = capsys.readouterr().out
    assert "line 1, exit status 6: training residual60002 in batches of 8 takes" in said
    assert "line 2, exit status 0: residual8" in said


def test_a_net_that_does_not_fit_is_in_the_way_of_no_other_run(tmp_path: Path):
    configs = [Config(depth=depth, seed=seed) for seed in (0, 1) for depth in (1202, 20)]
    waiting = run_queue.RunQueue(lambda: configs, tmp_path, dashboard.Dashboard())
    while (config := waiting.take_run()) is not None:
        if config.depth == 1202:
            waiting.note_end(config, OutOfMemory.status, "training residual1202 takes", stopping=False)
    assert waiting.obstacle is None and list(waiting.failures) == configs[::2]
