"""Published numbers: paper.csv, a row per number, and the published standard deviations of single runs."""

import csv
import math
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pandas as pd

from reproduce.config import Config
from reproduce.errors import UserError

HE, BLOG, IDENTITY = "He et al. 2015", "a blog reproduction", "Identity Mappings (arXiv:1603.05027)"
TUTORIAL, RECIPES = "a tutorial for beginners", "well-tuned recipes"
"""Values of the column `source`."""
WITH_WARMUP = ("Tony-Y/pytorch_warmup, 1k-step warm-up", "raphaelreme/torch-resnet")
"""Sources that warm up networks of up to 56 layers."""
Pooling = Literal["all", "without the largest", "same warm-up"]
"""Which published standard deviations of a network are pooled.

same warm-up: up to 56 layers, only those of sources that match the network in using a warm-up or none.
"""
Text = Annotated[str, msgspec.Meta(min_length=1)]
Percent = Annotated[float, msgspec.Meta(ge=0, le=100)]
YesNo = Literal["yes", "no"]
PAPER = Path(__file__).with_name("paper.csv")


class Number(msgspec.Struct, forbid_unknown_fields=True):
    """A row of paper.csv; empty fields are missing.

    A range goes from `value` to `upto`; "more than 60" is 60 to 100, "less than 0.1" is 0 to 0.1. spread: the standard
    deviation of the n runs. comparable: "no" if the weight decay differs from the paper's 0.0001.
    """

    source: Text
    kind: Literal["plain", "residual", "resnet18", "lenet"]
    quantity: Text
    value: Percent
    where: Text
    read_off_plot: YesNo
    comparable: YesNo
    protocol: Text
    depth: Annotated[int, msgspec.Meta(ge=1)] | None = None
    variant: str = ""
    upto: Percent | None = None
    spread: Percent | None = None
    n: Annotated[int, msgspec.Meta(ge=1)] | None = None


@cache
def load_paper(path: Path = PAPER) -> pd.DataFrame:
    """Return paper.csv, errors in %, with the columns of Number.

    Raises:
        UserError: the file is damaged; the message names the line and column.
    """
    numbers = []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = csv.DictReader(file, strict=True, restkey="more columns")
            for line in lines:
                fields = {name: value for name, value in line.items() if value}
                try:
                    numbers.append(msgspec.structs.asdict(msgspec.convert(fields, Number, strict=False)))
                except msgspec.ValidationError as error:
                    raise UserError(f"{path.name}, line {lines.line_num}: {str(error).replace('$.', '')}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path.name} cannot be read: {error}") from None
    frame = pd.DataFrame(numbers, columns=pd.Index(Number.__struct_fields__))
    return frame.astype({name: float for name in ("depth", "value", "upto", "spread", "n")})


def published(**where: Any) -> pd.DataFrame:
    """Return the published numbers whose columns have the given values."""
    paper = load_paper()
    for column, value in where.items():
        paper = paper[paper[column] == value]
    return paper


def find_number(**where: Any) -> pd.Series:
    """Return the one published number whose columns have the given values.

    Raises:
        UserError: there is none, or there are several.
    """
    rows = published(**where)
    if len(rows) != 1:
        wanted = ", ".join(f"{column} {value!r}" for column, value in where.items())
        raise UserError(f"paper.csv must have one row with {wanted}, got {len(rows)}")
    return rows.iloc[0]


@cache
def paper_value(source: str, quantity: str = "test error", column: str = "value", **where: Any) -> float:
    """Return the one published number that matches, or another column of it."""
    return float(find_number(source=source, quantity=quantity, **where)[column])


def kind_of(config: Config) -> str:
    """Return "plain", "residual", or the name of another family, as in the column `kind`."""
    if config.family != "6n+2":
        return config.family
    return "residual" if config.residual else "plain"


def list_published_stds(config: Config, pooling: Pooling = "all") -> pd.DataFrame:
    """Return the published results whose standard deviations are pooled for a network.

    These are the comparable results of its kind (plain or residual) and depth with the paper's block and optimizer, or if
    there are none, those of its kind at any depth.
    """
    rows = published(kind=kind_of(config), quantity="test error", variant="", comparable="yes")
    rows = rows[rows["spread"].notna()]
    if pooling == "same warm-up" and config.depth < 110:
        like = rows[rows["source"].isin(WITH_WARMUP) == (config.warmup != "none")]
        rows = rows if like.empty else like
    of_depth = rows[rows["depth"] == config.depth]
    rows = rows if of_depth.empty else of_depth
    return rows.drop(rows["spread"].idxmax()) if pooling == "without the largest" and len(rows) > 1 else rows


@cache
def published_std(config: Config, pooling: Pooling = "all") -> float:
    """Return the pooled published standard deviation of a run (root mean square), in points; infinite if there is none."""
    stds = list_published_stds(config, pooling)["spread"]
    return float((stds**2).mean() ** 0.5) if len(stds) else math.inf
