"""The types of the files in a run folder. Imports no torch.

Decoding validates. Unknown fields are ignored, so that records of later versions can be read. Errors are in percent.
"""

import sys
from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

Percent = Annotated[float, Meta(ge=0, le=100)]
Fraction = Annotated[float, Meta(ge=0, le=1)]
Amount = Annotated[float, Meta(ge=0, le=sys.float_info.max)]
"""A finite number that is not negative."""
Count = Annotated[int, Meta(ge=0)]


class Row(Struct, kw_only=True, omit_defaults=True):
    """A line of metrics.jsonl: one evaluation. Training loss and error are averaged since the previous evaluation."""

    iteration: Annotated[int, Meta(ge=1)]
    learning_rate: Amount
    train_loss: Amount
    train_error: Percent
    test_error: Percent
    held_out_error: Percent | None = None
    seconds: Amount


class Finished(Struct, kw_only=True, omit_defaults=True, tag_field="status", tag="finished"):
    """result.json of a finished run. The errors and the loss are those of the last row of the metrics."""

    test_error: Percent
    mean_of_last_five_test_error: Percent
    best_test_error: Percent
    """Selected on the test set, so optimistically biased."""
    held_out_error: Percent | None = None
    train_error: Percent
    train_loss: Amount
    parameters: Count
    iterations: Count
    warmup_ended: Count | None
    seconds: Amount
    images_per_second: Amount
    peak_memory: Count | None
    """Bytes on the accelerator; None on a CPU."""


class Diverged(Struct, kw_only=True, tag_field="status", tag="diverged"):
    """result.json of a run whose loss or network became infinite or NaN."""

    iteration: Count


Result = Finished | Diverged


class Responses(Struct, kw_only=True, omit_defaults=True):
    """responses.json: measurements of each 3x3 layer of a 6n+2 network, in network order."""

    images: Count
    std: list[Amount]
    """Standard deviation of the layer's response over `images` test images (Fig. 7)."""
    small_scales: dict[str, list[Fraction]] | None = None
    """For each threshold, the fraction of the following BN layer's absolute scales below it; None in older records."""


class Commit(Struct):
    """The commit of the code, and whether reproduce/ differs from it."""

    commit: str
    dirty: bool


class Dataset(Struct, kw_only=True, omit_defaults=True):
    """The training and test images of a session; classes and counts only for an image folder."""

    name: str
    sha256: str
    classes: list[str] | None = None
    images: Count | None = None
    test_images: Count | None = None


class Session(Struct, kw_only=True, omit_defaults=True):
    """One process that trained the run; environment.json lists them."""

    command: str
    began: str | None = None
    git: Commit | None
    device: str
    device_name: str
    threads: Count
    platform: str
    versions: dict[str, str | int | None]
    flags: dict[str, Any]
    data: Dataset
    beside: Count | None = None
    """Runs that were training concurrently in the same process when this one started."""
    eval_every: Annotated[int, Meta(ge=1)] | None = None
    """Iterations between evaluations; None in older records."""


Sessions = Annotated[list[Session], Meta(min_length=1)]


def decode_json(content: bytes, schema: Any) -> Any:
    """Decode JSON into `schema`.

    Raises:
        ValueError: the content is not JSON or does not match `schema`; the message names the field.
    """
    try:
        return msgspec.json.decode(content, type=schema)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(str(error)) from None
