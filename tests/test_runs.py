"""runs.py: the list of recorded runs, filtered, as text, CSV, Markdown and LaTeX."""

import io

import pandas as pd
import pytest

from analysis import runs
from reproduce.config import Config
from tests.fake_records import write_run, write_seeds


@pytest.fixture
def list_runs(tmp_path, capsys):
    write_seeds(tmp_path, Config(), [8.25, 8.5])
    write_run(tmp_path, Config(residual=False, iterations=3200, precision="bf16"), 21.0)
    write_run(tmp_path, Config(depth=56), status="unfinished")

    def run(*flags: str) -> str:
        capsys.readouterr()
        assert runs.main([*flags, "--records", str(tmp_path)]) == 0
        return capsys.readouterr().out

    return run


def test_every_run_is_a_line(list_runs):
    lines = list_runs().splitlines()
    assert len(lines) == 1 + 4 and lines[0].split()[:4] == ["folder", "precision", "iterations", "status"]
    assert any(line.split()[-5:] == ["unfinished", "-", "-", "0.0", "residual56"] for line in lines)
    assert any("21.00" in line and line.endswith("plain20 (iterations 3200)") for line in lines)


def test_lines_fit_the_terminal(list_runs, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    assert max(map(len, list_runs().splitlines())) == 60


@pytest.mark.parametrize(
    ("flags", "count"),
    [("--net residual20", 2), ("--precision bf16", 1), ("--full", 3), ("--net residual20 --full --precision fp32", 2)],
)
def test_filters(list_runs, flags, count):
    assert len(list_runs(*flags.split()).splitlines()) == 1 + count


def test_csv_has_every_field(list_runs):
    assert list_runs("--net", "plain56") == "no matching run is recorded\n"
    table = pd.read_csv(io.StringIO(list_runs("--format", "csv", "--net", "residual20")))
    assert table["test_error"].tolist() == [8.25, 8.5] and table["seed"].tolist() == [0, 1]
    assert {"weight_decay", "images_per_second", "recipe"} <= set(table.columns)
    none = pd.read_csv(io.StringIO(list_runs("--format", "csv", "--net", "lenet", "--full", "--precision", "bf16")))
    assert none.empty and list(none.columns) == list(table.columns)


def test_markdown_and_latex(list_runs):
    rows = [line[2:-2].split(" | ") for line in list_runs("--format", "markdown").splitlines()]
    assert len(rows) == 2 + 4 and all(len(row) == 8 for row in rows)
    text = list_runs("--format", "latex")
    assert text.startswith("\\begin{tabular}") and "test\\_error" in text and text.count(" & 8.25 & ") == 1
