"""Check a run's test error against the recorded runs, the paper and other reproductions.

    python analysis/compare.py runs/residual20-dece074e/seed0
    python analysis/compare.py runs/*/seed* --output mine.png

For each run, print how its recipe differs from the paper's, and whether its test error is within the 95% prediction interval
for one more run. The interval comes from the recorded seeds if there are three, or else from published standard deviations. An
unfinished run is compared at its last evaluation. Further runs are also compared with the first one.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # import this checkout, not an installed version
import math
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Annotated

import matplotlib.pyplot as plt
import pandas as pd
import tyro

from analysis.drawing import FORMATS, LINE_STYLES, save_figure
from analysis.estimates import MINIMUM, Estimate, compare_predictions, estimate, prediction
from analysis.markdown import format_label, format_number
from analysis.paper import HE, kind_of, published, published_std
from analysis.records import PRECISIONS, RECORDS, comparable_runs, finished_runs, load_records, select_runs, to_configs
from reproduce.cli import parse_args, run_cli
from reproduce.config import Config, format_recipe, require
from reproduce.errors import UserError
from reproduce.record import is_run_folder

NO_RUN = estimate([])


@dataclass(frozen=True)
class CompareOptions:
    """What to compare."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN ...", help_behavior_hint="")]
    """Run folders (NET-KEY/seedN)."""
    records: Path = RECORDS
    """Folder that contains the recorded run folders."""
    output: Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="")] = None
    """Also draw the curves, with those of the recorded runs, to this file (.svg, .png or .pdf)."""

    def __post_init__(self):
        require(len(self.runs) > 0, "name at least one run folder", "none")
        require(self.output is None or self.output.suffix in FORMATS, f"--output must end in {', '.join(FORMATS)}", self.output)


@dataclass(frozen=True)
class ComparedRun:
    """A run, and the recorded runs of its configuration: the rows and curves of `load_records`."""

    config: Config
    row: pd.Series
    curve: pd.DataFrame
    is_record: bool
    is_published: bool
    """Whether published results are for the dataset, split and length of this run."""
    recorded: pd.DataFrame
    """In one precision, that of the run if possible, without the run itself."""
    recorded_curves: pd.DataFrame

    @property
    def state(self) -> str:
        return f"{self.row['status']} at iteration {self.row['iteration']:,} of {self.config.iterations:,}"


def load_run(folder: Path, records: Path, recorded: pd.DataFrame, curves: pd.DataFrame) -> ComparedRun:
    """Read a run, and find the recorded runs to compare it with.

    Raises:
        UserError: it is not a run folder, or it is damaged.
    """
    if not is_run_folder(folder):
        raise UserError(f"{folder} is not a run folder (NET-KEY/seedN)")
    runs, curve = load_records(folder.parents[1], [folder])
    run, (config,) = runs.iloc[0], to_configs(runs)
    is_record = folder == (records / config.folder).resolve()
    others = select_runs(recorded[recorded["folder"] != run["folder"]] if is_record else recorded, config)
    if run["status"] == "finished":
        others = finished_runs(others)
    available = [precision for precision in (config.precision, *PRECISIONS) if (others["precision"] == precision).any()]
    others = others[others["precision"].isin(available[:1])]
    is_published = config.dataset == ("mnist" if config.family == "lenet" else "cifar10") and len(comparable_runs(runs)) > 0
    return ComparedRun(config, run, curve, is_record, is_published, others, curves[curves["folder"].isin(others["folder"])])


def describe_run(run: ComparedRun) -> str:
    """Return the report on one run."""
    lines = [
        f"{run.row['folder']}{' (one of the records, compared with the others)' if run.is_record else ''}",
        f"{format_label(run.config)}, {run.config.precision}: {run.state}",
        f"recipe: {format_recipe(run.config)}",
    ]
    if run.row["status"] == "finished":
        lines += compare_finished(run)
    elif run.row["status"] == "unfinished":
        lines += compare_unfinished(run)
    else:
        lines.append("the run diverged: there is no test error to compare")
    return "\n  ".join(lines)


def compare_finished(run: ComparedRun) -> list[str]:
    """Compare the final test error with recorded and published ones."""
    error, best = run.row["test_error"], run.row["best_test_error"]
    errors, config = run.recorded["test_error"].astype(float).tolist(), run.config
    lines = []
    if errors:
        precision = run.recorded["precision"].iloc[0]
        other = "" if precision == config.precision else f" in {precision}"
        lines.append(f"recorded{other}: {estimate(errors)}; seeds {', '.join(f'{value:.2f}' for value in errors)}")
    if run.is_published:
        depth = {"depth": config.depth} if config.family == "6n+2" else {}
        variant = "" if config.block == "original" else config.block
        numbers = published(kind=kind_of(config), **depth, quantity="test error", variant=variant)
        shown = "; ".join(f"{row['source']} {format_number(row)}" for _, row in numbers.iterrows())
        lines += [f"published for this network: {shown}"] if shown else []
    std = published_std(config) if run.is_published else math.inf
    return [
        *lines,
        f"test error {judge_error(error, errors, find_paper_error(run), std)}",
        f"best evaluation {best:.2f}% ({error - best:.2f} points lower): selected on the test set, so optimistically biased",
    ]


