"""RESULTS.md and the README's table: what the records say stands there, where it belongs, and nothing stale passes."""

import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from safetensors.numpy import save_file

from analysis import cli, table
from analysis.claims import CLAIMS
from analysis.estimates import estimate
from analysis.markdown import format_number, format_table
from analysis.paper import load_paper
from analysis.questions.degradation import RESIDUAL
from analysis.records import load_records
from analysis.speed import load_throughput
from analysis.summary import format_readme_block
from reproduce.config import Config
from reproduce.errors import UserError
from reproduce.model_card import sha256_of_file
from reproduce.record import describe_config, write_predictions
from reproduce.run import parse
from tests.fake_records import write_cell, write_run

FIGURES = ("degradation", "bn_placement", "optimizer", "layer_responses", "length")
SHORTENED = "Shortened runs (not comparable with the paper)"
README = "# A title\n\n<!-- results:begin -->\n<!-- results:end -->\n\nMore text.\n"


class Place:
    """A folder with records, published weights, and with a README.md and a RESULTS.md to write."""

    def __init__(self, folder: Path):
        self.records, self.results, self.readme = folder / "records", folder / "RESULTS.md", folder / "README.md"
        self.weights = folder / "weights"
        if not self.records.exists():
            self.records.mkdir()
            self.readme.write_text(README)

    @property
    def flags(self) -> list[str]:
        return [f"--{name}={getattr(self, name)}" for name in ("records", "results", "readme", "weights")]

    def run(self, *flags: str) -> int:
        return table.main([*self.flags, *flags])

    def section(self, name: str) -> str:
        """The text below a heading of RESULTS.md."""
        return self.results.read_text().split(f"\n## {name}\n")[1].split("\n## ")[0]

    def row(self, section: str, *starts: str) -> list[str]:
        """The cells of the one row of a section whose first cells are these."""
        rows = [line.strip("| ").split(" | ") for line in self.section(section).splitlines() if line.startswith("|")]
        (row,) = [row for row in rows if row[: len(starts)] == list(starts)]
        return row


@pytest.fixture
def place(tmp_path) -> Place:
    return Place(tmp_path)


def write_study(records: Path):
    """A bit of everything that RESULTS.md shows."""
    for depth, error in ((20, 8.3), (32, 7.5), (44, 7.1), (56, 6.9), (110, 6.5)):
        write_cell(records, Config(depth=depth), [error - 0.1, error, error + 0.1], responses=[0.5] * (depth - 1))
    for depth, error, train in ((20, 9.2, 3.0), (32, 10.1, 4.0), (44, 11.6, 5.0), (56, 13.2, 6.0)):
        cell = Config(depth=depth, residual=False)
        write_cell(records, cell, [error - 0.1, error, error + 0.1], train_error=train)
    write_cell(records, Config(depth=20, precision="bf16"), [8.3, 8.6, 8.3])
    write_cell(records, Config(depth=110, block="bn-after-add"), [8.1, 8.2, 8.3])
    write_cell(records, Config(depth=56, optimizer="adam", lr=3e-3), [8.0, 8.1])
    write_cell(records, Config(depth=56, decay="weights"), [7.0, 7.2, 7.1])
    write_cell(records, Config(depth=56, split="val"), [7.31, 7.43, 7.4])
    write_cell(records, Config(depth=110, warmup="none"), [91.0], train_error=90.0)
    write_cell(records, Config(depth=20, iterations=1000), [33.33])
    write_cell(records, Config(depth=20, dataset="synthetic"), [1.23])
    write_run(records, Config(depth=56, residual=False, seed=3), status="diverged")
    write_run(records, Config(depth=44, seed=3), status="unfinished")


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Place:
    """Written once, for tests that only read."""
    place = Place(tmp_path_factory.mktemp("study"))
    write_study(place.records)
    assert place.run() == 0
    figures = place.results.parent / "analysis" / "figures"
    figures.mkdir(parents=True)
    for name in ("degradation.png", *(f"{name}.svg" for name in FIGURES)):
        (figures / name).touch()
    return place


@pytest.fixture
def written(study, tmp_path) -> Place:
    """The same, for tests that change something."""
    return Place(shutil.copytree(study.records.parent, tmp_path / "written"))


