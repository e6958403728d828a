"""Published numbers: paper.csv, a row per number, and the published standard deviations of single runs."""

import math
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from reproduce.config import Config

HE, BLOG, IDENTITY = "He et al. 2015", "a blog reproduction", "Identity Mappings (arXiv:1603.05027)"
TUTORIAL, RECIPES = "a tutorial for beginners", "well-kept recipes"
"""Values of the column `source`."""


@cache
def load_paper() -> pd.DataFrame:
    """Return paper.csv, errors in %.

    A range goes from `value` to `upto`, which is inf for "more than"; "less than" has the value 0. `comparable` is "no" if the
    weight decay or the preprocessing differs from the paper's.
    """
    numbers = ("depth", "value", "upto", "spread", "n")
    columns = pd.read_csv(Path(__file__).with_name("paper.csv"), nrows=0).columns
    types = {name: "float" if name in numbers else "str" for name in columns}
    missing = {name: [""] for name in numbers}
    return pd.read_csv(Path(__file__).with_name("paper.csv"), dtype=types, keep_default_na=False, na_values=missing)


def published(paper: pd.DataFrame, **where: Any) -> pd.DataFrame:
    """Return the published numbers whose columns have the given values."""
    for column, value in where.items():
        paper = paper[paper[column] == value]
    return paper


def paper_value(source: str, quantity: str = "test error", column: str = "value", **where: Any) -> float:
    """Return the one published number that matches.

    Raises:
        ValueError: none matches, or several do.
    """
    return float(published(load_paper(), source=source, quantity=quantity, **where)[column].item())


def kind_of(config: Config) -> str:
    """Return "plain", "residual", or the name of another family, as in the column `kind`."""
    return config.net.rstrip("0123456789") if config.family == "6n+2" else config.family


def list_published_stds(config: Config) -> pd.DataFrame:
    """Return the published results whose standard deviations are pooled for a network.

    Those of comparable rows of its kind (plain or residual) and depth with the paper's block and optimizer; or, if there are
    none, those of its kind at any depth.
    """
    rows = published(load_paper(), kind=kind_of(config), quantity="test error", variant="", comparable="yes")
    rows = rows[rows["spread"].notna()]
    of_depth = rows[rows["depth"] == config.depth]
    return rows if of_depth.empty else of_depth


@cache
def published_std(config: Config, leave_out_widest: bool = False) -> float:
    """Return the pooled published standard deviation of a run (root mean square), in points; infinite if there is none."""
    stds = list_published_stds(config)["spread"].sort_values()
    if leave_out_widest and len(stds) > 1:
        stds = stds.iloc[:-1]
    return float((stds**2).mean() ** 0.5) if len(stds) else math.inf
