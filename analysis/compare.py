"""Check a run's test error against the recorded runs, the paper and other reproductions.

    python analysis/compare.py runs/residual20-dece074e/seed0
    python analysis/compare.py runs/*/seed* --output mine.png

For each run, print how its recipe differs from the paper's and its environment from that of the records, and whether its test
error is within the 95% prediction interval for one more run. The interval comes from the recorded seeds if there are three,
or else from published standard deviations. An unfinished run is compared at the last iteration it has reached.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # run this checkout, whatever is installed
import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import matplotlib
import pandas as pd
import tyro

from analysis.estimates import MINIMUM, Estimate, estimate, prediction
from analysis.markdown import format_label, format_number
from analysis.paper import HE, kind_of, load_paper, published, published_std
from analysis.records import PRECISIONS, RECORDS, comparable_runs, finished_runs, load_records, select_runs, to_configs
from reproduce.cli import parse_args, run_cli
from reproduce.config import Config, format_recipe, require
from reproduce.errors import UserError
from reproduce.record import list_run_folders

FORMATS = (".svg", ".png", ".pdf")


@dataclass(frozen=True)
class CompareOptions:
    """What to compare."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN ...", help_behavior_hint="")]
    """Run folders (NET-KEY/seedN)."""
    records: Path = RECORDS
    """Folder that contains the recorded run folders."""
    output: Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="")] = None
    """Also draw the curves over the recorded ones, to this file (.svg, .png or .pdf)."""

    def __post_init__(self):
        require(len(self.runs) > 0, "name at least one run folder", "none")
        if self.output is not None:
            require(self.output.suffix in FORMATS, f"--output must end in {', '.join(FORMATS)}", self.output)


def load_run(folder: Path) -> tuple[pd.Series, pd.DataFrame]:
    """Return the row and the curve of one run, as in `load_records`.

    Raises:
        UserError: it is not a run folder, or it is damaged.
    """
    if not (folder / "config.json").is_file():
        below = len(list_run_folders(folder)) if folder.is_dir() else 0
        hint = f"; it contains {below}: name those" if below else ""
        raise UserError(f"{folder} is not a run folder (NET-KEY/seedN){hint}")
    runs, curves = load_records(folder.parents[1], [folder])
    return runs.iloc[0], curves


def find_recorded(run: pd.Series, runs: pd.DataFrame, config: Config) -> pd.DataFrame:
    """Return the other recorded runs of a configuration in one precision, that of `run` if possible."""
    others = select_runs(runs[~is_same_run(run, runs)], config)
    if run["status"] == "finished":
        others = finished_runs(others)
    for precision in (run["precision"], *PRECISIONS):
        if (others["precision"] == precision).any():
            return others[others["precision"] == precision]
    return others


def is_same_run(run: pd.Series, runs: pd.DataFrame) -> pd.Series:
    return (runs["folder"] == run["folder"]) & (runs["seconds"] == run["seconds"])


def compare_run(run: pd.Series, curve: pd.DataFrame, runs: pd.DataFrame, curves: pd.DataFrame) -> str:
    """Return the report on one run."""
    config = to_configs(pd.DataFrame([run]))[0]
    recorded = find_recorded(run, runs, config)
    note = " (one of the records, compared with the others)" if is_same_run(run, runs).any() else ""
    reached = f"{run['status']} at iteration {run['iteration']:,} of {config.iterations:,}"
    lines = [
        f"{run['folder']}{note}",
        f"{format_label(config)}, {config.precision}: {reached}",
        f"recipe: {format_recipe(config)}",
        f"environment: {compare_environments(run['sessions'], (recorded if len(recorded) else runs)['sessions'])}",
    ]
    if run["status"] == "finished":
        lines += compare_finished(run, config, recorded)
    elif run["status"] == "unfinished":
        lines += compare_unfinished(curve, recorded, curves)
    else:
        lines.append("the run diverged: there is no test error to compare")
    return "\n  ".join(lines)


def compare_environments(sessions: list[dict[str, Any]], recorded: pd.Series) -> str:
    """Return how the last session of a run differs from the last sessions of the recorded runs."""
    if not sessions or recorded.empty:
        return "unknown"
    theirs = [summarize_session(each[-1]) for each in recorded if each]
    differences = []
    for name, value in summarize_session(sessions[-1]).items():
        values = sorted({str(session.get(name)) for session in theirs})
        if value not in values:
            differences.append(f"{name} {value} (recorded: {', '.join(values)})")
    return f"differs in {'; '.join(differences)}" if differences else "as recorded"


def summarize_session(session: dict[str, Any]) -> dict[str, str]:
    """Return device, versions and data hash."""
    versions = {name: str(version) for name, version in session["versions"].items() if version is not None}
    return {"device": session["device_name"], **versions, "data": session["data"]["sha256"][:8]}


