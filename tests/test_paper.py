"""paper.csv, and the published standard deviations pooled from it."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest

from analysis.paper import HE, PAPER, list_published_stds, load_paper, paper_value, published, published_std
from reproduce.config import PAPER_TEST_ERROR, Config
from reproduce.errors import UserError


def test_published_numbers_agree_with_the_trainers():
    paper = published(source=HE, kind="residual", quantity="test error")
    assert dict(zip(paper["depth"], paper["value"], strict=True)) == PAPER_TEST_ERROR
    assert paper_value(HE, kind="residual", depth=110, column="spread") == 0.16
    with pytest.raises(UserError, match="got 6"):
        paper_value(HE, kind="residual")
    with pytest.raises(UserError, match="got 0"):
        paper_value(HE, kind="residual", depth=26)


def test_every_number_is_there_once():
    assert not load_paper().duplicated(["source", "kind", "depth", "variant", "quantity", "protocol"]).any()


FIRST = "He et al. 2015,residual,20,,test error,8.75,,,1,Table 6,no,yes,64k iterations\n"
"""Line 2 of paper.csv."""


def change(old: str, new: str) -> Callable[[bytes], bytes]:
    return lambda content: content.replace(FIRST.encode(), FIRST.replace(old, new).encode())


@pytest.mark.parametrize(
    "damage, where",
    [
        (change("8.75", "875"), "line 2: .*`value`"),
        (change("8.75", "nan"), "line 2: .*`value`"),
        (change("8.75", ""), "line 2: .*`value`"),
        (change("residual", "resnet"), "line 2: .*`kind`"),
        (change("64k iterations", "64k iterations,more"), "line 2: .*more columns"),
        (lambda content: content.replace(b"value", b"error", 1), "line 2: .*`error`"),
        (lambda content: content + b"\xff", "cannot be read"),
        (lambda content: content + b'"quoted', "cannot be read"),
    ],
)
def test_damage_is_reported_with_line_and_column(tmp_path: Path, damage: Callable[[bytes], bytes], where: str):
    (tmp_path / "paper.csv").write_bytes(damage(PAPER.read_bytes()))
    with pytest.raises(UserError, match=rf"^paper\.csv.*{where}"):
        load_paper(tmp_path / "paper.csv")


def test_published_standard_deviations_are_pooled_by_kind_and_depth():
    of_other_depths = math.sqrt((0.13**2 + 0.22**2) / 2)
    assert published_std(Config(depth=56, residual=False)) == pytest.approx(0.22)
    assert published_std(Config(depth=44, residual=False)) == pytest.approx(of_other_depths)
    assert list(list_published_stds(Config(depth=56))["spread"]) == [0.27, 1.01, 0.12, 0.26], "none of another decay"
    assert published_std(Config(depth=56)) == pytest.approx(0.542, abs=1e-3)
    assert published_std(Config(depth=56), pooling="without the largest") == pytest.approx(0.227, abs=1e-3)
    same = [published_std(Config(depth=56, warmup=warmup), pooling="same warm-up") for warmup in ("none", "iterations")]
    assert same == [pytest.approx(0.739, abs=1e-3), pytest.approx(0.202, abs=1e-3)]
    assert published_std(Config(depth=110), pooling="same warm-up") == published_std(Config(depth=110))
    assert published_std(Config(depth=110, optimizer="adam")) == published_std(Config(depth=110))
    assert published_std(Config(family="resnet50")) == math.inf
