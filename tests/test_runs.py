"""The list of recorded runs, filtered, as text and as CSV."""

import io

import pandas as pd
import pytest

from analysis import runs
from reproduce.config import Config
from tests.fake_records import write_cell, write_run


@pytest.fixture
def say(tmp_path, capsys):
    write_cell(tmp_path, Config(), [8.25, 8.5])
    write_run(tmp_path, Config(residual=False, iterations=3200, precision="bf16"), 21.0)
    write_run(tmp_path, Config(depth=56), status="unfinished")

    def run(*flags: str) -> str:
        capsys.readouterr()
        assert runs.main([*flags, "--records", str(tmp_path)]) == 0
        return capsys.readouterr().out

    return run


def test_every_run_is_a_line(say):
    lines = say().splitlines()
    assert len(lines) == 1 + 4 and lines[0].split() == list(runs.COLUMNS)
    (unfinished,) = [line for line in lines if "unfinished" in line]
    assert "residual56" in unfinished and unfinished.split()[-3:] == ["-", "-", "120"]
    assert any("plain20 (iterations 3200)" in line and "21.00" in line for line in lines)


@pytest.mark.parametrize(
    "flags, count", [(["--net", "residual20"], 2), (["--precision", "bf16"], 1), (["--full"], 3), (["--net", "plain56"], 0)]
)
def test_filters(say, flags, count):
    said = say(*flags)
    assert said == "no such run is recorded\n" if count == 0 else len(said.splitlines()) == 1 + count


def test_csv_has_every_field(say):
    table = pd.read_csv(io.StringIO(say("--csv", "--net", "residual20")))
    assert table["test_error"].tolist() == [8.25, 8.5] and table["seed"].tolist() == [0, 1]
    assert {"weight_decay", "images_per_second", "net"} <= set(table.columns)
    none = pd.read_csv(io.StringIO(say("--csv", "--net", "lenet", "--full", "--precision", "bf16")))
    assert none.empty and list(none.columns) == list(table.columns)


def test_where_there_is_no_run_there_is_none_of_a_net(tmp_path, capsys):
    assert runs.main(["--net", "residual20", "--precision", "fp32", "--records", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "no such run is recorded\n"
