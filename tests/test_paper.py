"""paper.csv, and the published standard deviations pooled from it."""

import math

import pytest

from analysis.paper import HE, list_published_stds, load_paper, paper_value, published, published_std
from reproduce.config import PAPER_TEST_ERROR, Config


def test_published_numbers_agree_with_the_trainers():
    paper = published(load_paper(), source=HE, kind="residual", quantity="test error")
    assert dict(zip(paper["depth"], paper["value"], strict=True)) == PAPER_TEST_ERROR
    assert paper_value(HE, kind="residual", depth=110, column="spread") == 0.16
    with pytest.raises(ValueError):
        paper_value(HE, kind="residual")  # several
    with pytest.raises(ValueError):
        paper_value(HE, kind="residual", depth=26)  # none


def test_every_number_has_a_source():
    paper = load_paper()
    assert paper["value"].notna().all() and paper["n"].dropna().ge(1).all()
    assert (paper[["source", "quantity", "where"]] != "").all(axis=None)
    assert set(paper["read_off_plot"]) == set(paper["comparable"]) == {"yes", "no"}
    assert not paper.duplicated(["source", "kind", "depth", "variant", "quantity", "protocol"]).any()


def test_published_standard_deviations_are_pooled_by_kind_and_depth():
    assert published_std(Config(depth=56, residual=False)) == pytest.approx(0.22)
    assert published_std(Config(depth=44, residual=False)) == pytest.approx(math.sqrt((0.13**2 + 0.22**2) / 2)), (
        "of other depths"
    )
    assert list(list_published_stds(Config(depth=56))["spread"]) == [0.27, 1.01, 0.12, 0.26], "none of another decay"
    assert published_std(Config(depth=56)) == pytest.approx(0.542, abs=1e-3)
    assert published_std(Config(depth=56), leave_out_widest=True) == pytest.approx(0.227, abs=1e-3)
    assert published_std(Config(depth=110, optimizer="adam")) == published_std(Config(depth=110))
    assert published_std(Config(family="resnet50")) == math.inf