def find_paper_error(run: ComparedRun) -> Estimate:
    """Return the paper's exact test error of this network (n=0 unless it reports one and the run follows its recipe)."""
    config = run.config
    recipe = Config(depth=config.depth, residual=config.residual, seed=config.seed, precision=config.precision)
    if config != recipe or not run.is_published:
        return NO_RUN
    numbers = published(source=HE, kind=kind_of(config), depth=config.depth, quantity="test error", read_off_plot="no")
    exact = numbers[numbers["upto"].isna()]
    return Estimate(int(exact["n"].item()), exact["value"].item(), math.nan) if len(exact) else NO_RUN


def compare_unfinished(run: ComparedRun) -> list[str]:
    """Compare the last evaluation with the recorded runs at the same iteration."""
    if run.curve.empty:
        return ["it has no evaluation yet"]
    last = run.curve.iloc[-1]
    there = run.recorded_curves[run.recorded_curves["iteration"] == last["iteration"]]
    if there.empty and len(run.recorded_curves):
        return [f"its last evaluation is at iteration {last['iteration']:,.0f}, where no recorded run was evaluated"]
    columns = {"train_error": "training error", "test_error": "test error"}
    return [f"{name} {judge_error(last[column], there[column].tolist())}" for column, name in columns.items()]


def judge_error(error: float, recorded: Sequence[float], paper: Estimate = NO_RUN, std: float = math.inf) -> str:
    """Return whether an error is within the 95% prediction interval, or its distance if no standard deviation is known.

    recorded: errors of the recorded runs. paper: the paper's number, used without recorded runs; its std is not used.
    std: published standard deviation of a run, used for fewer errors than MINIMUM; infinite if there is none.
    """
    mean, source = (estimate(recorded), "the recorded mean") if recorded else (paper, "the paper's number")
    if mean.n == 0:
        return f"{error:.2f}%: no other run is recorded"
    origin = f"{mean.n} recorded runs"
    if len(recorded) < MINIMUM:
        mean, origin = Estimate(mean.n, mean.mean, std, published=True), f"{source} and the published std of {std:.2f}"
    if math.isinf(mean.std):
        return f"{error:.2f}%: {error - mean.mean:+.2f} points from {source}; no standard deviation is known"
    expected = prediction(mean)
    position = "above" if error > expected.high else "below" if error < expected.low else "within"
    return f"{error:.2f}% is {position} the 95% prediction interval from {origin}, {expected.low:.2f} to {expected.high:.2f}%"


def compare_pair(first: ComparedRun, second: ComparedRun) -> str:
    """Return the differences between two runs in configuration, test error and misclassified images."""
    ours, theirs = asdict(first.config), asdict(second.config)
    changed = [name for name in ours if ours[name] != theirs[name]]
    listed = [f"{name} {theirs[name]} (first run: {ours[name]})" for name in changed]
    lines = [f"{second.row['folder']} compared with {first.row['folder']}", f"config: {', '.join(listed) or 'equal'}"]
    if first.row["status"] == second.row["status"] == "finished":
        lines.append(f"test error: {second.row['test_error'] - first.row['test_error']:+.2f} points")
    texts = [run.row["predictions"] for run in (first, second)]
    if not {"dataset", "pictures"} & set(changed) and all(isinstance(text, str) for text in texts):
        only_first, only_second, p = compare_predictions(*texts)
        lines.append(
            f"{only_second} test images are misclassified by this run only, {only_first} by the first run only "
            f"(McNemar's test of these two networks: p = {p:.2g})"
        )
    return "\n  ".join(lines)


def draw_runs(own: Sequence[ComparedRun], output: Path):
    """Draw a panel for each run, over the recorded runs of its configuration and the paper's test error."""
    plt.switch_backend("agg")  # a notebook's MPLBACKEND may name one that is not installed
    figure, panels = plt.subplots(1, len(own), figsize=(1 + 4.5 * len(own), 3.8), squeeze=False, layout="constrained")
    for run, axes in zip(own, panels[0], strict=True):
        for column, style in LINE_STYLES.items():
            for _, curve in run.recorded_curves.groupby("folder"):
                axes.plot(curve["iteration"], curve[column], color="0.6", **style)
            axes.plot(run.curve["iteration"], run.curve[column], color="C3", marker="o", markersize=2, **style)
        if (paper := find_paper_error(run)).n:
            axes.axhline(paper.mean, color="C0", linewidth=1)
        seeds = ", ".join(map(str, run.recorded["seed"])) or "none"
        name = f"{format_label(run.config)}, seed {run.config.seed}{' (a record)' if run.is_record else ''}"
        title = f"{name}, {run.state}; {'other ' if run.is_record else ''}recorded seeds: {seeds}"
        axes.set_title(textwrap.fill(title, 60), fontsize="small")
        axes.set(xlabel="iterations", xlim=(0, 1.02 * run.config.iterations), ylim=(0, 100 if run.curve.empty else None))
    panels[0][0].set_ylabel("error (%)")
    text = "red: this run, grey: recorded runs, blue: the paper's test error; dashed: training error, solid: test error"
    figure.suptitle(textwrap.fill(text, 60 * len(own)), fontsize="small")
    save_figure(figure, [output])


def main(arguments: Sequence[str]) -> int:
    options = parse_args(CompareOptions, arguments, "compare.py", __doc__)
    runs, curves = load_records(options.records)
    own = [load_run(folder.resolve(), options.records, runs, curves) for folder in options.runs]
    reports = [describe_run(run) for run in own] + [compare_pair(own[0], run) for run in own[1:]]
    print("\n\n".join(reports))
    if options.output is not None:
        draw_runs(own, options.output)
    return 0


if __name__ == "__main__":
    sys.exit(run_cli(main, sys.argv[1:]))
