"""Code shared by the figures: command line, choice of runs, curves, saving."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import matplotlib
import matplotlib.pyplot as plt
import pandas as pd
import seaborn as sns
import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter
from matplotlib.transforms import offset_copy
from matplotlib.typing import ColorType

from analysis.estimates import MINIMUM
from analysis.records import RECORDS, finished_runs, load_records, select_runs
from analysis.sample import choose_precision
from reproduce.cli import parse_args
from reproduce.config import PAPER_ITERATIONS, Config
from reproduce.errors import UserError

FIGURES = Path(__file__).parent / "figures"
FORMATS = (".svg", ".png", ".pdf")
PALETTE = sns.color_palette("colorblind")
DEPTH_COLOR = {20: PALETTE[1], 32: PALETTE[9], 44: PALETTE[2], 56: PALETTE[4], 110: PALETTE[0]}
ERROR_LIMIT = 20
"""Upper limit of the error axis of Fig. 6, in %."""
TRAIN = {"linestyle": "--", "linewidth": 1.0}
TEST = {"linestyle": "-", "linewidth": 2.0}
Draw = Callable[[pd.DataFrame, pd.DataFrame], Figure]
"""Takes the runs and the curves of `load_records`; raises UserError if there is no run to draw."""


@dataclass(frozen=True)
class FigureOptions:
    """What to draw, and where to save it."""

    records: Path = RECORDS
    """Folder that contains the run folders."""
    iterations: Annotated[int | None, tyro.conf.arg(metavar="N", help_behavior_hint="")] = None
    """Draw runs of this length (default: full-length runs, or else the most common length)."""
    output: Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="")] = None
    """File to write (.svg, .png or .pdf), or its name without suffix for .svg and .png (default: analysis/figures/NAME)."""


@dataclass(frozen=True)
class Selection:
    """Finished runs of one length and precision, by configuration."""

    runs: dict[Config, pd.DataFrame]
    iterations: int
    precision: str
    failures: str
    """Number of diverged and unfinished runs, or an empty string."""

    @property
    def is_full(self) -> bool:
        return self.iterations == PAPER_ITERATIONS

    def subtitle(self) -> str:
        """Return the line above the figure."""
        several = any(len(runs) >= MINIMUM for runs in self.runs.values())
        lines = f"mean ± one standard deviation (n < {MINIMUM}: single runs)" if several else "each line is one run"
        shortened = f"{self.iterations:,} of {PAPER_ITERATIONS:,} iterations, not comparable with the paper; "
        return f"{'' if self.is_full else shortened}{self.precision}; {lines}{self.failures}"


def make_figure(name: str, draw: Draw, description: str | None, arguments: Sequence[str]) -> int:
    """Parse the command line, draw the figure from the records and save it; return the exit status.

    Raises:
        UserError: wrong arguments, damaged records, or no run to draw.
    """
    options = parse_args(FigureOptions, arguments, f"plot_{name}.py", description)
    output = options.output or FIGURES / (name if options.iterations is None else f"{name}_{options.iterations}")
    if output.suffix not in ("", *FORMATS):
        raise UserError(f"--output must end in {', '.join(FORMATS)} or have no suffix, got {output}")
    matplotlib.use("Agg")
    sns.set_theme(style="whitegrid", context="paper", font_scale=1.1)
    plt.rcParams.update({"svg.hashsalt": "analysis", "grid.color": "0.9", "axes.titlesize": "medium"})
    runs, curves = load_records(options.records)
    if options.iterations is not None:
        runs = runs[runs["iterations"] == options.iterations]
    save_figure(draw(runs, curves), output)
    return 0


def save_figure(figure: Figure, output: Path):
    """Save the figure, as .svg and .png if `output` has no suffix, and print the paths."""
    paths = [output] if output.suffix in FORMATS else [output.with_name(output.name + suffix) for suffix in FORMATS[:2]]
    output.parent.mkdir(parents=True, exist_ok=True)
    for path in paths:
        figure.savefig(path, dpi=200, metadata={"Date": None} if path.suffix == ".svg" else None)
        print(path)
    plt.close(figure)


def select_for_figure(
    runs: pd.DataFrame, configs: Sequence[Config], experiment: str, required: Sequence[Config] | None = None
) -> Selection:
    """Select the full-length runs, or if there are none, the shortened runs of the most common length.

    required: take length and precision from the runs of these configurations (default: of all).

    Raises:
        UserError: no required configuration has a finished run.
    """
    recorded = [select_runs(runs, config, free=("iterations",)) for config in (configs if required is None else required)]
    done = finished_runs(pd.concat([runs[:0], *recorded]))
    if done.empty:
        raise no_runs_error(f"sweep.py {experiment}")
    is_full = (done["iterations"] == PAPER_ITERATIONS).any()
    iterations = PAPER_ITERATIONS if is_full else int(done["iterations"].mode().max())
    precisions = done.loc[done["iterations"] == iterations, "precision"]
    runs = runs[(runs["iterations"] == iterations) & runs["precision"].isin(precisions)]
    at_length = {config: replace(config, iterations=iterations) for config in configs}
    precision = choose_precision(runs, list(at_length.values()))
    same = runs[runs["precision"] == precision]
    found = {config: select_runs(same, at_length[config]) for config in configs}
    status = pd.concat(list(found.values()))["status"].value_counts()
    failures = "".join(f"; {status[name]} {name} not drawn" for name in ("diverged", "unfinished") if name in status)
    drawn = {config: finished_runs(group) for config, group in found.items()}
    return Selection({config: group for config, group in drawn.items() if len(group)}, iterations, precision, failures)


def no_runs_error(script: str) -> UserError:
    """Return the error for records without a run to draw."""
    return UserError(f"no finished run to draw: train some with python experiments/{script} or set --records to their folder")


def draw_panel(
    figure: Figure,
    axes: Axes,
    selection: Selection,
    curves: pd.DataFrame,
    styles: Mapping[Config, tuple[str, ColorType]],
    title: str,
    limit: float = ERROR_LIMIT,
):
    """Draw training and test error against the iterations, one color per configuration.

    styles: label and color of each configuration; those without runs are skipped.
    limit: upper end of the error axis for full-length runs; networks that end above it are only named, as in the paper.
    """
    handles, off_scale = [], []
    for config, (label, color) in styles.items():
        if config in selection.runs:
            runs = selection.runs[config]
            draw_curves(axes, runs, curves, color)
            handles.append(Line2D([], [], color=color, linewidth=2, label=f"{label} (n={len(runs)})"))
            if selection.is_full and runs["test_error"].mean() > limit:
                off_scale.append(label)
    axes.set(xlabel="iterations", title=title, xlim=(0, selection.iterations))
    drawn = curves[curves["folder"].isin(pd.concat(list(selection.runs.values()))["folder"])]
    axes.set_ylim(0, limit if selection.is_full else 1.05 * drawn[["train_error", "test_error"]].to_numpy().max())
    if selection.is_full and limit == ERROR_LIMIT:
        axes.set_yticks(range(0, ERROR_LIMIT + 1, 5))
    format_thousands(axes)
    if not handles:
        axes.text(0.5, 0.5, "no runs", transform=axes.transAxes, ha="center")
    if off_scale:
        text = f"{', '.join(off_scale)}: above {limit}%, not displayed"
        axes.text(0.98, 0.96, text, transform=axes.transAxes, ha="right", va="top", fontsize="small", backgroundcolor="white")
    below = offset_copy(axes.transAxes, figure, y=-30, units="points")  # clear of the axis label
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, 0), "bbox_transform": below, "ncols": 2}
    axes.legend(handles=handles, fontsize="small", frameon=False, handlelength=1.6, columnspacing=1.2, **place)


def draw_curves(axes: Axes, runs: pd.DataFrame, curves: pd.DataFrame, color: ColorType):
    """Draw every run if there are fewer than MINIMUM, or else the mean in a band of ± one standard deviation."""
    curves = curves[curves["folder"].isin(runs["folder"])]
    for column, style in (("train_error", TRAIN), ("test_error", TEST)):
        if len(runs) < MINIMUM:
            for _, curve in curves.groupby("folder"):
                axes.plot(curve["iteration"], curve[column], color=color, **style)
            continue
        points = curves.groupby("iteration")[column].agg(["mean", "std", "count"])
        points = points[points["count"] == len(runs)]  # iterations at which every run was evaluated
        axes.plot(points.index, points["mean"], color=color, **style)
        low, high = points["mean"] - points["std"], points["mean"] + points["std"]
        axes.fill_between(points.index, low, high, color=color, alpha=0.2, linewidth=0)


def format_thousands(axes: Axes):
    """Label the x axis 10k, 20k, ..."""
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / 1000:g}k" if value else "0"))


def add_legend(figure: Figure, *handles: Line2D):
    """Add a legend below the panels: the line styles of both errors, then `handles`."""
    errors = (("training error", TRAIN), ("test error", TEST))
    every = [*(Line2D([], [], color="0.4", label=label, **style) for label, style in errors), *handles]
    figure.legend(handles=every, loc="outside lower center", ncols=len(every), frameon=False, fontsize="small")
