"""What the files of a run folder hold, field by field; record.py reads nothing that differs from it. Free of torch.

Errors are in percent. A field that is there and not named here is of a newer version, and kept.
"""

import math
import re
import sys
from typing import Annotated, Any, Literal, NotRequired, TypedDict

from msgspec import Meta, ValidationError, convert

from reproduce.config import Config, RunOptions

Percent = Annotated[float, Meta(ge=0, le=100)]
Amount = Annotated[float, Meta(ge=0, le=sys.float_info.max)]
"""Of something that cannot be negative; neither infinite nor NaN."""
Count = Annotated[int, Meta(ge=0)]


class Row(TypedDict):
    """A line of metrics.jsonl."""

    iteration: Annotated[int, Meta(ge=1)]
    learning_rate: Amount
    train_loss: Amount
    train_error: Percent
    test_error: Percent
    held_out_error: NotRequired[Percent]
    seconds: Amount


class Finished(TypedDict):
    """result.json of a run that has finished."""

    status: Literal["finished"]
    test_error: Percent
    mean_of_last_five_test_error: Percent
    best_test_error: Percent
    held_out_error: NotRequired[Percent]
    train_error: Percent
    train_loss: Amount
    parameters: Count
    iterations: Count
    warmup_ended: Count | None
    seconds: Amount
    images_per_second: Amount
    peak_memory: Count | None


class Diverged(TypedDict):
    """result.json of a run that has diverged."""

    status: Literal["diverged"]
    iteration: Count


class Responses(TypedDict):
    """responses.json."""

    images: Count
    std: list[Amount]


class Code(TypedDict):
    commit: str
    dirty: bool


class DataSet(TypedDict):
    name: str
    sha256: str
    classes: NotRequired[list[str]]
    images: NotRequired[Count]
    test_images: NotRequired[Count]


class Session(TypedDict):
    """One of environment.json."""

    command: str
    began: NotRequired[str]
    git: Code | None
    device: str
    device_name: str
    threads: Count
    platform: str
    versions: dict[str, str | int | None]
    flags: dict[str, Any]
    data: DataSet
    beside: NotRequired[Count]


Sessions = Annotated[list[Session], Meta(min_length=1)]
"""environment.json."""


def validate(content: Any, kind: Any) -> str | None:
    """What keeps some content from being of a kind, with the field; None where it is."""
    try:
        convert(content, kind)
    except ValidationError as error:
        return str(error).replace("`", "").replace(" - at $.", " in ").replace(" - at $", " in ")
    return None


def validate_result(content: Any) -> str | None:
    """As `validate`, for result.json."""
    diverged = isinstance(content, dict) and content.get("status") == "diverged"
    return validate(content, Diverged if diverged else Finished)


# Files beside each other, and beside the config ------------------------------------------------------------------------

LAST = ("test_error", "held_out_error", "train_error", "train_loss")
"""What a result has from the last row of the metrics."""


def find_contradiction(result: dict[str, Any] | None, config: Config) -> str | None:
    """In what a result is not one of this config."""
    if result is None:
        return None
    if result["status"] == "diverged":
        at, limit = result["iteration"], config.iterations
        return f"is damaged (iteration {at}, of a run of {limit})" if at > limit else None
    if result["iterations"] != config.iterations:
        return f"is damaged (iterations {result['iterations']}, where its config has {config.iterations})"
    if ("held_out_error" in result) != (config.split == "val"):
        return f"is damaged (held_out_error, which does not go with split {config.split})"
    return None


def find_missing_layers(responses: list[float] | None, result: dict[str, Any] | None, config: Config) -> str | None:
    """In what the responses are not those of a run with this result; nets of other families than the paper's have none."""
    if config.family != "6n+2":
        return None if responses is None else f"is damaged (a {config.net} has no such layers)"
    if responses is None:
        return "is missing" if result is not None and result["status"] == "finished" else None
    layers = config.depth - 1  # all but the linear one
    return None if len(responses) == layers else f"is damaged (std has {len(responses)} layers, the net {layers})"


def find_gap(rows: list[dict[str, Any]], config: Config, sessions: list[dict[str, Any]], reached: int) -> str | None:
    """Whether rows are missing of the first `reached` iterations, by the --eval-every of the sessions' commands.

    Where those differ, their common multiples have a row in any case.
    """
    every = [re.search(r"--eval-every[ =](\d+)", session["command"]) for session in sessions]
    period = math.lcm(*(int(found[1]) if found else RunOptions.eval_every for found in every))
    end = rows[-1]["iteration"] if rows else 0
    if end > min(reached, config.iterations):
        return f"is damaged (iteration {end}, of a run of {min(reached, config.iterations)})"
    if any(("held_out_error" in row) != (config.split == "val") for row in rows):
        return f"is damaged (held_out_error, which does not go with split {config.split})"
    missing = set(range(period, reached + 1, period)) - {row["iteration"] for row in rows} if sessions and period else set()
    return f"lacks the row of iteration {min(missing)}" if missing else None


def find_end_problem(rows: list[dict[str, Any]], result: dict[str, Any] | None) -> str | None:
    """In what the last row is not the one that a result was made from."""
    if result is None or result["status"] == "diverged":
        return None
    if not rows or rows[-1]["iteration"] != result["iterations"]:
        return f"lacks the row of iteration {result['iterations']}"
    differing = [name for name in LAST if rows[-1].get(name) != result.get(name)]
    return f"contradicts result.json in its last row's {', '.join(differing)}" if differing else None
