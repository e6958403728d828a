"""How much do a few pictures of new classes gain from a net that has learnt others, and which layers should learn?"""

import math

import pandas as pd

from analysis.claims import Outcome, claim
from analysis.estimates import MINIMUM, Contrast, Finding, Term, all_of, contrast, estimate, increases, is_positive
from analysis.markdown import format_estimates, format_figure, format_folders, format_table
from analysis.records import finished_runs, select_runs, to_configs
from analysis.sample import NotEnoughRuns
from experiments.transfer import DEPTH, FIRST, LENGTH_AFTER, LENGTH_BEFORE, PICTURES, PRECISION, SECOND, WAYS
from reproduce.config import Config

RULES_COMMIT = "db3f5122"
WORDS = {
    "scratch": "from scratch",
    "all": "all layers",
    "last-stage": "last stage and linear layer",
    "head": "linear layer alone",
}


def find_runs(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs on the classes that are learnt afterwards; `way` is one of WAYS, `per_class` the pictures of each class."""
    chosen = select_recipe(runs, SECOND, LENGTH_AFTER, "lr", "trainable", "initial")
    images = [sessions[0]["data"]["images"] if sessions else 0 for sessions in chosen["sessions"]]
    way = chosen["trainable"].where(chosen["initial"] != "", "scratch")
    found = chosen.assign(way=way, per_class=[count // len(SECOND.split("/")) for count in images])
    return found[found["lr"] == way.map(WAYS)]


def format_section(runs: pd.DataFrame, link: str) -> str:
    after = find_runs(runs)
    before = select_recipe(runs, FIRST, LENGTH_BEFORE)
    rows = []
    for per_class in PICTURES:
        for way in WAYS:
            cell = select_cell(after, way, per_class)
            gain = "-" if way == "scratch" else write_gain(after, way, per_class)
            training = format_estimates(cell, "train_error")
            rows.append([per_class, WORDS[way], format_estimates(cell), gain, training, format_folders(cell, link)])
    header = ["pictures a class", "what learns", "test error", "from scratch less this", "training error", "records"]
    hours = pd.concat([before, after])["seconds"].sum() / 3600
    return f"""## Transfer

A ResNet-20 learns five classes of CIFAR-10 ({FIRST.replace("/", ", ")}; {LENGTH_BEFORE:,} iterations, test error
{format_estimates(before)}; {format_folders(before, link)}), and then the other five ({SECOND.replace("/", ", ")}) from a few
pictures of each: all of it, its last stage and linear layer, or its linear layer alone, beside the same net from scratch.
{LENGTH_AFTER} iterations each, with the paper's schedule, in {PRECISION}. Errors are of the 5,000 test images of those five
classes: chance is 80. `python experiments/transfer.py` makes these runs; they took {hours:.1f} hours beside other work.
The rules of P1 to P3 were fixed in commit {RULES_COMMIT}, before the first of these runs had ended.

{format_table(header, rows)}

{format_figure(after, to_configs(after), "transfer", None)}"""


def select_recipe(runs: pd.DataFrame, classes: str, iterations: int, *free: str) -> pd.DataFrame:
    """The runs on pictures of these classes that differ from the experiment's recipe in nothing but the fields named."""
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


def write_gain(runs: pd.DataFrame, way: str, per_class: int) -> str:
    try:
        return str(find_gain(runs, way, per_class))
    except NotEnoughRuns:
        return "-"


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
