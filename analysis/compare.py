"""Is my number right? A run of yours beside the recorded ones, the paper and its reproductions.

    python analysis/compare.py runs/residual20-dece074e/seed0
    python analysis/compare.py runs/*/seed* --output mine.png

says of each run what differs from the paper's recipe and from the environment of the records, and whether its test error is one
that a further recorded run might have had: within the 95% prediction interval of the recorded seeds where there are three, else
within the spread that others have published. An unfinished run is compared at the iteration that it has reached. --output draws
its curve over the recorded ones.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # run this checkout, whatever is installed
import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd

from analysis.cli import FORMATS, Parser, run_script
from analysis.estimates import MINIMUM, Term, estimate, prediction_half_width
from analysis.markdown import format_label, format_number
from analysis.paper import HE, find_spread, kind_of, load_paper, published
from analysis.records import PRECISIONS, comparable_runs, finished_runs, load_records, select_runs, to_configs
from reproduce.config import Config, format_recipe
from reproduce.errors import UserError
from reproduce.record import list_run_folders


def load_own(folder: Path) -> tuple[pd.Series, pd.DataFrame]:
    """A run's row and its curve, as records.load gives them.

    Raises:
        UserError: it is not a run's folder, or cannot be read as one.
    """
    if not (folder / "config.json").is_file():
        below = len(list_run_folders(folder)) if folder.is_dir() else 0
        hint = f", but below it are {below}: name those" if below else ""
        raise UserError(f"{folder} is not a run's folder, which is named <net>-<key>/seed<k>{hint}")
    runs, curves = load_records(folder.parents[1], [folder])
    return runs.iloc[0], curves


def describe_environment(own: list[dict[str, Any]], recorded: pd.Series) -> str:
    """In what the last session differs from those of the records."""
    if not own or recorded.empty:
        return "nothing to compare with" if own else "not told by the run"
    mine, theirs = flatten(own[-1]), [flatten(sessions[-1]) for sessions in recorded if sessions]
    differing = []
    for name, value in mine.items():
        others = sorted({str(session.get(name)) for session in theirs})
        if str(value) not in others:
            differing.append(f"{name} {value} (recorded: {', '.join(others)})")
    return f"as recorded but for {'; '.join(differing)}" if differing else "as recorded"


def flatten(session: dict[str, Any]) -> dict[str, Any]:
    """What of a session decides the numbers: device, versions, fingerprint of the data."""
    versions = {name: value for name, value in session.get("versions", {}).items() if value is not None}
    return {"device": session.get("device_name"), **versions, "data": session.get("data", {}).get("sha256", "")[:8]}


def find_itself(own: pd.Series, runs: pd.DataFrame) -> pd.Series:
    """Which of the recorded runs are the run itself."""
    return (runs["folder"] == own["folder"]) & (runs["seconds"] == own["seconds"])


def find_recorded(own: pd.Series, runs: pd.DataFrame, config: Config) -> pd.DataFrame:
    """The recorded runs of the same recipe, in one precision, its own where there are any, without it.

    Beside a finished run they are the finished ones, where there are any.
    """
    others = select_runs(runs[~find_itself(own, runs)], config)
    if own["status"] == "finished" and len(finished_runs(others)):
        others = finished_runs(others)
    for precision in (own["precision"], *PRECISIONS):
        alike = others[others["precision"] == precision]
        if len(alike):
            return alike
    return others


def predict(errors: Sequence[float], spread: float) -> tuple[float, float, str]:
    """Where a further run is expected, mean and half the interval, and the words for it.

    errors: of the recorded runs, at least one. spread: the published standard deviation, for fewer than MINIMUM of them.
    """
    ours = estimate(errors)
    if ours.n >= MINIMUM:
        half = prediction_half_width(Term(ours.n, ours.mean, ours.std))
        return ours.mean, half, f"the 95% prediction interval of {ours.n} recorded runs"
    half = prediction_half_width(Term(ours.n, ours.mean, spread, known=True))
    runs = "the recorded run" if ours.n == 1 else f"{ours.n} recorded runs"
    return ours.mean, half, f"95% of {runs} and the published spread of a run, ± {spread:.2f}"


def judge_error(error: float, mean: float, half: float, words: str) -> str:
    where = "within" if abs(error - mean) <= half else "ABOVE" if error > mean else "below"
    return f"{error:.2f}% lies {where} what is expected, {mean - half:.2f} to {mean + half:.2f}% ({words})"


def compare(own: pd.Series, curve: pd.DataFrame, runs: pd.DataFrame, curves: pd.DataFrame) -> str:
    """What is to be said of a run."""
    config = to_configs(pd.DataFrame([own]))[0]
    recorded = find_recorded(own, runs, config)
    itself = " (one of the records: beside the others)" if find_itself(own, runs).any() else ""
    lines = [
        f"{own['folder']}{itself}: {format_label(config)}, {config.precision}, {own['status']} at iteration {own['iteration']:,} of "
        f"{config.iterations:,}",
        f"  recipe: {format_recipe(config)}",
        f"  environment: {describe_environment(own['sessions'], (recorded if len(recorded) else runs)['sessions'])}",
    ]
    if own["status"] == "diverged":
        return "\n".join([*lines, "  it diverged: there is no test error to compare"])
    if own["status"] == "unfinished":
        return "\n".join([*lines, *compare_unfinished(own, curve, recorded, curves)])
    error, done = float(own["test_error"]), finished_runs(recorded)
    is_comparable = bool(len(comparable_runs(pd.DataFrame([own]))))
    if len(done):
        errors = done["test_error"].astype(float)
        precision = "" if (done["precision"] == own["precision"]).all() else f" (in {', '.join(set(done['precision']))})"
        lines.append(f"  recorded{precision}: {estimate(errors)}; seeds {', '.join(f'{value:.2f}' for value in errors)}")
    if is_comparable:
        lines += list_published(config)
    if len(done) >= MINIMUM or (len(done) and is_comparable and math.isfinite(find_spread(config))):
        lines.append(f"  {judge_error(error, *predict(list(errors), find_spread(config)))}")
    elif len(done):
        gap = error - float(errors.mean())
        lines.append(f"  {error:.2f}%: {gap:+.2f} points from the recorded; no spread of such runs is published")
    else:
        lines.append(f"  {judge_by_paper(error, config) if is_comparable else f'{error:.2f}%: no other such run is recorded'}")
    best = float(own["best_test_error"])
    lines.append(f"  its best evaluation, {best:.2f}%, is {error - best:.2f} points lower: chosen on the test set, no result")
    return "\n".join(lines)


def judge_by_paper(error: float, config: Config) -> str:
    """By the paper's number for the net, where it has one and nothing is changed."""
    numbers = published(load_paper(), source=HE, kind=kind_of(config), depth=config.depth, quantity="test error")
    numbers = numbers[numbers["upto"].isna()]
    if numbers.empty or config != Config(depth=config.depth, seed=config.seed, precision=config.precision):
        return f"{error:.2f}%: no other such run is recorded, and the paper gives no exact number for it"
    number, spread = float(numbers["value"].iloc[0]), find_spread(config)
    half = prediction_half_width(Term(1, number, spread, known=True))
    return judge_error(error, number, half, f"95% of the paper's number and the published spread of a run, ± {spread:.2f}")


