"""Intervals and tests against numbers worked out by hand or by scipy."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from analysis.estimates import (
    Estimate,
    Finding,
    Interval,
    all_of,
    combine,
    compare_predictions,
    estimate,
    holm_adjust,
    is_equivalent,
    is_positive,
    matches_published,
    prediction,
)


def test_estimate_by_hand():
    # Student's t with 2 degrees of freedom leaves 2.5% above 4.302653; the standard error is 0.5 / sqrt(3).
    half = 4.302653 * 0.5 / math.sqrt(3)
    three = estimate([9.0, 8.0, 8.5])
    assert (three.n, three.mean, three.std) == (3, 8.5, 0.5)
    assert combine([three], [1]).half == pytest.approx(half, abs=1e-6)
    one, none = estimate([8.0]), estimate([])
    assert (str(three), str(one), str(none)) == ("8.50 ± 0.50 (n=3)", "8.00 (n=1)", "-") and math.isnan(one.std)
    with pytest.raises(ValueError):
        estimate([8.0, math.nan])


SAMPLES = st.lists(st.floats(0, 100).map(lambda x: round(x, 3)), min_size=3, max_size=8, unique=True)


@settings(deadline=None, derandomize=True)
@given(SAMPLES, SAMPLES)
def test_difference_is_welchs(first: list[float], second: list[float]):
    ours, theirs = combine([estimate(first), estimate(second)], [1, -1]), stats.ttest_ind(first, second, equal_var=False)
    interval = theirs.confidence_interval()
    assert (ours.low, ours.high) == (pytest.approx(interval.low, abs=1e-6), pytest.approx(interval.high, abs=1e-6))
    above = stats.ttest_ind(first, second, equal_var=False, alternative="greater")
    assert ours.p == pytest.approx(min(1, 2 * np.asarray(above)[1]), abs=1e-9)


def test_published_standard_deviations_give_normal_intervals():
    gap = combine([Estimate(1, 9.0, 0.3, published=True), Estimate(2, 8.0, 0.4, published=True)], [1, -1])
    assert gap.half == pytest.approx(1.959964 * math.sqrt(0.3**2 + 0.4**2 / 2), abs=1e-6)
    assert str(gap) == "+1.00 (+0.19 to +1.81)"
    assert str(combine([Estimate(1, 9.0, math.inf, published=True)], [1])) == "+9.00 (standard deviation unknown)"


def test_difference_of_differences():
    both = combine([Estimate(4, mean, 0.2) for mean in (1.0, 2.0, 4.0, 8.0)], [-1, 1, 1, -1])
    assert both.mean == -3 and both.error == pytest.approx(0.2) and both.degrees == pytest.approx(12)


def test_equal_runs_have_an_interval_of_no_width():
    gap = combine([Estimate(3, 9.0, 0.0), Estimate(3, 8.0, 0.0)], [1, -1])
    assert gap.low == gap.high == 1 and is_positive(gap) == Finding(True, 0.0)


def test_prediction_interval_contains_19_of_20_further_runs():
    runs = np.random.default_rng(0).normal(8, 0.3, (4000, 4))
    predictions = [prediction(estimate(row[:3])) for row in runs]
    hits = [interval.low <= row[3] <= interval.high for interval, row in zip(predictions, runs, strict=True)]
    assert np.mean(hits) == pytest.approx(0.95, abs=0.015)


@pytest.mark.parametrize(
    "low, high, positive, at_least_half, near_zero",
    [
        (0.1, 0.3, True, True, True),
        (-0.1, 0.3, None, False, True),
        (-0.1, 0.9, None, None, None),
        (-0.3, -0.1, False, False, True),
        (0.6, 0.8, True, True, False),
        (0.4, 0.8, True, True, None),
        (-0.9, -0.6, False, False, False),
    ],
)
def test_tests_of_an_interval(low, high, positive, at_least_half, near_zero):
    difference = Interval((low + high) / 2, (high - low) / 2 / 1.959964, math.inf)
    assert is_positive(difference).holds is positive and is_positive(difference, 0.5).holds is at_least_half
    assert is_equivalent(difference, 0.5).holds is near_zero
    for finding, holds in ((is_positive(difference), positive), (is_equivalent(difference, 0.5), near_zero)):
        assert finding.p is not None and (finding.p < 0.05) == (holds is True)


@pytest.mark.parametrize(
    "ours, holds",
    [
        (Estimate(3, 8.0, 0.1), True),  # predicts 8.0 ± 4.30 x 0.1 x 1.155 = 0.50
        (Estimate(3, 8.0, 0.05), None),  # predicts 8.0 ± 0.25: outside, but within 0.5 points
        (Estimate(3, 9.0, 1.0), None),  # predicted, but more than 0.5 points away
        (Estimate(3, 9.0, 0.1), False),
        (Estimate(1, 7.9, 0.2, published=True), True),  # predicts 7.9 ± 1.96 x 0.2 x 1.414 = 0.55
        (Estimate(1, 7.8, 0.2, published=True), False),
        (Estimate(1, 7.8, 0.3, published=True), None),
    ],
)
def test_published_number_matches_if_it_is_predicted_and_close(ours: Estimate, holds: bool | None):
    assert matches_published(prediction(ours) - 8.4, 0.5).holds is holds


def test_all_of_combines_verdicts_and_p_values():
    true, unclear, false = Finding(True, 0.01), Finding(None, 0.2), Finding(False)
    assert all_of(true, True) == Finding(True, 0.01) and all_of() == Finding(True)
    assert all_of(true, unclear) == Finding(None, 0.2) and all_of(unclear, False, true).holds is False
    assert all_of(false, true) == Finding(False, 1.0), "the p-values of the other conditions are no evidence for the claim"
    assert all_of(Finding(False, 0.9), true) == Finding(False, 0.9) and all_of(false, True) == Finding(False)


def test_holm_by_hand():
    # Sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1: 0.04, 0.06, 0.06, and 0.04, which may not be less than before.
    assert holm_adjust([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm_adjust([0.6, 0.7]) == [1.0, 1.0] and holm_adjust([]) == []


def test_mcnemar_by_hand():
    # 4 images only the first network gets wrong, 1 only the second: 2 P(at most 1 of 5) = 2 (1 + 5) / 32.
    assert compare_predictions("aaaa01b", "0123a1c") == (4, 1, pytest.approx(0.375))
    assert compare_predictions("0a", "0b") == (0, 0, 1.0)