def test_the_numbers_of_the_records_stand_in_their_tables(study):
    ours = study.row("Table 6: residual nets", "**ours, fp32**")
    cells = [
        "8.30 ± 0.10 (n=3)",
        "7.50 ± 0.10 (n=3)",
        "7.10 ± 0.10 (n=3)",
        "6.90 ± 0.10 (n=3)",
        "6.50 ± 0.10 (n=3)",
        "-",
    ]
    assert ours[1:7] == cells
    lower = study.row("Table 6: residual nets", "**ours, bf16**")
    assert lower[1:3] == ["8.40 ± 0.17 (n=3)", "-"] and lower[-1].endswith("bf16 is not shown to be neutral")
    assert study.row("Table 6: residual nets", "He et al. 2015")[1:6] == [
        "8.75",
        "7.51",
        "7.17",
        "6.97",
        "6.61 ± 0.16 (n=5)",
    ]
    assert study.row("Plain nets", "**ours, fp32**")[4] == "13.20 ± 0.10 (n=3)"
    assert study.row("Plain nets", "He et al. 2015")[1:6] == [
        "9 to 9.5 (plot)",
        "10 (plot)",
        "12 (plot)",
        "13 to 13.5 (plot)",
        "> 60",
    ]


def test_a_cell_row_has_all_its_statistics(study):
    row = study.row("Table 6: residual nets", "residual20", "fp32")
    # t with 2 degrees of freedom: 4.3027 * 0.1 / sqrt(3) = 0.248
    assert row[2:8] == ["8.30 ± 0.10 (n=3)", "8.05 to 8.55", "8.30", "8.20", "8.20 (-0.10)", "1.00 ± 0.00 (n=3)"]
    assert study.row("Plain nets", "plain56")[8] == "1 diverged"
    assert study.row("Table 6: residual nets", "residual44")[8] == "1 unfinished"
    assert study.row("Warm-ups and deep nets", "residual110 (warmup none)")[8] == "1 stuck"


def test_differences_are_shown_with_interval_and_precision(study):
    assert study.row("BN placement", "110")[3] == "+1.70 (+1.47 to +1.93), n=3, 3, fp32"
    assert "6.61 / 8.17 (Identity Mappings" in study.row("BN placement", "110")[4]
    adam = study.row("Optimizers", "residual56", "adam")
    assert adam[2:5] == ["0.003", "0.0001", "8.05 ± 0.07 (n=2), fp32"]
    assert adam[5].startswith("+1.15 (+0.") and adam[5].endswith("), n=2, 3, spread as published, fp32")
    # weights only: 7.0, 7.2, 7.1 against 6.8, 6.9, 7.0: half the interval is 2.776 x 0.1 x sqrt(2/3) = 0.227
    assert study.row("The ambiguity ledger", "weight decay")[3] == "+0.20 (-0.03 to +0.43), n=3, 3, fp32"
    assert study.row("The ambiguity ledger", "last partial batch")[3] == "not measured"
    deviations = study.section("Deviations from the paper")
    assert "45,000 images on ResNet-56: +0.48" in deviations and "bf16 +0.10 (-0.25 to +0.45)" in deviations
    assert [int(number) for number in re.findall(r"^(\d+)\.", deviations, re.M)] == [*range(1, 15)]


def test_layer_responses_are_averaged(study):
    assert study.row("Layer responses", "residual56") == ["residual56", "0.50 ± 0.00 (n=3), fp32"]
    assert study.row("Layer responses", "plain56") == ["plain56", "1.00 ± 0.00 (n=3), fp32"]


@pytest.mark.parametrize(
    "config", [Config(iterations=1000), Config(dataset="synthetic"), Config(split="val"), Config(iterations=63_999)]
)
def test_what_is_not_comparable_stands_apart(place, config):
    write_cell(place.records, config, [33.33, 33.33, 33.33])
    place.run()
    apart = place.section(SHORTENED)
    assert apart.count("33.33 ± 0.00 (n=3)") == 1
    rest = place.results.read_text().replace(apart, "").replace(place.section("Length of training"), "")
    rest += place.readme.read_text()
    assert "33.33" not in rest and "No full-length run is recorded yet" in place.readme.read_text()


