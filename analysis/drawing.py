"""What the figures share: which runs to draw, how a cell's curves look, where the picture goes."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.typing import ColorType

from analysis.cli import FORMATS, Parser
from analysis.paper import HE, load_paper, published
from analysis.records import comparable_runs, finished_runs, load_records, select_runs
from analysis.sample import choose_precision
from reproduce.config import PAPER_ITERATIONS, Config
from reproduce.errors import UserError

FIGURES = Path(__file__).parent / "figures"
PALETTE = sns.color_palette("colorblind")
DEPTH_COLOUR = {20: PALETTE[1], 32: PALETTE[9], 44: PALETTE[2], 56: PALETTE[4], 110: PALETTE[0]}
ERROR_LIMIT = 20
"""Upper end of the error axis of Fig. 6, in percent."""


def parse(arguments: Sequence[str], description: str | None, stem: str) -> argparse.Namespace:
    """The flags of a figure's command line; chooses the window or a picture in memory.

    Raises:
        UserError: a flag or value is wrong.
    """
    parser = Parser(description)
    parser.add_argument("--output", type=Path, default=FIGURES / stem, help="picture, or its name without .svg and .png")
    parser.add_argument("--data-set", choices=("cifar10", "synthetic"), default="cifar10", help="whose runs to draw")
    parser.add_argument("--iterations", type=int, metavar="N", help="draw runs of this length; by default full ones, if any")
    parser.add_argument("--show", action="store_true", help="open a window as well")
    options = parser.parse_args(list(arguments))
    suffix = options.output.suffix
    if suffix[1:].isalpha() and suffix not in FORMATS:  # unlike that of figure.v2
        raise UserError(f"--output is a picture in {', '.join(FORMATS)}, or its name without these, not in {suffix}")
    if not options.show:
        matplotlib.use("Agg")
    sns.set_theme(style="whitegrid", context="paper", font_scale=1.1)
    plt.rcParams.update({"svg.hashsalt": "analysis", "grid.color": "0.9", "axes.titlesize": "medium"})
    return options


def load_runs(options: argparse.Namespace) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The runs below --records, of --iterations where it is given, and all curves (see records.load).

    Raises:
        UserError: no run has that length, or a record is damaged.
    """
    runs, curves = load_records(options.records)
    if options.iterations is None:
        return runs, curves
    of_length = runs[runs["iterations"] == options.iterations]
    if of_length.empty:
        lengths = ", ".join(map(str, sorted(set(runs["iterations"])))) or "none"
        raise UserError(f"no run below {options.records} has {options.iterations} iterations; there are: {lengths}")
    return of_length, curves


@dataclass(frozen=True)
class Choice:
    """The finished runs to draw, a frame per config asked for that has any; one length, one precision, one data set."""

    cells: dict[Config, pd.DataFrame]
    iterations: int
    precision: str
    remark: str
    """For the title: what was averaged and what is wrong with it."""

    is_full: bool
    """Whether they are comparable with the paper."""

    @property
    def unit(self) -> float:
        """Iterations to one of the axis: the paper's 1e4 where that makes sense."""
        return 1e4 if self.is_full else 1


def choose(runs: pd.DataFrame, configs: Sequence[Config], dataset_info: str, experiment: str) -> Choice:
    """Full runs where there are any, else shortened ones of the most common length, and then the remark says so.

    Raises:
        UserError: there is none; the sentence names the command that makes them.
    """
    asked = pd.concat([select_runs(runs, config, free=("iterations", "dataset")) for config in configs])
    asked = asked[asked["dataset"] == dataset_info]
    done = finished_runs(asked)
    if done.empty:
        raise UserError(
            f"there is no finished run on {dataset_info} to draw: make them with python experiments/sweep.py {experiment}, "
            "or name their folder with --records"
        )
    full = comparable_runs(done)
    length = PAPER_ITERATIONS if len(full) else int(done["iterations"].mode().max())
    wanted = {config: replace(config, iterations=length, dataset=dataset_info) for config in configs}
    precision = choose_precision(runs, list(wanted.values()))
    same = runs[runs["precision"] == precision]
    every = {config: select_runs(same, there) for config, there in wanted.items()}
    cells = {config: finished_runs(cell) for config, cell in every.items() if len(finished_runs(cell))}
    counts = [len(cell) for cell in cells.values()]
    fewest, most = min(counts), max(counts)
    seeds = f"mean over {most if fewest == most else f'{fewest} to {most}'} seeds, band ± one standard deviation"
    remark = [seeds if most > 1 else "1 seed", precision]
    if dataset_info != "cifar10":
        remark.insert(0, f"{dataset_info} data, not comparable")
    elif not len(full):
        remark.insert(0, f"shortened: {length} of {PAPER_ITERATIONS} iterations, not comparable")
    for status in ("diverged", "unfinished"):
        count = sum(int((cell["status"] == status).sum()) for cell in every.values())
        remark += [f"{count} {status} not drawn"] * bool(count)
    return Choice(cells, length, precision, "; ".join(remark), bool(len(full)))


def choose_beside(
    runs: pd.DataFrame, baseline: Sequence[Config], others: Sequence[Config], dataset_info: str, experiment: str
) -> Choice:
    """As `choose`, of both, of a length and in a precision of which there are others: more is drawn than the baseline.

    Raises:
        UserError: there are no others.
    """
    length = choose(runs, others, dataset_info, experiment).iterations
    wanted = [replace(config, iterations=length, dataset=dataset_info) for config in others]
    precisions = pd.concat([finished_runs(select_runs(runs, config)) for config in wanted])["precision"]
    alike = runs[(runs["iterations"] == length) & runs["precision"].isin(precisions)]
    return choose(alike, [*baseline, *others], dataset_info, experiment)


