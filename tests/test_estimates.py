"""Statistics against numbers worked out by hand, and each rule in every direction."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from analysis.estimates import (
    Contrast,
    Finding,
    Term,
    all_of,
    contrast,
    estimate,
    holm_adjust,
    increases,
    is_equivalent,
    is_positive,
    matches_published,
    prediction_half_width,
)

# Statistics -----------------------------------------------------------------------------------------------------------


def test_an_estimate_by_hand():
    # Student's t with 2 degrees of freedom leaves 2.5% above 4.302653; the standard error is 0.5 / sqrt(3).
    half = 4.302653 * 0.5 / math.sqrt(3)
    three = estimate([9.0, 8.0, 8.5])
    assert (three.n, three.mean, three.std, three.median, three.best) == (3, 8.5, 0.5, 8.5, 8.0)
    assert three.low == pytest.approx(8.5 - half, abs=1e-6) and three.high == pytest.approx(8.5 + half, abs=1e-6)
    assert str(three) == "8.50 ± 0.50 (n=3)" and three.interval == "7.26 to 9.74"
    mean = contrast([Term(3, 8.5, 0.5)], [1])
    assert (mean.low, mean.high) == (pytest.approx(three.low), pytest.approx(three.high))


def test_the_mean_and_std_of_the_paper_have_its_form():
    assert str(estimate([6.43, 6.61, 6.61, 6.61, 6.8])) == "6.61 ± 0.13 (n=5)"


def test_one_run_has_no_spread_two_have_no_interval_and_none_has_nothing():
    one, none = estimate([8.0]), estimate([])
    assert (one.n, one.mean, one.median, one.best) == (1, 8, 8, 8) and math.isnan(one.std) and math.isnan(one.low)
    assert str(one) == "8.00 (n=1)" and one.interval == "-"
    two = estimate([8.0, 9.0])
    assert str(two) == "8.50 ± 0.71 (n=2)" and math.isnan(two.low) and two.interval == "-", "one degree of freedom says nothing"
    assert none.n == 0 and math.isnan(none.mean) and str(none) == "-"


def test_a_missing_value_is_not_swallowed():
    with pytest.raises(ValueError):
        estimate([8.0, math.nan])


SAMPLES = st.lists(st.floats(0, 100).map(lambda x: round(x, 3)), min_size=3, max_size=8, unique=True)


@given(SAMPLES, SAMPLES)
def test_a_difference_is_welchs(first: list[float], second: list[float]):
    terms = [Term(len(x), float(np.mean(x)), float(np.std(x, ddof=1))) for x in (first, second)]
    ours, theirs = contrast(terms, [1, -1]), stats.ttest_ind(first, second, equal_var=False)
    interval = theirs.confidence_interval()
    assert (ours.low, ours.high) == (pytest.approx(interval.low, abs=1e-6), pytest.approx(interval.high, abs=1e-6))
    above = stats.ttest_ind(first, second, equal_var=False, alternative="greater")
    assert is_positive(ours).p == pytest.approx(min(1, 2 * np.asarray(above)[1]), abs=1e-9)


def test_known_spreads_give_normal_intervals():
    gap = contrast([Term(1, 9.0, 0.3, known=True), Term(2, 8.0, 0.4, known=True)], [1, -1])
    assert gap.half == pytest.approx(1.959964 * math.sqrt(0.3**2 + 0.4**2 / 2), abs=1e-6)
    assert str(gap) == "+1.00 (+0.19 to +1.81)"
    assert str(contrast([Term(1, 9.0, math.inf, known=True)], [1])) == "+9.00 (of unknown spread)"


def test_a_difference_of_differences():
    terms = [Term(4, mean, 0.2) for mean in (1.0, 2.0, 4.0, 8.0)]
    both = contrast(terms, [-1, 1, 1, -1])
    assert both.mean == -3 and both.error == pytest.approx(0.2) and both.degrees == pytest.approx(12)


def test_cells_without_any_spread_have_an_interval_of_no_width():
    gap = contrast([Term(3, 9.0, 0.0), Term(3, 8.0, 0.0)], [1, -1])
    assert gap.low == gap.high == 1 and is_positive(gap) == Finding(True, 0.0)


# Rules ----------------------------------------------------------------------------------------------------------------


def make_contrast(low: float, high: float) -> Contrast:
    return Contrast((low + high) / 2, (high - low) / 2 / 1.959964, math.inf)


@pytest.mark.parametrize(
    "low, high, clear, clear_by_half, rising, near_zero",
    [
        (0.1, 0.3, True, True, True, True),
        (-0.1, 0.3, None, False, True, True),
        (-0.1, 0.9, None, None, True, None),
        (-0.9, 0.1, None, False, None, None),
        (-0.3, -0.1, False, False, False, True),
        (0.6, 0.8, True, True, True, False),
        (0.4, 0.8, True, True, True, None),
        (-1.1, 0.02, None, False, None, None),
        (-0.9, -0.6, False, False, False, False),
    ],
)
def test_what_an_interval_says(low, high, clear, clear_by_half, rising, near_zero):
    difference = make_contrast(low, high)
    assert is_positive(difference).holds is clear and is_positive(difference, 0.5).holds is clear_by_half
    assert increases(difference).holds is rising and is_equivalent(difference, 0.5).holds is near_zero
    for finding, holds in ((is_positive(difference), clear), (is_equivalent(difference, 0.5), near_zero)):
        assert finding.p is not None and (finding.p < 0.05) == (holds is True)


@pytest.mark.parametrize(
    "term, holds",
    [
        (Term(3, 8.0, 0.1), True),  # predicts 8.0 +- 4.30 x 0.1 x 1.155 = 0.50
        (Term(3, 8.0, 0.05), None),  # predicts 8.0 +- 0.25
        (Term(3, 8.2, 1.0), True),
        (Term(3, 9.0, 1.0), None),  # within the prediction, but farther than 0.5
        (Term(3, 9.3, 0.1), False),
        (Term(3, 7.0, 0.1), False),
        (Term(1, 8.0, 0.2, True), True),  # predicts 8.0 +- 1.96 x 0.2 x 1.414 = 0.55
        (Term(1, 7.9, 0.2, True), True),
        (Term(1, 7.8, 0.2, True), None),
        (Term(1, 9.9, 0.2, True), False),
    ],
)
def test_a_published_number_is_met_within_the_prediction_and_half_a_point(term: Term, holds: bool | None):
    assert matches_published(term, 8.4, 0.5).holds is holds


def test_a_prediction_interval_holds_19_of_20_further_runs():
    generator = np.random.default_rng(0)
    samples = generator.normal(8, 0.3, (4000, 4))
    hits = [
        abs(sample[3] - sample[:3].mean()) <= prediction_half_width(Term(3, sample[:3].mean(), sample[:3].std(ddof=1)))
        for sample in samples
    ]
    assert np.mean(hits) == pytest.approx(0.95, abs=0.015)


def test_a_rule_of_several_parts():
    true, open_, false = Finding(True, 0.01), Finding(None, 0.2), Finding(False)
    assert all_of(true, True) == Finding(True, 0.01) and all_of() == Finding(True)
    assert all_of(true, open_) == Finding(None, 0.2) and all_of(open_, False, true).holds is False
    assert all_of(false, true) == Finding(False, 1.0), "what is no test and does not hold leaves the others' p without meaning"
    assert all_of(Finding(False, 0.9), true) == Finding(False, 0.9) and all_of(false, True) == Finding(False)


def test_holms_adjustment_by_hand():
    # Sorted 0.01, 0.02, 0.03, 0.04 times 4, 3, 2, 1: 0.04, 0.06, 0.06, and 0.04, which may not be less than before.
    assert holm_adjust([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm_adjust([0.6, 0.7]) == [1.0, 1.0] and holm_adjust([]) == []