def test_the_ledger_is_the_only_study_that_takes_the_smaller_training_set(study):
    assert study.row(SHORTENED, "residual56", "64000", "cifar10", "val")[5:7] == ["7.38 ± 0.06 (n=3)", "8.38 ± 0.06 (n=3)"]
    assert "| 64000 | cifar10 | full |" not in study.section(SHORTENED)
    ledger = study.section("The ambiguity ledger")
    rest = study.results.read_text().replace(ledger, "").replace(study.section(SHORTENED), "")
    assert "7.38" in ledger and "7.38" not in rest and "33.33" not in ledger


def test_a_full_length_run_of_no_question_is_listed_once(place):
    write_cell(place.records, Config(), [8.0])
    for precision in ("fp32", "bf16"):
        write_cell(place.records, Config(momentum=0.8, precision=precision), [9.1, 9.3])
    assert place.run() == 0
    name, rows = "Full-length runs of no question", place.section("Full-length runs of no question").splitlines()
    assert len(rows) == 5 and place.row(name, "residual20 (momentum 0.8)", "bf16")[2] == "9.20 ± 0.14 (n=2)"


def test_runs_without_a_result_are_listed(study):
    lost = study.section("Runs without a result")
    assert "| diverged | 32005 of 64000 | `python reproduce/run.py --depth 56 --no-residual --seed 3` |" in lost
    assert "| unfinished | 32000 of 64000 | `python reproduce/run.py --depth 44 --seed 3` |" in lost


def test_precisions_are_compared_with_full_precision(study):
    row = study.row("Precision", "bf16", "residual20")
    assert row[2:] == ["8.30 ± 0.10 (n=3)", "8.40 ± 0.17 (n=3)", "+0.10 (-0.25 to +0.45)", "-"]
    assert study.row("Precision", "bf16", "residual56")[2:] == ["6.90 ± 0.10 (n=3)", "-", "-", "-"]
    assert study.row("Precision", "bf16", "both")[4:] == ["-", "**not shown to be neutral**"]
    assert study.row("Precision", "tf32", "both")[4:] == ["-", "**not shown to be neutral**"]


