"""RESULTS.md, the README's results, docs/devices.md and the CSV files show the records' numbers, and --check compares them."""

import contextlib
import csv
import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from safetensors.numpy import save_file

from analysis import table
from analysis.devices import describe_moves, format_devices, format_validation
from analysis.markdown import format_number, format_table, wrap_paragraphs
from analysis.records import load_records
from analysis.run_tables import format_classes_csv, format_runs_csv
from analysis.statistics_page import describe_larger_stds
from analysis.summary import format_weights
from experiments.devices.acceptance import FAULTS, NETS, REFERENCE
from reproduce.config import Config
from reproduce.errors import UserError
from reproduce.record import describe_config, write_predictions
from reproduce.run import parse
from tests.fake_records import write_run, write_seeds
from tests.test_acceptance import spread, write_outcome

README = """# A title

<!-- results:begin -->
<!-- results:end -->

More text.

<!-- weights:begin -->
<!-- weights:end -->
"""
IMAGES: dict[str, Any] = {"dataset": "pictures", "classes": "a/b", "pictures": "0" * 64}
DEPTHS = "Do deeper plain networks get worse, and deeper residual networks better?"


class Checkout:
    """A folder with records and the files generated from them."""

    def __init__(self, root: Path):
        self.root, self.records, self.weights = root, root / "records", root / "weights"
        self.results, self.readme, self.devices = root / "RESULTS.md", root / "README.md", root / "docs" / "devices.md"
        if not self.records.exists():
            self.records.mkdir()
            self.readme.write_text(README)

    def run(self, *flags: str) -> int:
        with contextlib.chdir(self.root):
            return table.main(["--records=records", *flags])

    def section(self, heading: str) -> str:
        return self.results.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]

    def row(self, heading: str, *starts: str) -> list[str]:
        """The cells of the one row of a section that begins with these."""
        rows = [line[2:-2].split(" | ") for line in self.section(heading).splitlines() if line.startswith("|")]
        (row,) = [row for row in rows if row[: len(starts)] == list(starts)]
        return row


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def write_study(records: Path):
    """Records for most sections, and some that no section displays."""
    for depth, error in ((20, 8.3), (32, 7.5), (44, 7.1), (56, 6.9), (110, 6.5)):
        write_seeds(records, Config(depth=depth), [error - 0.1, error, error + 0.1], responses=[0.5] * (depth - 1))
    for depth, error, train in ((20, 9.2, 3.0), (32, 10.1, 4.0), (44, 11.6, 5.0), (56, 13.2, 6.0)):
        write_seeds(records, Config(depth=depth, residual=False), [error - 0.1, error, error + 0.1], train_error=train)
    write_seeds(records, Config(depth=20, precision="bf16"), [8.3, 8.6, 8.3])
    write_seeds(records, Config(depth=110, block="bn-after-add"), [8.1, 8.2, 8.3])
    write_seeds(records, Config(depth=56, optimizer="adam", lr=3e-3), [8.0, 8.1])
    write_seeds(records, Config(depth=56, decay="weights"), [7.0, 7.2, 7.1])
    write_seeds(records, Config(depth=56, split="val"), [17.31, 17.43, 17.4])
    write_seeds(records, Config(depth=56, warmup="iterations"), [6.8])
    write_seeds(records, Config(depth=20, iterations=1000), [33.33])
    write_seeds(records, Config(depth=20, dataset="synthetic"), [21.23])
    write_run(records, Config(depth=56, residual=False, seed=3), status="diverged")
    write_run(records, Config(depth=110, residual=False), status="diverged")
    write_run(records, Config(depth=44, seed=3), status="unfinished")
    write_run(records, Config(dataset="mnist"))
    head = {"trainable": "head", "initial": "1" * 64}
    kinds: list[dict[str, Any]] = [{"optimizer": "adam"}, {"block": "bn-after-add"}, {"family": "resnet18"}, head]
    for fields in kinds:
        write_run(records, Config(**IMAGES, **fields))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """Generated once, for tests that only read."""
    checkout = Checkout(tmp_path_factory.mktemp("study"))
    write_study(checkout.records)
    assert checkout.run() == 0
    figures = checkout.root / "analysis" / "figures"
    figures.mkdir()
    for shown in re.findall(r"\((analysis/figures/\S+)\)", checkout.results.read_text() + checkout.readme.read_text()):
        (checkout.root / shown).touch()
    return checkout


