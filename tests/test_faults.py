"""Wrong flags and faulty files: every command reports one sentence, exits with status 2 and writes nothing.

test_damage.py has damaged records, test_cli.py the formatting of errors.
"""

import dataclasses
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from analysis import (
    compare,
    plot_degradation,
    plot_length,
    runs,
    table,
)
from experiments import sweep
from experiments.devices import acceptance, parity, throughput
from reproduce import cli, device, evaluate, export, predict, record, run, train_many, weights
from reproduce.config import Config
from reproduce.model import build_network
from tests.fake_records import write_run
from tests.test_dataset import forbid_network

NET = Config(depth=8, batch_size=8, iterations=24, dataset="synthetic")
RESULT = {"test_error": 50.0, "train_error": 50.0, "best_test_error": 49.0, "parameters": 77_850}
RECORDED = Config(depth=20)
FOLDER = f"records/{RECORDED.folder}"
UNFINISHED = f"records/{Config(depth=32).folder}"
DIVERGED = f"records/{Config(depth=44).folder}"


def change_weights(name: str, header: dict[str, object] | None = None, tensors: dict[str, torch.Tensor] | None = None):
    """Copy good.safetensors with another header or other tensors."""
    described = {"config": record.describe_config(NET), "result": RESULT} | (header or {})
    text = {key: json.dumps(value) for key, value in described.items()}
    save_file(load_file("good.safetensors") | (tensors or {}), name, text)


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
        write_run(Path("records"), Config(depth=32), status="unfinished")
        write_run(Path("records"), Config(depth=44), status="diverged")
        for folder in ("empty", "damaged/cifar-10-batches-py", "weights"):
            os.makedirs(folder)
        Path("damaged/cifar-10-batches-py/data_batch_1").write_bytes(b"not CIFAR-10")
        Path("README.md").write_text("no markers\n")
        Path("text.txt").write_text("a text\n")
        Path("text.png").write_text("a text\n")
        Path("notes.md").write_text("my notes\n")
        Image.new("RGB", (40, 50)).save("grey.png")
        Image.new("RGB", (1, 1)).save("fine.png")
        classifier = weights.Classifier(build_network(NET), torch.zeros(3, 32, 32), torch.ones(3, 1, 1))
        weights.save_network(Path("good.safetensors"), weights.TrainedNetwork(classifier.eval(), NET, RESULT, Path()))
        content = Path("good.safetensors").read_bytes()
        Path("half.safetensors").write_bytes(content[: len(content) // 2])
        save_file(load_file("good.safetensors"), "headless.safetensors")
        described = record.describe_config(NET)
        change_weights("list.safetensors", {"config": [1]})
        change_weights("edited.safetensors", {"config": described | {"momentum": 0.5}})
        change_weights("deeper.safetensors", {"config": record.describe_config(dataclasses.replace(NET, depth=14))})
        change_weights("newer.safetensors", {"config": described | {"dropout": 0.5}})
        change_weights("shaped.safetensors", tensors={"network.linear.bias": torch.zeros(11)})
        Path("garbage.pt").write_bytes(b"\x80\x04garbage")
        torch.save([1, 2], "list.pt")
        torch.save({"state_dict": {"layer1.0.conv1.weight": torch.ones(3)}, "best_prec1": "high"}, "wordy.pt")
        torch.save({"code": Foreign()}, "code.pt")
        yield place


class Foreign:
    """A class that weights_only loading refuses."""


def train_one_line(flags: Sequence[str]) -> int:
    """Train one line with train_many.py, which prints the outcome."""
    return train_many.train_lines([" ".join(flags)])


Main = Callable[[Sequence[str]], int]
CASES: list[tuple[Main, str, str]] = [
    # run.py
    (run.main, "--depth 21", "depth must be 6n.2"),
    (run.main, "--lr 1e400", "lr must be positive"),
    (run.main, "--seed 9223372036854775808", "seed must be at least 0 and below 2.63"),
    (run.main, "--no-residual --shortcut C", "shortcut"),
    (run.main, "--depth 8 --batch-size 2001 --last-batch drop --data synthetic --device cpu", "batch-size must be at most"),
    (run.main, "--data empty --device cpu", "CIFAR-10 in .*empty"),
    (run.main, "--data damaged --device cpu", "CIFAR-10 in .*damaged"),
    (run.main, "--data text.txt --device cpu", "text.txt"),
    (run.main, "--data synthetic --device cuda", "device cuda is not usable"),
    (run.main, "--data synthetic --device npu", "device npu is not usable: torch_npu is not installed"),
    (run.main, "--data synthetic --device cpu --precision tf32", "precision must be fp32 or bf16 on a cpu"),
    (run.main, "--data synthetic --device cpu --depth 8 --out text.txt", "cannot read or write text.txt"),
    (run.main, "--device cpu cpu", "cpu"),
    # train_many.py
    (train_one_line, "--depth 9", "line 1, exit status 2: depth must be 6n.2"),
    (train_one_line, "--data empty --device cpu", "line 1, exit status 2: CIFAR-10 in .*empty"),
    (train_one_line, "--data synthetic --device cpu --precision tf32", "line 1, exit status 5: precision must be"),
    # evaluate.py
    (evaluate.main, "", "name at least one run folder or weights file"),
    (evaluate.main, "nowhere", "no run folder or weights file nowhere"),
    (evaluate.main, "empty", "empty is not the folder of a finished run"),
    (evaluate.main, UNFINISHED, "not the folder of a finished run"),
    (evaluate.main, DIVERGED, "not the folder of a finished run"),
    (evaluate.main, f"{FOLDER}/result.json", "result.json is not a weights file"),
    (evaluate.main, f"{FOLDER}", "there is no .*checkpoint.pt"),
    (evaluate.main, "good.safetensors --device npu", "device npu is not usable"),
    (evaluate.main, "good.safetensors --device tpu", "tpu"),
    *(
        (evaluate.main, f"{name}.safetensors", f"{name}.safetensors")
        for name in ("empty", "half", "text", "headless", "list", "null", "edited", "deeper", "newer", "shaped")
    ),
    *((evaluate.main, path, path) for path in ("text.txt", "garbage.pt", "list.pt", "wordy.pt", "code.pt")),
    # predict.py
    (predict.main, "", "Missing from predict.py: PATH"),
    (predict.main, "good.safetensors", "name at least one image"),
    (predict.main, "good.safetensors empty", "a folder must contain images, got empty"),
    # export.py
    (export.main, "--format onnx", "Missing from export.py: PATH"),
    (export.main, "good.safetensors --format tflite", "tflite"),
    (export.main, "nowhere --format onnx", "nowhere"),
    (export.main, "good.safetensors --format onnx --output net.pt", "--output must end in .onnx"),
    (export.main, "good.safetensors --output no/net.safetensors", "cannot read or write no"),
    (export.main, "good.safetensors --output text.txt/n.safetensors", "cannot read or write text.txt"),
    (export.main, "good.safetensors --output notes.safetensors", "overwrite notes.md"),
    # sweep.py
    (sweep.main, "", "name an experiment"),
    (sweep.main, "nosuch", "name an experiment: .*, got nosuch"),
    (sweep.main, "degradation --only nosuch", "no run of degradation matches"),
    (sweep.main, "degradation --seeds 0", "seeds must be at least 1"),
    (sweep.main, "degradation --iterations -1", "iterations must be at least 1"),
    (sweep.main, "degradation --devices gpu:0 --dry-run", "devices must be .* got 'gpu:0'"),
    (sweep.main, "degradation --devices cuda:0", "device cuda is not usable"),
    (sweep.main, "degradation --devices cpu --data empty", "CIFAR-10 in .*empty"),
    (sweep.main, "degradation --devices cpu --data damaged", "CIFAR-10 in .*damaged"),
    *((sweep.main, f"degradation --devices cpu --data synthetic --out {out}", f"cannot read or write {out}")
      for out in ("text.txt", "text.txt/below", "/proc/nothing")),
    # throughput.py, parity.py, acceptance.py
    (throughput.main, "--rounds 0", "rounds must be at least 1"),
    (throughput.main, "--together 1", "together must be at least 2"),
    (throughput.main, "--device cuda", "device cuda is not usable"),
    (throughput.main, "--device cpu --data synthetic --depths 9", "depth must be 6n.2"),
    (throughput.main, "--device cpu --data empty", "CIFAR-10 in .*empty"),
    (throughput.main, "--device cpu --data synthetic --precisions tf32", "precision must be fp32 or bf16 on a cpu"),
    (throughput.main, "--device cpu --data synthetic --out text.txt", "text.txt"),
    (parity.main, "--depth 9", "depth must be 6n.2"),
    (parity.main, "--devices cpu", "--devices"),
    (parity.main, "--devices cpu gpu", "gpu"),
    (parity.main, "--devices cpu npu", "device npu is not usable"),
    (parity.main, "--precision tf32", "precision must be fp32 or bf16, got tf32"),
    (parity.main, "--iterations 3", "iterations must be at least 10"),
    (parity.main, "--devices cpu cpu --data empty", "CIFAR-10 in .*empty"),
    (acceptance.main, "--device tpu", "tpu"),
    (acceptance.main, "--device cpu", "has no reference"),
    # analysis
    (compare.main, "", "at least one run folder"),
    (compare.main, "nowhere --records records", "nowhere is not a run folder"),
    (compare.main, f"{FOLDER} --records nowhere", "nowhere"),
    (compare.main, f"{FOLDER} --records records --output text.txt/mine.png", "text.txt"),
    (compare.main, f"{FOLDER} --records records --output mine.gif", "--output|gif"),
    (compare.main, f"{FOLDER} --records records --output empty", "empty"),
    (runs.main, "--precision fp16", "fp16"),
    (runs.main, "--records nowhere", "nowhere"),
    (runs.main, "--records text.txt", "text.txt"),
    (table.main, "--records nowhere", "there is no folder nowhere"),
    (table.main, "--records records", "README.md needs the line"),
    (plot_degradation.main, "--records nowhere", "nowhere"),
    (plot_degradation.main, "--records records --output figure.gif", "--output must end in"),
    (plot_degradation.main, "--records records --output text.txt/figure.svg", "text.txt"),
    (plot_degradation.main, "--records empty", "no finished run to draw"),
    (plot_length.main, "--records empty", "no finished run to draw"),
]  # fmt: skip


@pytest.mark.parametrize(("main", "flags", "sentence"), CASES, ids=[f"{main.__module__} {flags}" for main, flags, _ in CASES])
def test_a_fault_is_one_sentence_and_leaves_nothing(
    place: Path, capsys: pytest.CaptureFixture[str], main: Main, flags: str, sentence: str
):
    before = sorted(place.rglob("*"))
    status = cli.run_cli(main, flags.split())
    out, err = capsys.readouterr()
    if main is train_one_line:
        assert status != 0 and re.search(sentence, out), out + err
    else:
        assert status == 2, out + err
        assert err.startswith("error: ") and err.count("\n") == 1 and re.search(sentence, err), err
    assert sorted(place.rglob("*")) == before
