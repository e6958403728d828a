"""Code shared by the figures: command line, selection of runs, curves, saving."""

import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

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
from analysis.markdown import group_labels
from analysis.records import RECORDS, finished_runs, load_records, select_finished, select_runs
from analysis.sample import choose_precision
from reproduce.cli import parse_args
from reproduce.config import PAPER_ITERATIONS, Config, require
from reproduce.errors import UserError

FIGURES = Path(__file__).parent / "figures"
FORMATS = (".svg", ".png", ".pdf")
PALETTE = sns.color_palette("colorblind")
DEPTH_COLOR = {20: PALETTE[1], 32: PALETTE[9], 44: PALETTE[2], 56: PALETTE[4], 110: PALETTE[0]}
OTHER_COLORS = [PALETTE[i] for i in (3, 5, 6, 8, 7)]
"""Colors of depths that the paper does not have."""
ERROR_LIMIT = 20
"""Upper limit of the error axis of Fig. 6, in %."""
LINE_STYLES = {
    "train_error": {"linestyle": "--", "linewidth": 1.0},
    "test_error": {"linestyle": "-", "linewidth": 2.0},
}
Draw = Callable[[pd.DataFrame, pd.DataFrame], Figure]
"""Takes the runs and the curves of `load_records`; raises UserError if there is no run to draw."""


@dataclass(frozen=True)
class FigureOptions:
    """What to draw, and where to save it."""

    records: Path = RECORDS
    """Folder that contains the run folders."""
    output: Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="")] = None
    """File to write: .svg, .png or .pdf (default: analysis/figures/NAME.svg and NAME.png)."""

    def __post_init__(self):
        require(self.output is None or self.output.suffix in FORMATS, f"--output must end in {', '.join(FORMATS)}", self.output)


def make_figure(name: str, draw: Draw, description: str | None, arguments: Sequence[str]) -> int:
    """Parse the command line, draw the figure from the records and save it; return the exit status.

    Raises:
        UserError: wrong arguments, damaged records, or no run to draw.
    """
    options = parse_args(FigureOptions, arguments, f"plot_{name}.py", description)
    plt.switch_backend("agg")  # a notebook's MPLBACKEND may name one that is not installed
    sns.set_theme(style="whitegrid", context="paper", font_scale=1.1)
    plt.rcParams.update({"svg.hashsalt": "analysis", "grid.color": "0.9", "axes.titlesize": "medium"})
    figure = draw(*load_records(options.records))
    save_figure(figure, [options.output] if options.output else [FIGURES / f"{name}{suffix}" for suffix in (".svg", ".png")])
    return 0