@pytest.fixture
def written(study: Checkout, tmp_path: Path) -> Checkout:
    """A copy of the study, for tests that change something."""
    return Checkout(shutil.copytree(study.root, tmp_path / "written"))


# RESULTS.md -----------------------------------------------------------------------------------------------------------


def test_the_errors_are_those_of_the_records(study: Checkout):
    row = study.row(DEPTHS, "56")
    assert row[1:3] == ["6.97", "6.90 ± 0.10 (n=3)"] and row[5] == "13.20 ± 0.10 (n=3), 1 diverged"
    assert row[7] == "-0.07 (-0.57 to +0.43)"  # of one more run: 4.303 * 0.1 * sqrt(1 + 1/3) = 0.497
    assert row[8] == "+6.30 (+6.07 to +6.53)"  # Welch: 2.776 * 0.1 * sqrt(2/3) = 0.227
    assert study.row(DEPTHS, "110")[4:7] == ["> 60", "1 diverged", "1 diverged"]
    assert "Diverged: plain-110. `python" in study.section(DEPTHS)


def test_differences_have_intervals(study: Checkout):
    row = study.row("Does BN belong before or after the addition?", "110")
    assert row[3] == "+1.70 (+1.47 to +1.93)" and "6.61 / 8.17 (Identity Mappings" in row[4]
    adam = study.row("Does Adam match SGD?", "ResNet-56", "Adam")
    assert adam[2:5] == ["0.003", "0.0001", "8.05 ± 0.07 (n=2)"] and adam[5].startswith("+1.15 (+0.")
    ledger = "How much do implementation choices matter?"
    assert study.row(ledger, "weight decay")[-1] == "+0.20 (-0.03 to +0.43), fp32"
    assert study.row(ledger, "training images")[-1].startswith("+10.48")
    precision = study.row("Does lower precision change the test error?", "ResNet-20")
    assert precision[1:] == ["bf16", "8.30 ± 0.10 (n=3)", "8.40 ± 0.17 (n=3)", "+0.10 (-0.25 to +0.45)"]


def test_the_start_of_training_is_read_from_the_curves(checkout: Checkout):
    configs = [*(Config(depth=depth) for depth in (32, 44, 56)), Config(depth=56, warmup="iterations")]
    for config in configs:
        write_run(checkout.records, config, 8.0 - config.depth / 100, train_error=0.0, evaluations=64)
    checkout.run()
    heading = "The 56-layer networks: does a warm-up help?"
    assert checkout.row(heading, "ResNet-56", "none")[2:7] == ["88.6", "87.2", "85.8", "84.4", "83.0"]
    assert checkout.row(heading, "ResNet-56", "400 iterations")[-1] == "7.44"


def test_the_effect_of_the_warm_up_is_told_in_its_section_and_among_the_findings(study: Checkout):
    text = " ".join(study.results.read_text().split())
    effect = (
        "in %: 6.90 ± 0.10 (n=3) without and 6.80 with a warm-up of 400 iterations at a learning rate of 0.01, a difference"
    )
    assert text.count(f"{effect} of +0.10 (") == 2
    assert "**With a warm-up, ResNet-56 has no detected gain or loss**" in text


def test_a_finding_claims_only_what_its_intervals_show(checkout: Checkout):
    for depth, errors in ((20, [8.63, 8.38, 8.9]), (56, [7.0, 7.1, 7.2])):
        write_seeds(checkout.records, Config(depth=depth), errors)
        write_seeds(checkout.records, Config(depth=depth, residual=False), [8.98, 9.2, 8.8])
    checkout.run()
    text = " ".join(checkout.results.read_text().split())
    # Welch's half-width at 20 layers, of standard deviations 0.260 and 0.200 with 3.75 degrees of freedom: 0.54
    assert "better than plain ones at 56 layers** (3 seeds each): plain minus residual is +0.36 (-0.18 to +0.90) at 20" in text


