"""The simulated error rates."""

import pandas as pd
import pytest

from analysis.power import RATES, find_smallest_difference, measure_rates


def test_committed_rates_are_those_of_the_simulation():
    keys = ["rule", "seeds", "std", "published_std"]
    committed, again = pd.read_csv(RATES), measure_rates(trials=20)
    assert committed[keys].equals(again[keys])
    shares = committed.drop(columns=keys)
    assert shares.filter(like="true").sum(axis=1).tolist() == pytest.approx([100] * len(shares))
    difference = (shares - again.drop(columns=keys)).abs().to_numpy(float)
    assert difference.max() < 50 and difference.mean() < 10


def test_smallest_difference_by_hand():
    # Cohen's d for 80% power of a two-sided t test with 3 and 5 runs a group: 3.07 and 2.02.
    assert find_smallest_difference(3, 0.2) == pytest.approx(3.07 * 0.2, abs=0.01)
    assert find_smallest_difference(5, 0.2) == pytest.approx(2.02 * 0.2, abs=0.01)
