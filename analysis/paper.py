"""paper.csv as a frame: what the paper and its reproductions report, a row per number."""

import math
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from reproduce.config import Config

HE, BLOG, IDENTITY = "He et al. 2015", "a blog reproduction", "Identity Mappings (arXiv:1603.05027)"
TUTORIAL, RECIPES = "a tutorial for beginners", "well-kept recipes"
"""Sources."""


@cache
def load_paper() -> pd.DataFrame:
    """paper.csv: what the paper and its reproductions report, errors in percent; columns as in the file.

    A range goes from `value` to `upto`, which is inf for "more than"; "less than" has the value 0.
    """
    text = dict.fromkeys(("source", "kind", "variant", "quantity", "where", "read_off_plot", "protocol"), "str")
    return pd.read_csv(Path(__file__).with_name("paper.csv"), dtype=text, keep_default_na=False, na_values={
        name: [""] for name in ("depth", "value", "upto", "spread", "n")
    })  # fmt: skip


def published(paper: pd.DataFrame, **where: Any) -> pd.DataFrame:
    """The published numbers whose columns have the given values."""
    for column, value in where.items():
        paper = paper[paper[column] == value]
    return paper


def paper_value(source: str, quantity: str = "test error", column: str = "value", **where: Any) -> float:
    """The one published number that fits.

    Raises:
        ValueError: none does, or several do.
    """
    return float(published(load_paper(), source=source, quantity=quantity, **where)[column].item())


def kind_of(config: Config) -> str:
    """As the file has it: plain or residual, or the name of another family."""
    return config.net.rstrip("0123456789") if config.family == "6n+2" else config.family


@cache
def find_spread(config: Config) -> float:
    """The published standard deviation of single runs of a net, in points of test error.

    The root mean square of those in paper.csv for its kind (plain or residual) and depth, for want of them of that kind; of
    nets trained as the paper says, whatever the config changes. Infinite where there is none.
    """
    numbers = published(load_paper(), kind=kind_of(config), quantity="test error", variant="")
    numbers = numbers[numbers["spread"].notna()]
    of_depth = numbers[numbers["depth"] == config.depth]
    spreads = (numbers if of_depth.empty else of_depth)["spread"]
    return math.inf if spreads.empty else float((spreads**2).mean() ** 0.5)