def test_networks_that_vary_more_than_published_are_listed(checkout: Checkout):
    write_seeds(checkout.records, Config(depth=20), [8.63, 8.38])
    write_seeds(checkout.records, Config(depth=56, residual=False), [14.41, 15.13], train_error=7.98)
    runs, _ = load_records(checkout.records)
    # plain-56: (0.509 / 0.22)^2 = 5.4 with one degree of freedom, p = 0.02; ResNet-20: (0.177 / 0.19)^2 = 0.9
    larger = "plain-56 (0.51 for the test error and 0.00 for the training error, n=2; published: 0.22)"
    assert describe_larger_stds(runs) == f"Our standard deviation is significantly larger (chi-squared test, 5%) for {larger}."


def test_runs_that_are_not_comparable_with_the_paper_are_kept_apart(study: Checkout):
    text = study.results.read_text()
    assert "33.33" not in text.replace(study.section("How much of the schedule is needed?"), "")
    assert "21.23" not in text and "17.38" not in text
    assert study.row("How much of the schedule is needed?", "1,000")[3] == "33.33"


def test_mistakes_are_compared_image_by_image(checkout: Checkout):
    for net, wrong in ((Config(depth=20), 1000), (Config(depth=20, seed=1), 1000), (Config(depth=56), 500)):
        folder = write_run(checkout.records, net, wrong / 100)
        shift, labels = net.depth // 10 + net.seed, [i // 1000 for i in range(10_000)]
        predicted = [label if i >= wrong else (label + shift) % 10 for i, label in enumerate(labels)]
        write_predictions(folder, predicted, labels, 10)
    checkout.run()
    heading = "Do the networks misclassify the same images?"
    assert "two seeds disagree is 10.00% for ResNet-20" in checkout.section(heading)
    # Both are wrong on the first 500 images, with the answers 2 and 5; on the next 500 only the first one is.
    assert checkout.row(heading, "ResNet-56")[1] == "5.00" and checkout.row(heading, "ResNet-20")[2] == "10.00"


def test_tables_are_whole(study: Checkout):
    for text in (study.results.read_text(), study.readme.read_text(), study.devices.read_text()):
        for block in re.findall(r"(?:^\|.*\n)+", text, re.M):
            assert len({line.count(" | ") for line in block.splitlines()}) == 1, block
        assert "nan" not in text.lower().split() and "$" not in text


def test_without_records_every_section_says_so(checkout: Checkout):
    assert checkout.run() == 0 and checkout.run("--check") == 0
    text = checkout.results.read_text()
    assert "No full-length run yet." in text and "ResNet-20/32/44/56/110" in text and "![" not in text


# Other files ----------------------------------------------------------------------------------------------------------


def test_every_run_has_a_row_whose_command_trains_it(study: Checkout):
    rows = list(csv.DictReader(io.StringIO((study.root / "analysis" / "tables" / "runs.csv").read_text())))
    assert {row["folder"] for row in rows} == {path.relative_to(study.records).as_posix() for path in study.records.glob("*/*")}
    for row in rows:
        assert row["command"].startswith("python reproduce/run.py ")
        if row["dataset"] == "pictures":
            assert "classes a/b, pictures 00000000" in row["configuration"]
        else:
            assert parse(row["command"].split()[2:])[0].folder.as_posix() == row["folder"]
    (row,) = [row for row in rows if row["folder"] == f"{Config(depth=56).folder}"]
    assert row["test_error"] == "6.8" and row["status"] == "finished" and row["mean_response"] == "0.5"


def test_the_errors_of_classes_come_from_the_confusions(checkout: Checkout):
    write_run(checkout.records, Config(), 10.0)
    table = pd.read_csv(io.StringIO(format_classes_csv(load_records(checkout.records)[0])))
    assert list(table["class"])[:2] == ["airplane", "automobile"]
    assert (table["error"] == 10.0).all() and (table["images"] == 1000).all()