def draw_curves(axes: Axes, runs: pd.DataFrame, curves: pd.DataFrame, colour: ColorType, unit: float) -> float:
    """Draws a cell's training error (dashed) and test error (bold): every seed thin, means over them in a band of one std.

    Returns: the lowest mean test error, in percent.
    """
    rows = curves[curves["folder"].isin(runs["folder"])]
    lowest = float("nan")
    for column, style, width in (("train_error", "--", 1.0), ("test_error", "-", 2.0)):
        points = rows.groupby("iteration")[column].agg(["mean", "std", "count"])
        points = points[points["count"] == len(runs)]  # where every seed was evaluated
        x, mean, std = points.index / unit, points["mean"], points["std"].fillna(0)
        few = {"marker": "o", "markersize": 4, "fillstyle": "none" if style == "--" else "full"}
        axes.plot(x, mean, style, color=colour, linewidth=width, **(few if len(points) < 10 else {}))
        if len(runs) > 1:
            for _, run in rows.groupby("folder"):
                axes.plot(run["iteration"] / unit, run[column], style, color=colour, linewidth=0.4, alpha=0.6)
        axes.fill_between(x, mean - std, mean + std, color=colour, alpha=0.2, linewidth=0)
        lowest = float(mean.min())
    return lowest


def draw_nets(
    axes: Axes,
    choice: Choice,
    curves: pd.DataFrame,
    configs: Sequence[Config],
    title: str,
    colours: Mapping[Config, ColorType] | None = None,
    may_hide: bool = True,
):
    """One panel with the curves of those of `configs` that have runs; by default a colour per depth.

    The axes are those of Fig. 6 for full-length runs, and fit the data for others. A net that never comes below the
    upper end is named in the panel, as in the paper's caption, or, unless it `may_hide`, the axis is made longer.
    """
    unit = " (1e4)" if choice.is_full else ""
    axes.set(xlabel=f"iterations{unit}", title=title, xlim=(0, choice.iterations / choice.unit))
    lowest = {}
    for config in configs:
        if config in choice.cells:
            colour = colours[config] if colours else DEPTH_COLOUR[config.depth]
            lowest[config] = draw_curves(axes, choice.cells[config], curves, colour, choice.unit)
    hidden = [name_net(config) for config, error in lowest.items() if error > ERROR_LIMIT]
    if not lowest:
        axes.text(0.5, 0.5, "no runs", transform=axes.transAxes, ha="center", va="center")
    if not choice.is_full:
        drawn = curves[curves["folder"].isin(pd.concat(list(choice.cells.values()))["folder"])]
        axes.set(ylim=(0, 1.05 * float(drawn[["train_error", "test_error"]].to_numpy().max())))
        axes.set_xlim(right=1.03 * choice.iterations)  # the last of few points is not to be cut
        return
    if hidden and not may_hide:
        axes.set_ylim(0, 1.3 * max(lowest.values()))
        return
    axes.set(ylim=(0, ERROR_LIMIT), yticks=range(0, ERROR_LIMIT + 1, 5))
    if hidden:
        text = f"{', '.join(hidden)}: above {ERROR_LIMIT}%, not displayed"
        box = {"facecolor": "white", "edgecolor": "none", "pad": 2, "alpha": 0.9}
        axes.text(0.98, 0.96, text, transform=axes.transAxes, ha="right", va="top", fontsize="small", bbox=box)


def mark_published(axes: Axes, config: Config):
    """The paper's final test error of a net, at the right edge: a number a triangle, a range read off its plot a bar."""
    numbers = published(load_paper(), source=HE, kind="residual" if config.residual else "plain", quantity="test error")
    for _, row in numbers[numbers["depth"] == config.depth].iterrows():
        top = row["value"] if np.isnan(row["upto"]) else row["upto"]
        if top <= ERROR_LIMIT:
            look = {"color": DEPTH_COLOUR[config.depth], "clip_on": False, "transform": axes.get_yaxis_transform()}
            axes.plot([1.015] * 2, [row["value"], top], linewidth=2, solid_capstyle="butt", **look)
            axes.plot([1.015], [(row["value"] + top) / 2], marker="<", markersize=4, **look)


def name_net(config: Config) -> str:
    """As in the paper's figures: plain-20, ResNet-20."""
    return f"{'ResNet' if config.residual else 'plain'}-{config.depth}"


def add_legend(figure: Figure, colours: Mapping[str, ColorType], columns: int = 7):
    """One legend below the panels: the colours, and what dashed and bold mean."""
    handles = [Line2D([], [], color=colour, linewidth=2, label=name) for name, colour in colours.items()]
    handles += [Line2D([], [], color="0.4", linestyle="--", linewidth=1, label="training error")]
    handles += [Line2D([], [], color="0.4", linewidth=2, label="test error")]
    spacing = {"columnspacing": 1.2, "handlelength": 1.6, "handletextpad": 0.5}
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, **spacing)


def save(figure: Figure, options: argparse.Namespace):
    """Writes the picture, as svg and png unless the name has a suffix, and prints where. Same runs, same svg."""
    output: Path = options.output
    paths = [output] if output.suffix in FORMATS else [output.with_name(output.name + suffix) for suffix in FORMATS[:2]]
    output.parent.mkdir(parents=True, exist_ok=True)
    for path in paths:
        figure.savefig(path, dpi=200, metadata={"Date": None} if path.suffix == ".svg" else None)
        print(path)
    if options.show:
        plt.show()
    plt.close(figure)
