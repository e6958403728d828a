"""Write run folders with given results."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from reproduce import record
from reproduce.config import Config
from reproduce.dataset import DATASETS
from reproduce.record import describe_config, write_json, write_metrics, write_predictions
from reproduce.schema import Diverged, Finished, Responses, Row

SESSION = {
    "command": "python reproduce/run.py --eval-every 64000",
    "began": "2026-11-25T12:00:00+00:00",
    "git": {"commit": "0123456789abcdef", "dirty": False},
    "device": "cuda",
    "device_name": "Test Accelerator",
    "threads": 4,
    "platform": "linux x86_64",
    "versions": {"torch": "2.11.0", "python": "3.11.9"},
    "flags": {"precision": "fp32"},
    "data": {"name": "cifar10", "sha256": DATASETS["cifar10"].sha256},
    "beside": 0,
    "eval_every": 64_000,  # the curves below are coarser than real ones
}


def make_curve(iterations: int, train_error: float, test_error: float, evaluations: int, held_out: bool = False) -> list[Row]:
    """Return rows whose errors fall linearly from 90% to the given ones."""
    rows = []
    for step in range(1, evaluations + 1):
        left = 1 - step / evaluations
        row = Row(
            iteration=iterations * step // evaluations,
            learning_rate=0.1,
            train_loss=0.1 + left,
            train_error=train_error + left * (90 - train_error),
            test_error=test_error + left * (90 - test_error),
            held_out_error=test_error + 1 + left if held_out else None,
            seconds=60.0 * step,
        )
        rows.append(row)
    return rows


def make_result(config: Config, rows: list[Row]) -> Finished:
    return Finished(
        **record.summarize_rows(rows),
        parameters=record.expected_parameters(config),
        iterations=config.iterations,
        warmup_ended=400 if config.warmup == "error" else None,
        seconds=3600.0,
        images_per_second=1000.0,
        peak_memory=2**30,
    )


def write_run(
    records: Path,
    config: Config,
    test_error: float = 8.0,
    train_error: float = 1.0,
    status: str = "finished",
    responses: list[float] | None = None,
    evaluations: int = 4,
) -> Path:
    """Write a run folder and return it. A run that is not finished stops after half of its evaluations."""
    folder = records / config.folder
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(describe_config(config)))
    data = {"name": config.dataset, "sha256": config.dataset_info.sha256}
    (folder / "environment.json").write_text(json.dumps([SESSION | {"data": data}]))
    curve = make_curve(config.iterations, train_error, test_error, evaluations, config.split == "val")
    if status != "finished":
        curve = curve[: evaluations // 2]
    write_metrics(folder, curve)
    if status == "diverged":
        write_json(folder / record.RESULT, Diverged(iteration=curve[-1].iteration + 5))
    if status == "finished":
        std = responses or [1.0] * (config.depth - 1)
        wrong, classes = round(test_error * 10_000 / 100), len(config.dataset_info.class_names)
        predicted = [i % classes for i in range(10_000)]
        write_predictions(folder, predicted, [(i + (i >= 10_000 - wrong)) % classes for i in range(10_000)], classes)
        if config.family == "6n+2":
            scales = {limit: [0.0] * len(std) for limit in ("0.02", "0.05")}
            write_json(folder / record.RESPONSES, Responses(images=10_000, std=std, small_scales=scales))
        write_json(folder / record.RESULT, make_result(config, curve))
    return folder


def write_seeds(records: Path, config: Config, test_errors: list[float], **settings: Any):
    """Write one finished run per test error, with seeds 0, 1, 2, ..."""
    for seed, test_error in enumerate(test_errors):
        write_run(records, replace(config, seed=seed), test_error, **settings)