def compare_finished(run: pd.Series, config: Config, recorded: pd.DataFrame) -> list[str]:
    """Compare the final test error with recorded and published ones."""
    error, best, errors = float(run["test_error"]), float(run["best_test_error"]), list(recorded["test_error"].astype(float))
    is_comparable = len(comparable_runs(pd.DataFrame([run]))) > 0
    lines = []
    if errors:
        precision = recorded["precision"].iloc[0]
        other = "" if precision == run["precision"] else f" in {precision}"
        lines.append(f"recorded{other}: {estimate(errors)}; seeds {', '.join(f'{value:.2f}' for value in errors)}")
    if is_comparable:
        numbers = published(load_paper(), kind=kind_of(config), depth=config.depth, quantity="test error", variant="")
        shown = "; ".join(f"{row['source']} {format_number(row)}" for _, row in numbers.iterrows())
        lines += [f"published for this network: {shown}"] if shown else []
    std = published_std(config) if is_comparable else math.inf
    source = "the recorded mean"
    if not errors and config == Config(depth=config.depth, seed=config.seed, precision=config.precision):
        exact = published(load_paper(), source=HE, kind=kind_of(config), depth=config.depth, quantity="test error")
        errors, source = list(exact.loc[exact["upto"].isna(), "value"]), "the paper's number"
    if verdict := judge_error(error, errors, std, source):
        lines.append(f"test error {verdict}")
    elif errors:
        gap = error - estimate(errors).mean
        lines.append(f"test error {error:.2f}%: {gap:+.2f} points from the recorded mean; no standard deviation is known")
    else:
        lines.append(f"test error {error:.2f}%: no other run of this configuration is recorded")
    lines.append(
        f"best evaluation {best:.2f}% ({error - best:.2f} points lower): selected on the test set, so optimistically biased"
    )
    return lines


def compare_unfinished(curve: pd.DataFrame, recorded: pd.DataFrame, curves: pd.DataFrame) -> list[str]:
    """Compare the last evaluation with the recorded runs at the same iteration."""
    if curve.empty:
        return ["it has no evaluation yet"]
    last, lines = curve.iloc[-1], []
    there = curves[curves["folder"].isin(recorded["folder"]) & (curves["iteration"] == last["iteration"])]
    for column, name in (("train_error", "training error"), ("test_error", "test error")):
        error, errors = float(last[column]), list(there[column].astype(float))
        if verdict := judge_error(error, errors, math.inf, ""):
            lines.append(f"{name} {verdict}")
        else:
            lines.append(f"{name} {error:.2f}%; recorded at this iteration: {estimate(errors) if errors else 'no run'}")
    return lines


def judge_error(error: float, errors: Sequence[float], std: float, source: str) -> str | None:
    """Return whether an error is within the 95% prediction interval, None if no standard deviation is known.

    std: published standard deviation of a run, used for fewer errors than MINIMUM; infinite if there is none.
    source: description of `errors` for the message.
    """
    mean, origin = estimate(errors), f"from {len(errors)} recorded runs"
    if mean.n < MINIMUM:
        mean, origin = Estimate(mean.n, mean.mean, std, published=True), f"from {source} and the published std of {std:.2f}"
    if mean.n == 0 or math.isinf(mean.std):
        return None
    expected = prediction(mean)
    position = "above" if error > expected.high else "below" if error < expected.low else "within"
    return f"{error:.2f}% is {position} the 95% prediction interval {origin}, {expected.low:.2f} to {expected.high:.2f}%"


def draw_runs(own: Sequence[tuple[pd.Series, pd.DataFrame]], runs: pd.DataFrame, curves: pd.DataFrame, output: Path):
    """Draw a panel for each run, over the recorded runs of its configuration."""
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(own), figsize=(1 + 4.5 * len(own), 3.8), squeeze=False, layout="constrained")
    for (run, curve), axes in zip(own, panels[0], strict=True):
        config = to_configs(pd.DataFrame([run]))[0]
        recorded = find_recorded(run, runs, config)
        for column, style in (("train_error", "--"), ("test_error", "-")):
            for folder in recorded["folder"]:
                theirs = curves[curves["folder"] == folder]
                axes.plot(theirs["iteration"], theirs[column], style, color="0.6", linewidth=0.8)
            axes.plot(curve["iteration"], curve[column], style, marker=".", color="C3")
        state = "" if run["status"] == "finished" else f", {run['status']} at {run['iteration']:,}"
        seeds = ", ".join(map(str, recorded["seed"])) or "none"
        title = f"{format_label(config)}, seed {config.seed}{state}; recorded seeds: {seeds}"
        axes.set_title(textwrap.fill(title, 60), fontsize="small")
        axes.set(xlabel="iterations", xlim=(0, 1.02 * config.iterations), ylim=(0, 100 if curve.empty else None))
    panels[0][0].set_ylabel("error (%)")
    figure.suptitle("red: this run, grey: recorded runs; dashed: training error, solid: test error", fontsize="small")
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=150)
    plt.close(figure)
    print(output)


def main(arguments: Sequence[str]) -> int:
    options = parse_args(CompareOptions, arguments, "compare.py", __doc__)
    own = [load_run(folder.resolve()) for folder in options.runs]
    runs, curves = load_records(options.records)
    print("\n\n".join(compare_run(run, curve, runs, curves) for run, curve in own))
    if options.output is not None:
        draw_runs(own, runs, curves, options.output)
    return 0


if __name__ == "__main__":
    sys.exit(run_cli(main, sys.argv[1:]))