def list_published(config: Config) -> list[str]:
    """The paper and its reproductions, on the same net in the paper's recipe."""
    numbers = published(load_paper(), kind=kind_of(config), depth=config.depth, quantity="test error", variant="")
    shown = [f"{row['source']} {format_number(row)}" for _, row in numbers.iterrows()]
    return [f"  published, in the paper's recipe or near it: {'; '.join(shown)}"] if shown else []


def compare_unfinished(own: pd.Series, curve: pd.DataFrame, recorded: pd.DataFrame, curves: pd.DataFrame) -> list[str]:
    """At its last evaluation, beside the recorded runs at the same iteration."""
    if curve.empty:
        return ["  it has no evaluation yet"]
    last = curve.iloc[-1]
    there = curves[curves["folder"].isin(recorded["folder"]) & (curves["iteration"] == last["iteration"])]
    lines = []
    for column, name in (("train_error", "training error"), ("test_error", "test error")):
        mine = f"{name} {last[column]:.2f}% at iteration {last['iteration']:,.0f}"
        if there.empty:
            lines.append(f"  {mine}: no recorded run was evaluated there")
        elif len(there) < MINIMUM:
            lines.append(f"  {mine}; recorded there: {estimate(there[column])}")
        else:
            lines.append(f"  {name}: {judge_error(float(last[column]), *predict(list(there[column]), math.nan))}")
    return lines


