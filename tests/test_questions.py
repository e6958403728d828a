"""Numbers of single sections, by hand."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from analysis.paper import published, published_std
from analysis.questions import optimizer, precision
from analysis.questions.degradation import estimate_reproductions, format_published, subtract_paper, subtract_reproductions
from analysis.questions.layer_responses import share_small_scales
from analysis.questions.mistakes import describe_seeds
from analysis.records import load_records
from analysis.summary import describe_residual
from experiments import degradation
from reproduce.config import Config
from tests.fake_records import write_run, write_seeds


def test_a_network_is_compared_with_one_more_source(tmp_path: Path):
    net = Config(depth=56, residual=False)
    write_run(tmp_path, net, 15.13)
    runs, _ = load_records(tmp_path)
    others = np.array([13.07, 12.95, 12.32, 14.22])  # a-martyn, nabla0001, hhhhuangggg, surajit; not Li et al.: another decay
    gap = subtract_reproductions(runs, net)
    # Student's t with 3 degrees of freedom leaves 2.5% above 3.182.
    half = 3.182446 * others.std(ddof=1) * np.sqrt(1 + 1 / 4)
    assert (gap.low, gap.high) == (pytest.approx(15.13 - others.mean() - half, abs=1e-4), pytest.approx(4.81, abs=0.01))
    sources = set(published(comparable="yes")["source"])
    assert all(estimate_reproductions(net).n < len(sources) for net in degradation.RESIDUAL)
    last = format_published(runs, degradation.PLAIN).splitlines()[-1]
    assert last == f"| **ours - reproductions** |  |  |  | {gap} |  |  |", "the others have not been run"


def test_the_papers_mean_of_five_runs_has_a_confidence_interval(tmp_path: Path):
    errors = [6.6, 6.7, 6.8, 6.9, 7.0]
    write_seeds(tmp_path, Config(depth=110), errors)
    theirs = np.array([-1, -1, 0, 1, 1]) * 0.16 + 6.61  # mean 6.61, standard deviation 0.16
    low, high = stats.ttest_ind(errors, theirs, equal_var=False).confidence_interval()
    assert subtract_paper(load_records(tmp_path)[0], Config(depth=110)) == f"+0.19 ({low:+.2f} to {high:+.2f})"


def test_small_scales_are_averaged_by_stage_and_bn(tmp_path: Path):
    write_run(tmp_path, Config(depth=8))
    scales = {"0.02": [1, 0.5, 0, 0.25, 0, 0, 0.125]}  # the first layer, then three blocks
    runs = load_records(tmp_path)[0].assign(small_scales=pd.Series([scales]))
    shares = share_small_scales(runs, Config(depth=8), "0.02")
    by_stage = {f"stage {stage}, BN {bn}": 0.0 for stage in (1, 2, 3) for bn in (1, 2)}
    by_stage |= {"stage 1, BN 1": 50, "stage 2, BN 1": 25, "stage 3, BN 2": 12.5}
    assert shares.pop("all") == pytest.approx(100 * (16 + 8 + 8 + 8) / (3 * 16 + 2 * 32 + 2 * 64))
    assert shares == by_stage
    assert share_small_scales(runs.assign(small_scales=None), Config(depth=8), "0.02") == {}


def test_disagreement_is_averaged_over_pairs_of_seeds(tmp_path: Path):
    write_seeds(tmp_path, Config(), [8.0] * 4)
    answers = ["0" * (10 - ones) + "1" * ones for ones in (0, 1, 3, 4)]
    expected = "The average share of test images on which two seeds disagree is 23.33% for ResNet-20."
    assert describe_seeds(load_records(tmp_path)[0].assign(predictions=answers)) == expected


@pytest.mark.parametrize(
    ("without", "with_warmup", "headline"),
    [
        (8.0, 7.0, "It is undecided whether residual networks improve"),
        (2.0, 2.0, "Residual networks improve"),
        (12.0, None, "Without a warm-up, residual networks do not improve"),
        (12.0, 2.0, "Without a warm-up, residual networks do not improve"),
    ],
)
def test_the_finding_on_depth_names_the_warmup_where_it_matters(
    tmp_path: Path, without: float, with_warmup: float | None, headline: str
):
    for depth, error in ((20, 8.5), (32, 7.5), (44, 7.5), (56, without)):
        write_run(tmp_path, Config(depth=depth), error)
    if with_warmup:
        write_run(tmp_path, Config(depth=56, warmup="iterations"), with_warmup)
    finding = describe_residual(load_records(tmp_path)[0])
    assert finding.startswith(f"**{headline} beyond 32 layers** (one seed each): ")
    assert ("with a warm-up for ResNet-56" in finding) == bool(with_warmup)


def test_recorded_gradient_noise_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    row = {"relative_error": 0.2, "bias": -0.03, "bias_by_chance": 0.04, "noise": 8.0}
    rows = [row | {"net": "plain56", "weights": "initial"}]
    for depth, fp32, bf16 in ((32, 7.44, 7.40), (56, 8.14, 8.11)):
        weights = {"net": f"residual{depth}", "weights": f"residual{depth}.safetensors"}
        weights |= {"test_error_fp32": fp32, "test_error_bf16": bf16}
        rows.append(row | weights)
    path = tmp_path / "device.json"
    path.write_text(json.dumps({"device_name": "A device", "batches": 64, "rows": rows, "git": None}))
    monkeypatch.setattr(precision, "GRADIENT_NOISE", tmp_path)
    runs, curves = load_records(tmp_path)
    section = precision.format_section(runs, curves)
    assert "| plain-56 | initial | 20.0 | 3.0 | 4.0 | 800.0 |  |  |" in section and "0 of 3 rows" in section
    assert "| ResNet-56 | residual56 | 20.0 | 3.0 | 4.0 | 800.0 | 8.14 | 8.11 |" in section
    assert "in trained residual networks (no plain one has been measured), by 20 to 20%" in " ".join(section.split())
    assert "by at most 0.04 points" in precision.describe_fp32()
    path.write_text(json.dumps({"device_name": "A device", "batches": 64, "rows": rows[:1], "git": None}))
    assert "by 20% (plain-56). Gradients of" in precision.format_section(runs, curves)


def test_precisions_are_compared_with_one_kind_of_standard_deviation(tmp_path: Path):
    """With one seed in bf16 the standard deviation of three in fp32 is not used."""
    write_seeds(tmp_path, Config(), [8.0, 8.1, 8.2])
    write_run(tmp_path, Config(precision="bf16"), 9.0)
    half = 1.959964 * published_std(Config()) * np.sqrt(1 + 1 / 3)
    expected = f"| ResNet-20 | bf16 | 8.10 ± 0.10 (n=3) | 9.00 | +0.90 ({0.9 - half:+.2f} to {0.9 + half:+.2f}) |"
    assert expected in precision.format_section(*load_records(tmp_path))


def test_adam_is_compared_with_sgd_on_the_same_data(tmp_path: Path):
    for net, adam in ((Config(depth=32), "adamw"), (Config(depth=32, augment=False), "adam")):
        write_run(tmp_path, net, 8.0 if net.augment else 12.5)
        write_run(tmp_path, replace(net, optimizer=adam, lr=1e-3, weight_decay=0.01 if net.augment else 1e-4), 20.0)
    section = optimizer.format_section(*load_records(tmp_path))
    assert "for AdamW at 0.001 with weight decay 0.01 on ResNet-32 and +7.50" in section
    assert "for Adam at 0.001 on ResNet-32 without augmentation (" in section
    assert "| ResNet-32 without augmentation | SGD | 0.1 | 0.0001 | 12.50 | (reference) |" in section
