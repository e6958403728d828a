"""acceptance.py: the statistical test, and devices that pass and fail."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
from scipy import stats
from torch import nn

from experiments.devices import acceptance
from experiments.devices.acceptance import NETS, REFERENCE, TESTS, Measures, compare, list_alarms, load_runs, select_measures
from reproduce import record, run
from reproduce.config import Config, format_flags
from reproduce.model import Network
from tests.conftest import QUICK
from tests.fake_records import make_result, write_run


def write_outcome(records: Path, config: Config, measures: Measures):
    """Write a run folder with these measures."""
    folder = write_run(records, config, measures[2], evaluations=2)
    rows = record.read_metrics(folder)
    rows[0].train_loss, rows[1].train_loss, _ = measures
    record.write_metrics(folder, rows)
    record.write_json(folder / record.RESULT, make_result(config, rows))


def spread(number: int) -> Measures:
    """Measures of run `number`: for 0 to 19, 1.5 to 2.45, 1.0 to 1.95 and 40 to 59."""
    return 1.5 + 0.05 * number, 1.0 + 0.05 * number, 40.0 + number


def test_p_values_are_those_of_a_prediction_interval():
    reference = [spread(number) for number in range(20)]
    mean, std = 49.5, math.sqrt(35)
    half = float(stats.t.ppf(0.975, 19)) * std * math.sqrt(1 + 1 / 20)
    for found in (mean - half, mean + half):
        *others, last = compare("plain20", reference, [(1.975, 1.475, found)])
        assert (last.reference, last.std, last.found) == pytest.approx((mean, std, found))
        assert last.p == pytest.approx(min(1, TESTS * 0.05)) and [other.p for other in others] == [1, 1]
    half = float(stats.t.ppf(1 - 0.01 / TESTS / 2, 19)) * std * math.sqrt(1 / 4 + 1 / 20)
    for error, alarm in ((mean + half * 1.001, True), (mean + half * 0.999, False)):
        four = [(1.975, 1.475, error + step) for step in (-3.0, -1.0, 1.0, 3.0)]
        assert bool(list_alarms(compare("plain20", reference, four))) == alarm
    assert compare("plain20", reference, [(math.inf,) * 3])[0].p == 0, "a diverged run"
    assert list_alarms([last._replace(p=math.nan)]), "a comparison that is not possible"


def test_at_most_one_run_of_the_reference_fails_against_the_others():
    runs = load_runs(Path(acceptance.__file__).parents[2] / acceptance.RECORDS / REFERENCE)
    references = [select_measures(runs, net) for net in NETS]
    assert all(len(reference) == acceptance.FIRST_SEED for reference in references)
    for reference in references:
        rest = [(reference[:i] + reference[i + 1 :], [one]) for i, one in enumerate(reference)]
        assert sum(bool(list_alarms(compare("", others, one))) for others, one in rest) <= 1


def test_unfinished_runs_are_left_out(tmp_path: Path):
    net, other = NETS
    for config, number in ((replace(net, seed=10), 10), (replace(net, seed=9), 9), (other, 0)):
        write_outcome(tmp_path, config, spread(number))
    for seed, status in ((11, "unfinished"), (12, "diverged")):
        write_run(tmp_path, replace(net, seed=seed), status=status, evaluations=2)
    assert select_measures(load_runs(tmp_path), net) == [spread(9), spread(10), (math.inf,) * 3]


@pytest.fixture
def small(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Small networks and their reference; returns the flags."""
    nets = [replace(QUICK, residual=residual) for residual in (True, False)]
    monkeypatch.setattr(acceptance, "NETS", nets)
    monkeypatch.setattr(acceptance, "RECORDS", Path())
    flags = ["--device", "cpu", "--data", "synthetic"]
    for net in nets:
        for seed in range(5):
            options = f"--eval-every {net.iterations // 2} --out {REFERENCE} {' '.join(flags)} --seed {seed}"
            run.main([*format_flags(net), *options.split()])
    monkeypatch.setattr(acceptance, "FIRST_SEED", 5)
    return [*flags, "--runs", "2"]


def test_a_sound_device_passes_and_a_faulty_one_fails(
    small: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    assert acceptance.main([*small, "--out", "right"]) == 0
    printed = capsys.readouterr().out
    assert "run 1 of 4: residual8, seed 5\n" in printed and "run 4 of 4: plain8, seed 6\n" in printed
    assert printed.splitlines()[-1].startswith("passed: ")
    assert len(list(Path("right").glob("*/*/seed[56]/result.json"))) == 4
    monkeypatch.setattr(Network, "train", lambda self, mode=True: nn.Module.train(self, False))
    assert acceptance.main([*small, "--out", "wrong"]) == 1
    assert capsys.readouterr().out.splitlines()[-1].startswith("failed: ")
