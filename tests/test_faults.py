"""Wrong flags and faulty files: every command reports one sentence, exits with status 2 and writes nothing.

test_record.py has damaged records, test_cli.py the formatting of errors.
"""

import dataclasses
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from analysis import compare, plot_degradation, runs, table
from experiments import sweep, transfer
from experiments.devices import acceptance, gradient_noise, parity, throughput
from reproduce import cli, device, evaluate, export, predict, record, run, weights
from reproduce.config import Config
from reproduce.model import build_network
from tests.conftest import QUICK
from tests.fake_records import write_run
from tests.test_dataset import forbid_network

RESULT = {"test_error": 50.0, "train_error": 50.0, "best_test_error": 49.0, "parameters": 77_850}
RECORDED = Config(depth=20)
FOLDER = f"records/{RECORDED.folder}"
BROKEN = "metrics.jsonl lacks the row of iteration 64000: restore it or remove .*broken"
DIVERGED = f"records/{Config(depth=44).folder}"


def write_weights(name: str, header: dict[str, Any]):
    """Copy good.safetensors with another header."""
    save_file(load_file("good.safetensors"), name, {key: json.dumps(value) for key, value in header.items()})


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, synthetic_folder: Path) -> Iterator[Path]:
    """A working folder with data, records, images and weights, some of them faulty; no network, no accelerator."""
    place = tmp_path_factory.mktemp("place")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr("urllib.request.urlopen", forbid_network)
        patch.setattr(device, "NPU_PROBLEM", "torch_npu is not installed")
        patch.setattr(torch.cuda, "is_available", lambda: False)
        os.mkdir("data")
        os.symlink(synthetic_folder, "data/synthetic")
        write_run(Path("records"), RECORDED)
        write_run(Path("records"), Config(depth=44), status="diverged")
        broken = write_run(Path("broken"), RECORDED)
        record.write_metrics(broken, record.read_metrics(broken)[:-1])
        for folder in ("empty", "damaged/cifar-10-batches-py"):
            os.makedirs(folder)
        Path("damaged/cifar-10-batches-py/data_batch_1").write_bytes(b"not CIFAR-10")
        for name in ("README.md", "notes.md", "text.txt"):
            Path(name).write_text("a text\n")
        classifier = weights.Classifier(build_network(QUICK), torch.zeros(3, 32, 32), torch.ones(3, 1, 1))
        weights.save_network(Path("good.safetensors"), weights.TrainedNetwork(classifier.eval(), QUICK, RESULT, Path()))
        content = Path("good.safetensors").read_bytes()
        Path("half.safetensors").write_bytes(content[: len(content) // 2])
        described = record.describe_config(QUICK)
        write_weights("headless.safetensors", {})
        write_weights("edited.safetensors", {"config": described | {"momentum": 0.5}, "result": RESULT})
        deeper = record.describe_config(dataclasses.replace(QUICK, depth=14))
        write_weights("deeper.safetensors", {"config": deeper, "result": RESULT})
        write_weights("mistyped.safetensors", {"config": described, "result": RESULT | {"test_error": "8.75"}})
        write_weights("newer.safetensors", {"config": described | {"dropout": 0.5}, "result": RESULT})
        Path("garbage.pt").write_bytes(b"\x80\x04garbage")
        yield place


Main = Callable[[Sequence[str]], int]
CASES: list[tuple[Main, str, str]] = [
    # run.py
    (run.main, "--depth 21", "depth must be 6n.2"),
    (run.main, "--depth 8 --batch-size 2001 --last-batch drop --data synthetic --device cpu", "batch-size must be at most"),
    (run.main, "--data empty --device cpu", "CIFAR-10 in .*empty"),
    (run.main, "--data damaged --device cpu", "CIFAR-10 in .*damaged"),
    (run.main, "--data synthetic --device npu", "device npu is not usable: torch_npu is not installed"),
    (run.main, "--data synthetic --device cpu --depth 8 --out text.txt", "cannot read or write text.txt"),
    # evaluate.py
    (evaluate.main, "", "name at least one run folder or weights file"),
    (evaluate.main, "nowhere", "no run folder or weights file nowhere"),
    (evaluate.main, DIVERGED, "the run diverged$"),
    (evaluate.main, "empty", "empty is not a run folder"),
    (evaluate.main, f"{FOLDER}/result.json", "result.json is not a weights file"),
    (evaluate.main, f"{FOLDER}", "there is no .*checkpoint.pt"),
    *((evaluate.main, path, path) for path in ("text.txt", "garbage.pt")),
    *((evaluate.main, f"{name}.safetensors", name) for name in ("half", "headless", "edited", "deeper", "mistyped", "newer")),
    # predict.py
    (predict.main, "good.safetensors", "name at least one image"),
    (predict.main, "good.safetensors empty", "a folder must contain images, got empty"),
    # export.py
    (export.main, "good.safetensors --format onnx --output net.pt", "--output must end in .onnx"),
    (export.main, "nowhere.th --no-residual", "no run folder or weights file nowhere.th"),
    (export.main, "garbage.pt --mean 1 1", r"--mean: no type matching .* from \['1', '1'\]\.$"),
    (export.main, "good.safetensors --output no/net.safetensors", "cannot read or write no"),
    (export.main, "good.safetensors --output notes.safetensors", "overwrite notes.md"),
    # sweep.py
    (sweep.main, "nosuch", "name an experiment: .*, got nosuch"),
    (sweep.main, "degradation --only nosuch", "no run of degradation matches"),
    (sweep.main, "degradation --seeds 0", "seeds must be at least 1"),
    (sweep.main, "degradation --per-device 0", "per-device must be at least 1"),
    (sweep.main, "degradation --time-limit -1", "time-limit must be positive"),
    (sweep.main, "degradation --devices gpu:0 --dry-run", "devices must be .* got 'gpu:0'"),
    (sweep.main, "degradation --devices cpu --data empty", "CIFAR-10 in .*empty"),
    (sweep.main, "degradation --devices cpu --data synthetic --out text.txt/below", "cannot read or write text.txt/below"),
    # transfer.py
    (transfer.main, "--seeds 0 -1", "seeds must be at least 0, got -1"),
    # throughput.py, parity.py, acceptance.py, gradient_noise.py
    (throughput.main, "--together 1", "together must be at least 2"),
    (throughput.main, "--device cpu --data synthetic --out text.txt", "text.txt"),
    (parity.main, "--devices cpu", "--devices"),
    (parity.main, "--devices cpu npu", "device npu is not usable"),
    (parity.main, "--iterations 3", "iterations must be at least 10"),
    (acceptance.main, "--device cpu", "must contain at least two runs of each network"),
    (gradient_noise.main, "--batches 61", "batches must be even"),
    # analysis
    (compare.main, "", "at least one run folder"),
    (compare.main, "records --records records", "records is not a run folder"),
    (compare.main, f"{FOLDER} --records nowhere", "nowhere"),
    (compare.main, f"{FOLDER} --records records --output mine.gif", "--output|gif"),
    (runs.main, "--precision fp16", "fp16"),
    (table.main, "--records nowhere", "there is no folder nowhere"),
    (table.main, "--records records", "README.md needs the line"),
    (plot_degradation.main, "--records records --output figure.gif", "--output must end in"),
    (plot_degradation.main, "--records empty", "no finished run to draw"),
    # a damaged record
    (run.main, "--depth 20 --out broken --device cpu", BROKEN),
    (sweep.main, "degradation --out broken --status", BROKEN),
    (sweep.main, "degradation --out broken --dry-run", BROKEN),
    (evaluate.main, f"broken/{RECORDED.folder}", BROKEN),
    (runs.main, "--records broken", BROKEN),
    (table.main, "--records broken", BROKEN),
    (plot_degradation.main, "--records broken", BROKEN),
    (compare.main, f"broken/{RECORDED.folder} --records records", BROKEN),
]  # fmt: skip


@pytest.mark.parametrize(("main", "flags", "sentence"), CASES, ids=[f"{main.__module__} {flags}" for main, flags, _ in CASES])
def test_a_fault_is_one_sentence_and_leaves_nothing(
    place: Path, capsys: pytest.CaptureFixture[str], main: Main, flags: str, sentence: str
):
    before = sorted(place.rglob("*"))
    status = cli.run_cli(main, flags.split())
    out, err = capsys.readouterr()
    assert status == 2, out + err
    assert err.startswith("error: ") and err.count("\n") == 1 and re.search(sentence, err), err
    assert sorted(place.rglob("*")) == before