def test_a_run_that_moved_lists_its_devices_in_order(checkout: Checkout):
    folder = write_run(checkout.records, Config())
    (session,) = json.loads((folder / "environment.json").read_text())
    later = session | {"device_name": "Another Accelerator", "versions": {"torch": "9"}}
    (folder / "environment.json").write_text(json.dumps([session, later, later]))
    write_run(checkout.records, Config(seed=1))
    warm = write_run(checkout.records, Config(depth=56, warmup="iterations"))
    (warm / "environment.json").write_text(json.dumps([session, later]))
    runs, _ = load_records(checkout.records)
    devices = "Test Accelerator; then Another Accelerator"
    assert f"| {devices} | 2.11.0; then 9 | fp32 | 2 | 2.0 |" in format_devices(runs, checkout.records)
    moved = "ResNet-20 (seed 0) and ResNet-56 (warm-up of 400 iterations, seed 0) on Test Accelerator, then Another Accelerator"
    assert describe_moves(runs) == f"Runs that moved between devices: {moved}."
    assert devices in format_runs_csv(runs)


def test_the_throughput_is_shown_device_by_device(checkout: Checkout):
    record = {
        "device_name": "Test Accelerator", "threads": 4, "versions": {"torch": "2.11.0"}, "git": None, "rounds": 5,
        "quick": False, "batch_size": 128, "workers": 2, "ceilings": {"copy": 4.3e12, "bf16": 7.9e14},
        "rows": [
            {
                "depth": 20, "precision": "bf16", "candidate": "4 together", "seconds_to_start": 12.3, "median": 0.9876,
                "min": 0.98, "max": 1.0, "images_per_second": 129600, "floor_fraction": 0.0399, "times_plain": 8.12,
            }
        ],
    }  # fmt: skip
    path = checkout.records / "throughput" / "test-accelerator.json"
    path.parent.mkdir()
    path.write_text(json.dumps(record))
    checkout.run()
    text = " ".join(checkout.devices.read_text().split())
    assert "### Test Accelerator" in text and "4,300.0 GB/s" in text and "790 TFLOP/s in bf16" in text
    assert "| 20 | bf16 | 4 interleaved runs | 0.988 (0.98 to 1) | 129,600 | 8.1 | 4.0 | 12 |" in text
    path.write_text("{")
    with pytest.raises(UserError, match="test-accelerator.json is damaged"):
        checkout.run()


def test_false_alarms_and_detected_faults_are_counted(tmp_path: Path):
    net = NETS[0]
    assert format_validation(tmp_path) == "No reference is recorded yet."
    for seed in range(20):
        far = (1.975, 1.475, 99.0) if seed == 7 else spread(seed)
        write_outcome(tmp_path / REFERENCE, replace(net, seed=seed), far)
    for seed in range(5):
        write_outcome(tmp_path / FAULTS / "no-harm", replace(net, seed=100 + seed), (1.975, 1.475, 52.0))
        write_run(tmp_path / FAULTS / "lr-9", replace(net, seed=100 + seed, lr=9.0), status="diverged")
    text = format_validation(tmp_path)
    assert re.search(r"\| none \(reference\) \| ResNet-20 \| 20 \| 1.981 ± 0.29.* \| 1 of 20 \| .* of 1,140 \|", text)
    assert "| lr 9 | ResNet-20 | 5 | diverged | diverged | diverged | 5 of 5 | 10 of 10 |" in text
    assert "| no harm | ResNet-20 | 5 | 1.975 ± 0.000 | 1.475 ± 0.000 | 52.000 ± 0.000 | 0 of 5 | 0 of 10 |" in text


def write_weights(folder: Path, config: Config):
    """A file with the header of those by reproduce/export.py."""
    described = {"config": describe_config(config), "result": {"test_error": 7.46}}
    folder.mkdir(exist_ok=True)
    save_file({}, folder / f"{config.net}.safetensors", {name: json.dumps(value) for name, value in described.items()})