def save_figure(figure: Figure, paths: Sequence[Path]):
    """Save the figure and print the paths."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=200, metadata={"Date": None} if path.suffix == ".svg" else None)
        print(path)
    plt.close(figure)


@dataclass(frozen=True)
class Selection:
    """Finished runs of one length and precision, by configuration."""

    runs: dict[Config, pd.DataFrame]
    iterations: int
    precision: str
    omitted: str
    """The configurations without a run, and the number of diverged and unfinished runs."""

    @property
    def is_full(self) -> bool:
        return self.iterations == PAPER_ITERATIONS

    @property
    def scope(self) -> str:
        """The precision and, of shortened runs, the length."""
        shortened = f"{self.iterations:,} of {PAPER_ITERATIONS:,} iterations, not comparable with the paper; "
        return f"{'' if self.is_full else shortened}{self.precision}"

    def subtitle(self) -> str:
        """Return the text above the figure."""
        several = any(len(runs) >= MINIMUM for runs in self.runs.values())
        lines = f"mean ± one standard deviation (n < {MINIMUM}: single runs)" if several else "each line is one run"
        return textwrap.fill(f"{self.scope}; {lines}{self.omitted}", 110)


def select_for_figure(runs: pd.DataFrame, configs: Sequence[Config], experiment: str) -> Selection:
    """Select the full-length runs, or if there are none, the shortened runs of the most common length.

    Raises:
        UserError: no configuration has a finished run.
    """
    every = pd.concat([runs[:0], *(select_runs(runs, config, free=("iterations",)) for config in configs)])
    lengths = finished_runs(every)["iterations"]
    if lengths.empty:
        raise no_runs_error(f"sweep.py {experiment}")
    iterations = PAPER_ITERATIONS if (lengths == PAPER_ITERATIONS).any() else int(lengths.mode().max())
    at_length = {config: replace(config, iterations=iterations) for config in configs}
    precision = choose_precision(every, list(at_length.values()))
    every = every[(every["iterations"] == iterations) & (every["precision"] == precision)]
    drawn = {config: select_finished(every, at_length[config]) for config in configs}
    missing = [config for config in configs if select_runs(every, at_length[config]).empty]
    omitted = f"; not run: {group_labels(missing)}" if missing else ""
    counts = every["status"].value_counts()
    omitted += "".join(f"; {counts[name]} {name} not drawn" for name in ("diverged", "unfinished") if name in counts)
    return Selection({config: group for config, group in drawn.items() if len(group)}, iterations, precision, omitted)


def no_runs_error(script: str) -> UserError:
    """Return the error for records without a run to draw."""
    return UserError(f"no finished run to draw: train some with python experiments/{script} or set --records to their folder")


def label_depths(configs: Sequence[Config]) -> dict[Config, tuple[str, ColorType]]:
    """Return a label and a color for each configuration, by its depth."""
    others = sorted({config.depth for config in configs} - set(DEPTH_COLOR))
    colors = DEPTH_COLOR | {depth: OTHER_COLORS[i % len(OTHER_COLORS)] for i, depth in enumerate(others)}
    return {config: (f"{config.depth} layers", colors[config.depth]) for config in configs}


def draw_panel(
    axes: Axes,
    selection: Selection,
    curves: pd.DataFrame,
    styles: Mapping[Config, tuple[str, ColorType]],
    title: str,
    limit: float = ERROR_LIMIT,
):
    """Draw training and test error against the iterations, one color per configuration.

    styles: label and color of each configuration; those without runs are skipped.
    limit: upper end of the error axis for full-length runs; networks whose final test error is above it are listed.
    """
    handles, off_scale = [], []
    for config, (label, color) in styles.items():
        if config in selection.runs:
            runs = selection.runs[config]
            for column, style in LINE_STYLES.items():
                shown = curves[curves["folder"].isin(runs["folder"])]
                draw_lines(axes, shown.pivot(index="folder", columns="iteration", values=column), color=color, **style)
            handles.append(Line2D([], [], color=color, linewidth=2, label=f"{label} (n={len(runs)})"))
            if selection.is_full and runs["test_error"].mean() > limit:
                off_scale.append(label)
    axes.set(xlabel="iterations", title=title, xlim=(0, selection.iterations))
    drawn = curves[curves["folder"].isin(pd.concat(list(selection.runs.values()))["folder"])]
    axes.set_ylim(0, limit if selection.is_full else 1.05 * drawn[list(LINE_STYLES)].to_numpy().max())
    if selection.is_full and limit == ERROR_LIMIT:
        axes.set_yticks(range(0, ERROR_LIMIT + 1, 5))
    format_thousands(axes)
    if off_scale:
        text = f"{', '.join(off_scale)}: test error above {limit}%"
        axes.text(0.98, 0.96, text, transform=axes.transAxes, ha="right", va="top", fontsize="small", backgroundcolor="white")
    below = offset_copy(axes.transAxes, axes.get_figure(root=True), y=-30, units="points")  # clear of the axis label
    position = {"loc": "upper center", "bbox_to_anchor": (0.5, 0), "bbox_transform": below, "ncols": 2}
    axes.legend(handles=handles, fontsize="small", frameon=False, handlelength=1.6, columnspacing=1.2, **position)


def draw_lines(axes: Axes, values: pd.DataFrame, **style: Any):
    """Draw the rows of `values`, one per run, or for MINIMUM or more runs their mean in a band of ± one standard deviation."""
    if len(values) < MINIMUM:
        for _, row in values.iterrows():
            axes.plot(row.dropna(), **style)
        return
    values = values.dropna(axis="columns")  # keep the points that every run has
    mean, std = values.mean(), values.std()
    axes.plot(mean, **style)
    axes.fill_between(values.columns, mean - std, mean + std, color=style["color"], alpha=0.2, linewidth=0)


def format_thousands(axes: Axes):
    """Label the x axis 10k, 20k, ..."""
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / 1000:g}k" if value else "0"))


def add_header_and_legend(figure: Figure, selection: Selection, *handles: Line2D):
    """Add the subtitle and, below the panels, a legend: the line styles of both errors, then `handles`."""
    figure.suptitle(selection.subtitle(), fontsize="small")
    names = {"train_error": "training error", "test_error": "test error"}
    errors = [Line2D([], [], color="0.4", label=names[column], **style) for column, style in LINE_STYLES.items()]
    every = [*errors, *handles]
    figure.legend(handles=every, loc="outside lower center", ncols=len(every), frameon=False, fontsize="small")