def draw(own: Sequence[tuple[pd.Series, pd.DataFrame]], runs: pd.DataFrame, curves: pd.DataFrame, output: Path):
    """A panel per run: its curves bold, the recorded ones of the same recipe thin and grey; training error dashed."""
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(own), figsize=(1 + 4.5 * len(own), 3.8), squeeze=False, layout="constrained")
    for (row, curve), axes in zip(own, panels[0], strict=True):
        config = to_configs(pd.DataFrame([row]))[0]
        recorded = find_recorded(row, runs, config)
        few = "o" if len(curve) < 10 else ""
        for column, style in (("train_error", "--"), ("test_error", "-")):
            for folder in recorded["folder"]:
                theirs = curves[curves["folder"] == folder]
                axes.plot(theirs["iteration"], theirs[column], style, color="0.6", linewidth=0.8)
            axes.plot(curve["iteration"], curve[column], style, marker=few, markersize=4, color="C3", linewidth=1.8)
        state = "" if row["status"] == "finished" else f", {row['status']} at {row['iteration']:,}"
        beside = (
            f"grey: {', '.join(f'seed {seed}' for seed in recorded['seed'])}" if len(recorded) else "no such run is recorded"
        )
        title = textwrap.fill(f"{format_label(config)}, seed {config.seed}{state}; {beside}", 60)
        axes.set(xlabel="iterations", xlim=(0, 1.02 * config.iterations))
        axes.set_title(title, fontsize="small")
        tail = curve[curve["iteration"] > 0.05 * curve["iteration"].max()] if len(curve) else curve
        top = float(tail[["train_error", "test_error"]].max().max()) if len(tail) else 100.0
        axes.set_ylim(0, 1.1 * top or 1)
    panels[0][0].set_ylabel("error (%)")
    figure.suptitle("red: this run; dashed: training error, solid: test error", fontsize="small")
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=150)
    plt.close(figure)


def main(arguments: Sequence[str]) -> int:
    """Prints the comparison; draws it where that is asked for.

    Raises:
        UserError: a folder cannot be read as a run, or a record is damaged.
        OSError: the picture cannot be written.
    """
    parser = Parser(__doc__)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folder of a run, <net>-<key>/seed<k>")
    parser.add_argument("--output", type=Path, help="picture of the curves over the recorded ones (.png, .svg, .pdf)")
    options = parser.parse_args(list(arguments))
    if options.output is not None and options.output.suffix not in FORMATS:
        raise UserError(f"--output is a picture in {', '.join(FORMATS)}, which {options.output} is not")
    matplotlib.use("Agg")
    own = [load_own(folder.resolve()) for folder in options.runs]
    runs, curves = load_records(options.records)
    print("\n\n".join(compare(row, curve, runs, curves) for row, curve in own))
    if options.output is not None:
        draw(own, runs, curves, options.output)
        print(options.output)
    return 0


if __name__ == "__main__":
    run_script(main)