def test_mistakes_are_counted_by_class_and_in_common(place):
    for depth, wrong in ((20, 1000), (56, 500)):
        folder = write_run(place.records, Config(depth=depth), wrong / 100)
        right = [i >= wrong for i in range(10_000)]  # the images are in the order of their classes
        predicted = [i // 1000 if i >= wrong else (i // 1000 + depth) % 10 for i in range(10_000)]
        write_predictions(folder, predicted, right, 10)
    place.run()
    names = ["residual20 fp32 seed 0", "residual56 fp32 seed 0"]
    assert place.row("Mistakes", names[0], "100.0")[2:] == ["0.0"] * 9
    assert place.row("Mistakes", names[1], "50.0")[2:] == ["0.0"] * 9
    # Of the first 500 images both are wrong, with the answers 0 and 6; of the next 500 the first one alone is, with 0: right.
    assert place.row("Mistakes", names[0], "")[2:] == ["5.00"] and place.row("Mistakes", names[1], "5.00")
    assert "6.30 and 3.91" in place.section("Mistakes")


def test_a_net_whose_runs_diverged_is_not_passed_over(place):
    write_run(place.records, Config(depth=56, residual=False), status="diverged")
    write_run(place.records, Config(block="bn-after-add"), status="diverged")
    place.run()
    assert "| 56 | 6.97 | - | 13 to 13.5 (plot) | 1 diverged |" in place.readme.read_text()
    text = place.results.read_text()
    assert "**Plain nets**, test error in %: 56 layers 1 diverged." in text
    assert "**BN after the addition**: 20 layers 1 diverged." in text


def test_the_speed_is_shown_device_by_device(study, place):
    assert "Nothing is measured yet." in study.section("Speed")
    record = {
        "device_name": "Test Accelerator", "threads": 4, "versions": {"torch": "2.11.0"}, "git": None, "rounds": 5,
        "iterations": 20, "batch_size": 128, "workers": 2, "ceilings": {"copy": 4.3e12, "bf16": 7.9e14},
        "nets": [
            {"depth": 20, "precision": "bf16", "operations": 31e9, "bytes": 101e6, "floor": 0.0394, "preparation": 0.05}
        ],
        "rows": [
            {
                "depth": 20, "precision": "bf16", "candidate": "captured", "seconds_to_start": 12.3, "median": 0.9876,
                "min": 0.98, "max": 1.0, "images_per_second": 129600, "floor_fraction": 0.0399, "times_plain": 8.12,
            }
        ],
    }  # fmt: skip
    (place.records / "throughput").mkdir()
    (place.records / "throughput" / "test-accelerator.json").write_text(json.dumps(record))
    place.run()
    section = place.section("Speed")
    assert "### Test Accelerator" in section and "4,300.0 GB/s" in section and "790 TFLOP/s in bf16" in section
    assert "| 20 | bf16 | 31.0 | 101 | 0.039 | 0.050 |" in section
    assert "| 20 | bf16 | captured | 0.988 (0.980 to 1.000) | 129,600 | 8.12 | 4.0% | 12 |" in section
    (place.records / "throughput" / "test-accelerator.json").write_text("{")
    with pytest.raises(UserError, match="test-accelerator.json is damaged"):
        load_throughput(place.records)


def test_how_it_was_run(study):
    row = study.row("How it was run", "Test Accelerator", "torch 2.11.0, python 3.11.9", "bf16")
    assert row[3:] == ["3 of 3", "3.00", "1,000", "01234567"]


def test_a_run_shows_the_commits_of_all_its_sessions_and_that_it_changed_the_device(written):
    path = next(written.records.glob("residual20-*/seed0/environment.json"))
    (session,) = json.loads(path.read_text())
    path.write_text(json.dumps([session | {"git": {"commit": "fedcba9876543210", "dirty": True}}, session]))
    written.run()
    assert "| 01234567, fedcba98* |" in written.section("How it was run")
    assert "Trained in part elsewhere: none." in written.section("How it was run")
    path.write_text(json.dumps([session | {"device_name": "Another Accelerator"}, session | {"versions": {}}, session]))
    result = path.with_name("result.json")
    result.write_text(json.dumps(json.loads(result.read_text()) | {"images_per_second": 9e9}))
    written.run()
    run = f"{path.parent.parent.name}/seed0"
    elsewhere = f"on Another Accelerator, torch 2.11.0, python 3.11.9: {run}; on Test Accelerator, -: {run}. Images/s"
    assert f"Trained in part elsewhere: {elsewhere}" in written.section("How it was run")
    assert "| Another Accelerator |" not in written.section("How it was run")
    assert written.row("How it was run", "Test Accelerator", "torch 2.11.0, python 3.11.9", "bf16")[5] == "1,000"


def test_every_command_makes_the_records_beside_it(study):
    rows = [line for line in study.results.read_text().splitlines() if "`python reproduce/run.py" in line]
    linked = set()
    for row in rows:
        flags = re.search(r"`python reproduce/run.py (.*?)`", row)
        assert flags
        config = parse(flags[1].split())[0]
        for name, link in re.findall(r"\[(\w+-[0-9a-f]{8})\]\((.*?)\)", row):
            assert config.folder.parent.name == name and (study.results.parent / link).is_dir()
            linked.add(name)
    assert linked == {path.name for path in study.records.iterdir()}, "a record is shown nowhere"


def test_verdicts_and_rules_are_printed(study):
    claims = study.section("Claims")
    assert study.row("Claims", "C1")[2] == "**reproduced**" and study.row("Claims", "C5")[2] == "**no data**"
    assert "56 - 20: +4.00 (+3.77 to +4.23)" in claims and "1 diverged and in no mean" in claims
    assert claims.count("Rule: ") == len(CLAIMS)


def test_figures_are_shown_once_there_are_runs(study, place):
    for name in FIGURES:
        assert f"](analysis/figures/{name}.svg)" in study.results.read_text()
    command = "python analysis/plot_degradation.py --iterations 3200 --output analysis/figures/degradation_3200"
    assert f"`{command}` draws the figure once there are runs" in study.section(SHORTENED)
    write_cell(place.records, Config(depth=20, iterations=3200), [20.0])
    place.run()
    assert f"](analysis/figures/degradation_3200.svg)\n\nDrawn by `{command}`." in place.section(SHORTENED)
    assert "](analysis/figures/degradation.svg)" not in place.results.read_text()
    assert "`python analysis/plot_degradation.py` draws the figure once there are runs" in place.results.read_text()


def test_no_records_make_a_valid_page(place):
    assert place.run() == 0
    text = place.results.read_text()
    assert "No run is recorded yet." in text and "$" not in text
    assert place.row("Table 6: residual nets", "**ours, fp32**")[1:7] == ["-"] * 6
    assert place.row("Plain nets", "plain56")[1:9] == ["-"] * 8
    assert place.section("Runs without a result").strip() == "None." and place.run("--check") == 0
    counts = f"0 reproduced, 0 not reproduced, 0 open, 0 points to it, 0 points against it, {len(CLAIMS)} no data"
    assert counts in place.readme.read_text()


def test_one_run_is_shown_with_dashes_around(place):
    write_run(place.records, Config(depth=56), 6.87)
    place.run()
    assert place.row("Table 6: residual nets", "**ours, fp32**")[1:7] == ["-", "-", "-", "6.87 (n=1)", "-", "-"]
    assert place.row("Table 6: residual nets", "residual56")[2:6] == ["6.87 (n=1)", "-", "6.87", "6.87"]
    assert "| 56 | 6.97 | 6.87 (n=1), fp32 | 13 to 13.5 (plot) | - |" in place.readme.read_text()


def test_tables_are_whole(study):
    for text in (study.results.read_text(), study.readme.read_text()):
        for block in re.findall(r"(?:^\|.*\n)+", text, re.M):
            widths = {line.count(" | ") for line in block.splitlines()}
            assert len(widths) == 1, block
    assert "nan" not in study.results.read_text().lower().split()


def test_the_readme_keeps_what_is_outside_its_markers(written):
    text = written.readme.read_text()
    assert text.startswith(
        "# A title\n\n<!-- results:begin -->\n![Fig. 6 from our runs](analysis/figures/degradation.png)\n\n|"
    ) and text.endswith("<!-- results:end -->\n\nMore text.\n")
    assert (
        "| 20 | 8.75 | 8.30 ± 0.10 (n=3), fp32; 8.40 ± 0.17 (n=3), bf16 | 9 to 9.5 (plot) | 9.20 ± 0.10 (n=3), fp32 |" in text
    )
    written.run()
    assert written.readme.read_text() == text


# --check --------------------------------------------------------------------------------------------------------------


def test_check_passes_on_what_was_written(written, capsys):
    written.readme.write_text(written.readme.read_text().replace("More text", "Other text"))
    assert written.run("--check") == 0 and capsys.readouterr().out == ""


@pytest.mark.parametrize("name", ["results", "readme"])
def test_check_catches_an_edited_number(written, capsys, name):
    path = getattr(written, name)
    edited = path.read_text().replace("8.30 ± 0.10", "8.31 ± 0.10", 1)
    assert edited != path.read_text()
    path.write_text(edited)
    assert written.run("--check") == 1
    out = capsys.readouterr().out
    assert f"{path} is out of date" in out and out.count("\n") == 1 and path.read_text() == edited


def test_check_catches_a_figure_that_is_not_there(written, capsys):
    (written.results.parent / "analysis" / "figures" / "optimizer.svg").unlink()
    assert written.run("--check") == 1
    out = capsys.readouterr().out
    assert "optimizer.svg is shown and not there: run python analysis/plot_optimizer.py" in out and out.count("\n") == 1


def test_check_catches_a_changed_record(written, capsys):
    write_run(written.records, Config(depth=20, seed=3), 8.9)
    assert written.run("--check") == 1
    assert "RESULTS.md" in (out := capsys.readouterr().out) and "README.md" in out


def test_check_catches_a_missing_page_and_writes_none(place):
    write_study(place.records)
    before = place.readme.read_text()
    assert place.run("--check") == 1
    assert not place.results.exists() and place.readme.read_text() == before


@pytest.mark.parametrize(
    "readme", ["no markers", "<!-- results:begin -->", "<!-- results:end --> <!-- results:begin -->", README + README]
)
def test_a_readme_without_markers_is_one_sentence(place, monkeypatch, capsys, readme):
    place.readme.write_text(readme)
    monkeypatch.setattr(sys, "argv", ["table.py", *place.flags])
    with pytest.raises(SystemExit) as ending:
        cli.run_script(table.main)
    out, err = capsys.readouterr()
    assert ending.value.code == 2 and out == "" and err.count("\n") == 1 and "<!-- results:begin -->" in err
    assert not place.results.exists() and place.readme.read_text() == readme


@pytest.mark.parametrize("flags", [["--chekc"], ["--readme", "missing/README.md"]])
def test_wrong_use_is_one_sentence(tmp_path, monkeypatch, capsys, flags):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["table.py", *flags])
    with pytest.raises(SystemExit) as ending:
        cli.run_script(table.main)
    out, err = capsys.readouterr()
    assert ending.value.code == 2 and out == "" and err.startswith("error: ") and err.count("\n") == 1


