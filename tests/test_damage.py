"""A damaged record is one sentence and exit status 2 in everything that reads it, and a sound one passes."""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from analysis import compare, plot_degradation, table
from experiments import sweep
from reproduce import cli, record, run
from reproduce.config import Config
from tests.fake_records import SESSION, write_run

CONFIG = Config(depth=20)
SCHEDULE = SESSION | {"command": "python reproduce/run.py --eval-every 16000"}

Damage = Callable[[Path], object]


def write(name: str, content: bytes) -> Damage:
    return lambda folder: (folder / name).write_bytes(content)


def lose(name: str) -> Damage:
    return lambda folder: (folder / name).unlink()


def tear(name: str) -> Damage:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-20])


def change(name: str, change: Callable[[Any], Any]) -> Damage:
    """By a function of the content; of metrics.jsonl, of its rows."""

    def damage(folder: Path):
        path = folder / name
        if name == record.METRICS:
            rows = change([json.loads(line) for line in path.read_text().splitlines()])
            path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        else:
            path.write_text(json.dumps(change(json.loads(path.read_text()))))

    return damage


def put(name: str, **values: Any) -> Damage:
    return change(name, lambda content: content | values)


def put_row(number: int, **values: Any) -> Damage:
    return change(record.METRICS, lambda rows: [row | values if i == number else row for i, row in enumerate(rows)])


def without(content: dict[str, Any], field: str) -> dict[str, Any]:
    return {name: value for name, value in content.items() if name != field}


