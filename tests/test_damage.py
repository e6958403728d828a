"""A damaged record is one sentence and exit status 2 in every program that reads it; an intact one passes."""

import json
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from analysis import compare, plot_degradation, runs, table
from experiments import sweep
from reproduce import cli, record, run
from reproduce.config import Config
from reproduce.errors import UserError
from tests.fake_records import SESSION, write_run

RECORDS = Path(__file__).parents[1] / "experiments" / "records"
CONFIG = Config(depth=20)
OTHER_DATA = {"name": "cifar10", "sha256": "0" * 64}
Damage = Callable[[Path], object]


def write(name: str, content: bytes) -> Damage:
    return lambda folder: (folder / name).write_bytes(content)


def remove(name: str) -> Damage:
    return lambda folder: (folder / name).unlink()


def truncate(name: str) -> Damage:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-20])


def edit(name: str, change: Callable[[Any], Any]) -> Damage:
    """Change the content of a JSON file or, for metrics.jsonl, its rows."""

    def damage(folder: Path):
        path = folder / name
        if name == record.METRICS:
            rows = change([json.loads(line) for line in path.read_text().splitlines()])
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        else:
            path.write_text(json.dumps(change(json.loads(path.read_text()))))

    return damage


def update(name: str, **values: Any) -> Damage:
    return edit(name, lambda content: content | values)


def update_row(number: int, **values: Any) -> Damage:
    return edit(record.METRICS, lambda rows: [row | values if i == number else row for i, row in enumerate(rows)])


def replace(name: str, old: str, new: str) -> Damage:
    return lambda folder: (folder / name).write_text((folder / name).read_text().replace(old, new, 1))


DAMAGES: dict[str, tuple[Damage, str]] = {
    "truncated config": (truncate("config.json"), "config.json is damaged"),
    "config: edited": (update("config.json", momentum=0.8), "config.json .*key"),
    "config: another run": (
        write("config.json", json.dumps(record.describe_config(Config(depth=32))).encode()),
        "config.json describes the run residual32",
    ),
    "no config": (remove("config.json"), "config.json is missing"),
    "truncated environment": (truncate("environment.json"), "environment.json is damaged"),
    "session: other data": (edit("environment.json", lambda c: [c[0] | {"data": OTHER_DATA}]), "environment.json .*CIFAR-10"),
    "truncated metrics": (truncate("metrics.jsonl"), "metrics.jsonl is damaged"),
    "metrics: missing row": (edit("metrics.jsonl", lambda rows: rows[:1] + rows[2:]), "metrics.* lacks .* 32000"),
    "metrics: missing last row": (edit("metrics.jsonl", lambda rows: rows[:-1]), "metrics.* lacks .* 64000"),
    "metrics: repeated row": (edit("metrics.jsonl", lambda rows: rows[:2] + rows[1:]), "metrics.jsonl is damaged"),
    "row: NaN": (update_row(1, train_error=float("nan")), "metrics.jsonl is damaged"),
    "row: validation error": (update_row(1, held_out_error=8.0), "metrics.jsonl .*held_out_error"),
    "last row: another error": (update_row(3, test_error=7.0), "result.json contradicts .*test_error"),
    "truncated result": (truncate("result.json"), "result.json is damaged"),
    "result: other parameters": (update("result.json", parameters=464_154), "result.json .*parameters"),
    "no responses": (remove("responses.json"), "responses.json is missing"),
    "responses: missing layer": (update("responses.json", std=[1.0] * 18), "responses.json .*layers"),
    "truncated predictions": (truncate("predictions.txt"), "predictions.txt contradicts"),
    "predictions: another mistake": (replace("predictions.txt", "0", "a"), "predictions.txt contradicts .*801 errors"),
    "confusion: not square": (write("confusion.csv", b"1,0\n0\n"), "confusion.csv is damaged"),
    "confusion: other images": (replace("confusion.csv", "920", "919"), "confusion.csv contradicts"),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a finished run below records."""
    monkeypatch.chdir(tmp_path)
    folder = write_run(tmp_path / "records", CONFIG)
    (folder / "environment.json").write_text(json.dumps([SESSION | {"eval_every": 16_000}]))
    markers = [f"<!-- {part}:{end} -->\n" for part in ("results", "weights") for end in ("begin", "end")]
    Path("README.md").write_text("".join(markers))
    return folder


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_found(folder: Path, damage: str):
    change, message = DAMAGES[damage]
    change(folder)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(UserError) as caught:
        record.read_record(folder)
    assert re.search(message, str(caught.value)) and str(caught.value).endswith(f"remove {folder} to start over")
    assert "\n" not in str(caught.value) and {path: path.read_bytes() for path in folder.iterdir()} == before


READERS: dict[str, tuple[Callable[[Sequence[str]], int], str]] = {
    "run.py": (run.main, "--depth 20 --out records --device cpu"),
    "sweep.py --status": (sweep.main, "degradation --out records --status"),
    "sweep.py --dry-run": (sweep.main, "degradation --out records --dry-run"),
    "runs.py": (runs.main, "--records records"),
    "table.py": (table.main, "--records records"),
    "plot_degradation.py": (plot_degradation.main, "--records records --output figure.svg"),
    "compare.py": (compare.main, f"records/{CONFIG.folder} --records records"),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("damage", ["metrics: missing row", "truncated result"])
def test_every_reader_reports_damage(folder: Path, capsys: pytest.CaptureFixture[str], reader: str, damage: str):
    main, flags = READERS[reader]
    change, message = DAMAGES[damage]
    change(folder)
    assert cli.run_cli(main, flags.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and re.search(message, error)
    assert not Path("RESULTS.md").exists()


@pytest.mark.parametrize("reader", READERS)
def test_older_and_newer_records_pass(folder: Path, capsys: pytest.CaptureFixture[str], reader: str):
    """Without sessions or their later fields, without predictions, with an unknown field."""
    main, flags = READERS[reader]
    later_fields = {"began", "beside", "eval_every"}
    (folder / "environment.json").write_text(json.dumps([{name: SESSION[name] for name in SESSION.keys() - later_fields}]))
    update("result.json", later_field=1)(folder)
    for name in ("predictions.txt", "confusion.csv"):
        remove(name)(folder)
    assert cli.run_cli(main, flags.split()) == 0, capsys.readouterr().err
    remove("environment.json")(folder)
    assert cli.run_cli(main, flags.split()) == 0, capsys.readouterr().err


def test_the_committed_records_pass():
    folders = [path.parent for path in RECORDS.rglob("config.json")]
    assert len(folders) >= 123
    for folder in folders:
        assert record.read_record(folder).result is not None