# Wording --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value, upto, spread, n, plot, text",
    [
        (8.75, None, None, 1, "no", "8.75"),
        (6.9, None, None, 1, "no", "6.90"),
        (6.61, None, 0.16, 5, "no", "6.61 ± 0.16 (n=5)"),
        (6.61, None, None, 5, "no", "6.61 (n=5)"),
        (9, 9.5, None, 1, "yes", "9 to 9.5 (plot)"),
        (60, float("inf"), None, 1, "no", "> 60"),
        (0, 0.1, None, 1, "no", "< 0.1"),
        (15, None, None, 1, "no", "15"),
    ],
)
def test_published_numbers_in_words(value, upto, spread, n, plot, text):
    row = pd.Series({"value": value, "upto": upto, "spread": spread, "n": n}).astype(float).astype(object)
    row["read_off_plot"] = plot
    assert format_number(row) == text


def test_a_bar_in_a_cell_does_not_break_the_table():
    assert format_table(["a"], [["x|y"]]) == "| a |\n| --- |\n| x\\|y |"


def test_the_paper_beside_ours_needs_no_rounding_by_hand(place):
    """Each of our means in Table 6 is the mean of the errors in the records, to two digits."""
    for seed, error in enumerate([8.004, 8.117, 8.2251]):
        write_run(place.records, replace(Config(depth=20), seed=seed), error)
    place.run()
    runs, _ = load_records(place.records)
    assert place.row("Table 6: residual nets", "**ours, fp32**")[1] == str(estimate(runs["test_error"])) == "8.12 ± 0.11 (n=3)"