DAMAGES: dict[str, tuple[Damage, str]] = {
    "config torn": (tear("config.json"), "config.json is damaged"),
    "config empty": (write("config.json", b""), "config.json is damaged"),
    "config a list": (write("config.json", b"[]"), "config.json .*no object"),
    "config edited": (put("config.json", momentum=0.8), "config.json .*(key|folder)"),
    "config with a new field": (put("config.json", dropout=0.5), "config.json .*dropout"),
    "config with a word for a number": (put("config.json", depth="20"), "config.json .*depth"),
    "config with a number out of all bounds": (put("config.json", lr=10**400), "config.json .*"),
    "config without a field": (change("config.json", lambda content: without(content, "lr")), "config.json .*lr"),
    "config of another run": (write("config.json", json.dumps(record.describe_config(Config(depth=32))).encode()), "config"),
    "config lost": (lose("config.json"), "config.json|not a run's folder"),
    "environment torn": (tear("environment.json"), "environment.json is damaged"),
    "environment an object": (write("environment.json", b"{}"), "environment.json is damaged .*array"),
    "environment of nothing": (write("environment.json", b"[]"), "environment.json is damaged"),
    "session without command": (change("environment.json", lambda c: [without(c[0], "command")]), "environment.json .*command"),
    "session of another kind": (change("environment.json", lambda c: [c[0] | {"device_name": 7}]), "environment.*device_name"),
    "metrics lost": (lose("metrics.jsonl"), "metrics.jsonl lacks the row of iteration 16000"),
    "metrics empty": (write("metrics.jsonl", b""), "metrics.jsonl lacks the row of iteration 16000"),
    "metrics torn at the end": (tear("metrics.jsonl"), "metrics.jsonl lacks the row of iteration 64000"),
    "metrics without a row": (change("metrics.jsonl", lambda rows: rows[:1] + rows[2:]), "metrics.* lacks .* 32000"),
    "metrics with a row torn": (
        lambda folder: (folder / "metrics.jsonl").write_text((folder / "metrics.jsonl").read_text().replace("}", "", 1)),
        "metrics.jsonl is damaged .line 1",
    ),
    "metrics not text": (write("metrics.jsonl", b"\xff\xfe\n"), "metrics.jsonl is damaged .line 1"),
    "a row twice": (change("metrics.jsonl", lambda rows: rows[:2] + rows[1:]), "metrics.* 32000 after 32000"),
    "a row without an error": (change("metrics.jsonl", lambda rows: [without(rows[0], "test_error"), *rows[1:]]), "test_error"),
    "a row with an error above 100": (put_row(1, test_error=101.0), "metrics.jsonl .*line 2.*100.* in test_error"),
    "a row with an error not finite": (put_row(1, train_error=float("nan")), "metrics.jsonl .*line 2.* in train_error"),
    "a row that is a list": (change("metrics.jsonl", lambda rows: [[], *rows[1:]]), "metrics.jsonl .*line 1.*object"),
    "a last row of another error": (put_row(3, test_error=7.0), "metrics.jsonl contradicts result.json .*test_error"),
    "result torn": (tear("result.json"), "result.json is damaged"),
    "result empty": (write("result.json", b""), "result.json is damaged"),
    "result null": (write("result.json", b"null"), "result.json is damaged"),
    "result a list": (write("result.json", b"[]"), "result.json is damaged"),
    "result too deep": (write("result.json", b"[" * 100_000), "result.json is damaged"),
    "result of another status": (put("result.json", status="done"), "result.json .*status"),
    "result diverged without iteration": (write("result.json", b'{"status": "diverged"}'), "result.json .*iteration"),
    "result diverged too late": (write("result.json", b'{"status": "diverged", "iteration": 70000}'), "result.json .*70000"),
    "result without an error": (change("result.json", lambda c: without(c, "test_error")), "result.json .*test_error"),
    "result of infinite error": (put("result.json", test_error=float("inf")), "result.json .*test_error"),
    "result of negative error": (put("result.json", best_test_error=-1.0), "result.json .*best_test_error"),
    "result of text": (put("result.json", test_error="8.0"), "result.json .*test_error"),
    "result of other iterations": (put("result.json", iterations=32000), "result.json .*iterations 32000"),
    "result of a held-out part": (put("result.json", held_out_error=8.0), "result.json .*held_out_error"),
    "responses torn": (tear("responses.json"), "responses.json is damaged"),
    "responses lost": (lose("responses.json"), "responses.json is missing"),
    "responses without std": (write("responses.json", b'{"images": 10000}'), "responses.json .*std"),
    "responses of fewer layers": (put("responses.json", std=[1.0] * 18), "responses.json .*18 layers, the net 19"),
    "responses not finite": (put("responses.json", std=[float("nan")] * 19), "responses.json .*std"),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A finished run's folder below records, with a README.md to write beside it."""
    monkeypatch.chdir(tmp_path)
    folder = write_run(tmp_path / "records", CONFIG)
    (folder / "environment.json").write_text(json.dumps([SCHEDULE]))
    blocks = (f"<!-- {name}:begin -->\n<!-- {name}:end -->\n" for name in ("results", "weights"))
    Path("README.md").write_text("".join(blocks))
    return folder


READERS: dict[str, tuple[Callable[[Sequence[str]], int], str]] = {
    "run.py": (run.run, "--depth 20 --out records --device cpu"),
    "sweep.py --status": (sweep.main, "degradation --out records --status"),
    "sweep.py --dry-run": (sweep.main, "degradation --out records --dry-run"),
    "table.py": (table.main, "--records records"),
    "plot_degradation.py": (plot_degradation.main, "--records records --output figure"),
    "compare.py": (compare.main, f"records/{CONFIG.folder} --records records"),
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_record_is_one_sentence(folder: Path, capsys: pytest.CaptureFixture[str], damage: str, reader: str):
    main, flags = READERS[reader]
    harm, sentence = DAMAGES[damage]
    harm(folder)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    assert cli.run_cli(main, flags.split()) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1
    assert re.search(sentence, said), said
    assert {path: path.read_bytes() for path in folder.iterdir()} == before and not Path("RESULTS.md").exists()


@pytest.mark.parametrize("reader", READERS)
def test_a_sound_record_passes(folder: Path, capsys: pytest.CaptureFixture[str], reader: str):
    """Old ones as well: with neither the time of their sessions nor these themselves, and with fields of a newer version."""
    main, flags = READERS[reader]
    (folder / "environment.json").write_text(json.dumps([without(without(SCHEDULE, "began"), "beside")]))
    put("result.json", new_field="of a version to come")(folder)
    with open(folder / "metrics.jsonl", "a") as file:
        file.write('{"iteration": 6')  # torn by a crash
    assert cli.run_cli(main, flags.split()) == 0, capsys.readouterr().err
    lose("environment.json")(folder)
    assert cli.run_cli(main, flags.split()) == 0, capsys.readouterr().err


def test_the_committed_records_are_sound():
    records = Path(__file__).parents[1] / "experiments" / "records"
    for folder in record.list_run_folders(records):
        config = record.read_config(folder)
        assert config is not None and record.read_record(folder, config).result is not None


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("result.json", "set that file alone aside, and the run's own command restores it"),
        ("environment.json", "remove that file alone, and nothing is lost but what it told of earlier sessions"),
        ("metrics.jsonl", "set it and result.json aside, and the run's own command restores both"),
        ("responses.json", "set it and result.json aside, and the run's own command restores both"),
        ("config.json", "set it and result.json aside, and the run's own command restores both"),
    ],
)
def test_with_a_checkpoint_the_remedy_is_small(folder: Path, capsys: pytest.CaptureFixture[str], name: str, remedy: str):
    record.save_checkpoint(folder, {"any": 1})
    write(name, b"{\n")(folder)
    main, flags = READERS["sweep.py --status"]
    assert cli.run_cli(main, flags.split()) == 2
    assert remedy in capsys.readouterr().err


def test_a_damaged_record_does_not_hide_the_state_of_the_others(folder: Path, capsys: pytest.CaptureFixture[str]):
    write_run(Path("records"), replace(CONFIG, seed=1))
    tear("result.json")(folder)
    assert cli.run_cli(sweep.main, "degradation --out records --status --only residual20".split()) == 2
    said = capsys.readouterr().out
    assert "1 finished, 0 diverged, 0 unfinished, 3 missing, 1 damaged; in records" in said
    assert "seed 0 damaged, 1 finished (8.00%), 2 missing" in said
