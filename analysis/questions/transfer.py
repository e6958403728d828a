"""How much do a few images of new classes gain from pretraining on others, and which layers should be trained?"""

import math

import pandas as pd

from analysis.claims import Outcome, claim
from analysis.estimates import MINIMUM, Contrast, Finding, Term, all_of, contrast, estimate, increases, is_positive
from analysis.markdown import format_estimates, format_figure, format_mean, format_table, join_words
from analysis.records import finished_runs, select_runs, to_configs
from analysis.sample import NotEnoughRuns
from experiments.transfer import DEPTH, FIRST, LENGTH_AFTER, LENGTH_BEFORE, PICTURES, PRECISION, SECOND, WAYS
from reproduce.config import Config

RULES_COMMIT = "db3f5122"
WORDS = {
    "scratch": "all, from scratch",
    "all": "all, pretrained",
    "last-stage": "last stage and linear layer",
    "head": "linear layer",
}


def find_runs(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs on the new classes; `way` is one of WAYS, `per_class` the images per class."""
    chosen = select_recipe(runs, SECOND, LENGTH_AFTER, "lr", "trainable", "initial")
    images = [sessions[0]["data"]["images"] if sessions else 0 for sessions in chosen["sessions"]]
    way = chosen["trainable"].where(chosen["initial"] != "", "scratch")
    found = chosen.assign(way=way, per_class=[count // len(SECOND.split("/")) for count in images])
    return found[found["lr"] == way.map(WAYS)]


def format_section(runs: pd.DataFrame, curves: pd.DataFrame) -> str:
    after, before = finished_runs(find_runs(runs)), finished_runs(select_recipe(runs, FIRST, LENGTH_BEFORE))
    seeds = sorted(after["seed"].unique())
    rows = []
    for per_class in PICTURES:
        for way in WAYS:
            errors = errors_by_seed(after, way, per_class)
            if len(errors):
                each = [f"{errors[seed]:.2f}" if seed in errors else "" for seed in seeds]
                gain = "" if way == "scratch" else format_gain(after, way, per_class)
                rows.append([per_class, WORDS[way], *each, format_mean(estimate(errors)), gain])
    header = ["images per class", "trained layers", *(f"seed {seed}" for seed in seeds), "mean", "gain over scratch, paired"]
    return f"""## Which layers should be trained on a few images of new classes?

{describe_gains(after)} A ResNet-20 is pretrained on five classes of CIFAR-10 ({FIRST.replace("/", ", ")}; {LENGTH_BEFORE:,}
iterations, test error {format_estimates(before)}) and then trained on the other five for {LENGTH_AFTER} iterations with the
paper's schedule.

{format_table(header, rows)}

Test error in % on the 5,000 test images of the new classes (chance: 80), {PRECISION}. Gains are paired by seed, since the
networks of a seed share images and weights; 95% intervals. `python experiments/transfer.py` trains these networks.

{format_figure(after, to_configs(after), "transfer", "Test error by number of images and trained layers")}"""


def describe_gains(after: pd.DataFrame) -> str:
    """Return the gain of pretraining at each number of images."""
    gains = [f"{gain} points with {per_class}" for per_class in PICTURES if (gain := format_gain(after, "all", per_class))]
    if not gains:
        return "Not run yet: `python experiments/transfer.py`."
    return (
        f"The gain from pretraining, all layers trained, is {' and '.join(gains)} images per class. {describe_outlier(after)}"
    )


def describe_outlier(after: pd.DataFrame) -> str:
    """Return the run that is farthest from the other seeds of its configuration."""
    cells = {(way, per_class): errors_by_seed(after, way, per_class) for way in WAYS for per_class in PICTURES}
    (way, per_class), errors = max(cells.items(), key=lambda cell: cell[1].std())
    seed = (errors - errors.median()).abs().idxmax()
    others = join_words([f"{error:.2f}" for error in errors.drop(seed)])
    return (
        f"The widest spread ({WORDS[way]}, {per_class} images per class) comes from one run: seed {seed} ends at "
        f"{errors[seed]:.2f}%, the other seeds at {others}%."
    )


def errors_by_seed(after: pd.DataFrame, way: str, per_class: int) -> pd.Series:
    cell = finished_runs(after[(after["way"] == way) & (after["per_class"] == per_class)])
    return cell.set_index("seed")["test_error"].astype(float)


def format_gain(after: pd.DataFrame, way: str, per_class: int) -> str:
    """Return the mean difference from scratch over the common seeds, with Student's 95% interval from MINIMUM seeds on."""
    gains = (errors_by_seed(after, "scratch", per_class) - errors_by_seed(after, way, per_class)).dropna()
    if gains.empty:
        return ""
    gain = estimate(gains)
    return f"{gain.mean:+.2f}" + (f" ({gain.low:+.2f} to {gain.high:+.2f})" if gain.n >= MINIMUM else "")


def select_recipe(runs: pd.DataFrame, classes: str, iterations: int, *free: str) -> pd.DataFrame:
    """Return the runs on images of these classes that differ from the recipe only in the fields named."""
    config = Config(depth=DEPTH, iterations=iterations, dataset="pictures", classes=classes, pictures="any")
    return select_runs(runs[runs["precision"] == PRECISION], config, free=("pictures", *free))


def select_cell(runs: pd.DataFrame, way: str, per_class: int) -> pd.DataFrame:
    return runs[(runs["way"] == way) & (runs["per_class"] == per_class)]


def make_terms(runs: pd.DataFrame, *cells: tuple[str, int]) -> list[Term]:
    """The test errors of cells, each a way and a number of pictures; from fewer runs than MINIMUM the spread is not known.

    Raises:
        NotEnoughRuns: a cell has no finished run.
    """
    errors = [finished_runs(select_cell(runs, *cell))["test_error"].astype(float) for cell in cells]
    if not all(len(cell) for cell in errors):
        counts = (f"{WORDS[way]}, {per_class}: n={len(cell)}" for (way, per_class), cell in zip(cells, errors, strict=True))
        raise NotEnoughRuns(f"a finished run of each cell is needed; there are: {'; '.join(counts)}")
    few = min(len(cell) for cell in errors) < MINIMUM
    return [Term(len(cell), float(cell.mean()), math.inf if few else estimate(cell).std, known=few) for cell in errors]


def find_gain(runs: pd.DataFrame, way: str, per_class: int) -> Contrast:
    """The test error from scratch less that of a way."""
    return contrast(make_terms(runs, ("scratch", per_class), (way, per_class)), [1, -1])


# Claims ---------------------------------------------------------------------------------------------------------------


@claim("P1", find_runs)
def helps_where_pictures_are_few(runs: pd.DataFrame) -> Outcome:
    """What a net has learnt of other classes helps the more, the fewer pictures of the new ones there are.

    Rule: by training all layers of such a net instead of one from scratch, the test error falls clearly more with 50 pictures
    a class than with 500.
    """
    cells = [(way, per_class) for per_class in PICTURES for way in ("scratch", "all")]
    terms = make_terms(runs, *cells)
    gains = "; ".join(f"with {per_class} {find_gain(runs, 'all', per_class)}" for per_class in PICTURES)
    more = contrast(terms, [1, -1, -1, 1])
    return Outcome(is_positive(more), f"gain {gains}; difference {more}", min(term.n for term in terms))


@claim("P2", find_runs)
def few_layers_for_few_pictures(runs: pd.DataFrame) -> Outcome:
    """With 50 pictures a class, the fewer layers learn, the better: the linear layer alone, then the last stage, then all.

    Rule: the test error rises in that order.
    """
    return judge_order(runs, PICTURES[0], "head", "last-stage", "all")


@claim("P3", find_runs)
def all_layers_for_more_pictures(runs: pd.DataFrame) -> Outcome:
    """With 500 pictures a class, the more layers learn, the better: all, then the last stage, then the linear layer alone.

    Rule: the test error rises in that order.
    """
    return judge_order(runs, PICTURES[1], "all", "last-stage", "head")


def judge_order(runs: pd.DataFrame, per_class: int, *ways: str) -> Outcome:
    terms = make_terms(runs, *((way, per_class) for way in ways))
    steps = [contrast([worse, better], [1, -1]) for better, worse in zip(terms, terms[1:], strict=False)]
    found: list[Finding | bool] = [increases(step) for step in steps]
    listed = ", ".join(f"{WORDS[way]} {term.mean:.2f}" for way, term in zip(ways, terms, strict=True))
    numbers = f"test error {listed}; from each to the next {', '.join(map(str, steps))}"
    return Outcome(all_of(*found), numbers, min(term.n for term in terms))