def test_peers_of_table_6_are_all_there(place):
    place.run()
    paper = load_paper()
    paper = paper[(paper["quantity"] == "test error") & (paper["variant"] == "") & (paper["kind"] == "residual")]
    for source in paper["source"].unique():
        assert len(place.row("Table 6: residual nets", source)) == 2 + len(RESIDUAL)


def write_weights(folder: Path, config: Config):
    """A file with the header of those by reproduce/export.py."""
    described = {"config": describe_config(config), "result": {}}
    folder.mkdir(exist_ok=True)
    save_file({}, folder / f"{config.net}.safetensors", {name: json.dumps(value) for name, value in described.items()})


def test_published_weights_are_listed_with_the_error_of_their_record(place):
    def write_block() -> str:
        return format_readme_block(load_records(place.records)[0], [], place.weights)

    write_cell(place.records, Config(depth=44), [7.25, 7.5])
    assert "No trained weights are published yet" in write_block()
    write_weights(place.weights, Config(depth=44, seed=1))
    config = Config(depth=44, seed=1)
    path = place.weights / "residual44.safetensors"
    row = f"| [residual44](weights/residual44.md) | 7.50 | 64,000 | fp32 | `{config.folder}` | `{sha256_of_file(path)}` |"
    assert row in write_block()
    path.with_suffix(".md").write_text(f"SHA-256 `{'0' * 64}`")
    with pytest.raises(UserError, match="residual44.safetensors is damaged or is not the file of its card"):
        write_block()
    path.with_suffix(".md").unlink()
    write_weights(place.weights, Config(depth=20))
    with pytest.raises(UserError, match="has no finished record"):
        write_block()
    (place.weights / "residual20.safetensors").write_bytes(b"short")
    with pytest.raises(UserError, match="not a weights file"):
        write_block()