def test_published_weights_are_listed_with_the_error_in_their_header(checkout: Checkout):
    def list_weights() -> str:
        return format_weights(load_records(checkout.records)[0], checkout.weights)

    config = Config(depth=44, seed=1)
    write_seeds(checkout.records, Config(depth=44), [7.25, 7.5])
    assert "No weights yet." in list_weights()
    write_weights(checkout.weights, config)
    path = checkout.weights / "residual44.safetensors"
    assert "[residual44](weights/residual44.md) 7.46%" in list_weights()
    path.with_suffix(".md").write_text(f"SHA-256 `{'0' * 64}`")
    with pytest.raises(UserError, match=r"residual44\.safetensors"):
        list_weights()
    path.with_suffix(".md").unlink()
    write_weights(checkout.weights, Config(depth=20))
    with pytest.raises(UserError, match="not the export of a run with a finished record"):
        list_weights()


# Writing and checking -------------------------------------------------------------------------------------------------


def test_the_readme_keeps_what_is_outside_its_markers(written: Checkout):
    text = written.readme.read_text()
    assert text.startswith("# A title\n\n<!-- results:begin -->\n![Fig. 6")
    assert "<!-- results:end -->\n\nMore text.\n\n<!-- weights:begin -->\nNo weights yet.\n<!-- weights:end -->\n" in text
    assert "| 20 | 8.75 | 8.30 ± 0.10 (n=3) | 9 to 9.5 (plot) | 9.20 ± 0.10 (n=3) |" in text
    written.run()
    assert written.readme.read_text() == text


def test_check_catches_an_edited_file_and_a_missing_figure(written: Checkout, capsys: pytest.CaptureFixture[str]):
    written.readme.write_text(written.readme.read_text().replace("More text", "Other text"))
    assert written.run("--check") == 0 and capsys.readouterr().out == ""
    edited = written.readme.read_text().replace("8.30", "8.31")
    written.readme.write_text(edited)
    (written.root / "analysis" / "figures" / "optimizer.svg").unlink()
    assert written.run("--check") == 1 and written.readme.read_text() == edited
    assert capsys.readouterr().out.splitlines() == [
        "README.md is out of date: run python analysis/table.py",
        "analysis/figures/optimizer.svg is missing: run python analysis/plot_optimizer.py",
    ]


def test_check_catches_a_changed_record(written: Checkout, capsys: pytest.CaptureFixture[str]):
    write_run(written.records, Config(depth=20, seed=3), 8.9)
    assert written.run("--check") == 1
    assert {"RESULTS.md", "README.md", "devices.md", "statistics.md", "runs.csv", "classes.csv", "claims.csv"} == {
        Path(line.split(" is ")[0]).name for line in capsys.readouterr().out.splitlines()
    }


# Formatting -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value, upto, spread, n, plot, text",
    [
        (6.9, None, None, 1, "no", "6.90"),
        (6.61, None, 0.16, 5, "no", "6.61 ± 0.16 (n=5)"),
        (6.61, None, None, 5, "no", "6.61 (n=5)"),
        (9, 9.5, None, 1, "yes", "9 to 9.5 (plot)"),
        (60, 100, None, 1, "no", "> 60"),
        (0, 0.1, None, 1, "no", "< 0.1"),
    ],
)
def test_published_numbers(value, upto, spread, n, plot, text):
    row = pd.Series({"value": value, "upto": upto, "spread": spread, "n": n}).astype(float).astype(object)
    row["read_off_plot"] = plot
    assert format_number(row) == text


def test_paragraphs_are_wrapped_and_tables_are_not():
    row = format_table(["a|b"], [["x " * 100]])
    assert row.startswith("| a\\|b |\n")
    text = wrap_paragraphs(f"## {'word ' * 40}\n\n{'word ' * 40}\n\n\n\n1. {'word ' * 40}\n\n{row}")
    heading, paragraph, item, table = text.rstrip("\n").split("\n\n")
    assert len(heading.splitlines()) == 1 and len(paragraph.splitlines()) == 2 and table == row
    assert item.splitlines()[1].startswith("   word")
