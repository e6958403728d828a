"""The simulated error rates."""

import numpy as np
import pandas as pd
import pytest

from analysis import power
from analysis.estimates import combine, estimate
from analysis.power import RATES, find_smallest_difference, measure_rates


def test_committed_rates_are_those_of_the_simulation(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(power, "TRIALS", 20)
    keys = ["rule", "seeds", "std", "published_std"]
    committed, again = pd.read_csv(RATES), measure_rates()
    assert committed[keys].equals(again[keys])
    shares = committed.drop(columns=keys)
    assert shares.filter(like="true").sum(axis=1).tolist() == pytest.approx([100] * len(shares))
    difference = (shares - again.drop(columns=keys)).abs().to_numpy(float)
    assert difference.max() < 50 and difference.mean() < 10


@pytest.mark.parametrize("seeds", [3, 8])
def test_smallest_difference_is_found_in_80_percent_of_trials(seeds: int):
    runs = np.random.default_rng(0).normal(0, 0.2, (2000, 2, seeds))
    runs[:, 0] += find_smallest_difference(seeds, 0.2)
    found = [combine([estimate(first), estimate(second)], [1, -1]).low > 0 for first, second in runs]
    assert np.mean(found) == pytest.approx(0.8, abs=0.03)


def test_smallest_difference_with_many_seeds_by_hand():
    # Cohen's d for 80% power of a two-sided t test with 17 runs a group: 0.99; Welch's test then hardly differs.
    assert find_smallest_difference(17, 0.2) == pytest.approx(0.99 * 0.2, abs=0.002)
