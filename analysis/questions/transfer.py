"""How much does pretraining help when few images of the target classes are available, and which layers should be trained?"""

import pandas as pd

from analysis.estimates import MINIMUM, combine, estimate
from analysis.markdown import format_estimates, format_figure, format_mean, format_table, join_words
from analysis.records import finished_runs, select_runs, to_configs
from experiments.transfer import (
    DEPTH,
    IMAGES_PER_CLASS,
    ITERATIONS,
    METHODS,
    NEW_CLASSES,
    PRECISION,
    PRETRAINING_CLASSES,
    PRETRAINING_ITERATIONS,
)
from reproduce.config import Config

LABELS = {
    "scratch": "all, from scratch",
    "all": "all, pretrained",
    "last-stage": "last stage and linear layer",
    "head": "linear layer",
}


def find_runs(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the runs on the new classes; `method` is one of METHODS, `per_class` the images per class."""
    chosen = select_recipe(runs, NEW_CLASSES, ITERATIONS, "lr", "trainable", "initial")
    images = [sessions[0]["data"]["images"] if sessions else 0 for sessions in chosen["sessions"]]
    method = chosen["trainable"].where(chosen["initial"] != "", "scratch")
    found = chosen.assign(method=method, per_class=[count // len(NEW_CLASSES.split("/")) for count in images])
    return found[found["lr"] == method.map(METHODS)]


def format_section(runs: pd.DataFrame, curves: pd.DataFrame) -> str:
    after = finished_runs(find_runs(runs))
    before = finished_runs(select_recipe(runs, PRETRAINING_CLASSES, PRETRAINING_ITERATIONS))
    classes = PRETRAINING_CLASSES.replace("/", ", ")
    seeds = sorted(after["seed"].unique())
    rows = []
    for per_class in IMAGES_PER_CLASS:
        for method in METHODS:
            errors = errors_by_seed(after, method, per_class)
            if len(errors):
                each = [f"{errors[seed]:.2f}" if seed in errors else "" for seed in seeds]
                gain = "" if method == "scratch" else format_paired(after, "scratch", method, per_class)
                rows.append([per_class, LABELS[method], METHODS[method], *each, format_mean(estimate(errors)), gain])
    header = [
        "images per class",
        "trained layers",
        "learning rate",
        *(f"seed {seed}" for seed in seeds),
        "mean",
        "gain, paired",
    ]
    return f"""## Which layers should be trained on a few images of new classes?

{describe_gains(after)} A ResNet-20 is pretrained on five classes of CIFAR-10 ({classes}; {PRETRAINING_ITERATIONS:,}
iterations, test error {format_estimates(before)}) and then trained on the other five for {ITERATIONS} iterations. The learning
rate is divided by 10 after 1/2 and 3/4; its initial value is not tuned, and the differences include its effect.

{format_table(header, rows)}

Test error in % on the 5,000 test images of the new classes (chance: 80), {PRECISION}. Gains over training from scratch are
paired by seed, since the networks of a seed share images and weights; 95% intervals. `python experiments/transfer.py` trains
these networks.

{format_figure(after, to_configs(after), "transfer", "Test error by number of images and trained layers")}"""


def describe_gains(after: pd.DataFrame) -> str:
    """Return the effect of pretraining, and that of training the linear layer alone, at each number of images."""
    counts = [count for count in IMAGES_PER_CLASS if format_paired(after, "scratch", "all", count)]
    if not counts:
        return "Not run yet: `python experiments/transfer.py`."
    gains = join_words([f"{format_paired(after, 'scratch', 'all', count)} points with {count}" for count in counts])
    both = [(format_paired(after, "head", "all", count), count) for count in counts]
    alone = join_words([f"{gap} with {count}" for gap, count in both if gap])
    scratch = f"The error from scratch minus that of fine-tuning all layers is {gains} images per class."
    head = f" The error with only the linear layer trained minus that of fine-tuning all layers is {alone}."
    return scratch + (head if alone else "")


def errors_by_seed(after: pd.DataFrame, method: str, per_class: int) -> pd.Series:
    """Return the test error of each seed, the mean over its runs if it has several (on several machines)."""
    group = select_group(after, method, per_class)
    return group["test_error"].astype(float).groupby(group["seed"]).mean()


def format_paired(after: pd.DataFrame, first: str, second: str, per_class: int) -> str:
    """Return the test error of one method minus that of another, paired by seed.

    From MINIMUM common seeds on, with Student's 95% interval; empty without common seeds.
    """
    differences = errors_by_seed(after, first, per_class) - errors_by_seed(after, second, per_class)
    mean = estimate(differences.dropna())
    if mean.n >= MINIMUM:
        return str(combine([mean], [1]))
    return f"{mean.mean:+.2f}" if mean.n else ""


def select_recipe(runs: pd.DataFrame, classes: str, iterations: int, *free: str) -> pd.DataFrame:
    """Return the runs on images of these classes that differ from the recipe only in the fields named."""
    config = Config(depth=DEPTH, iterations=iterations, dataset="pictures", classes=classes, pictures="any")
    return select_runs(runs[runs["precision"] == PRECISION], config, free=("pictures", *free))


def select_group(runs: pd.DataFrame, method: str, per_class: int) -> pd.DataFrame:
    """Return the finished runs of a method with this number of images per class."""
    return finished_runs(runs[(runs["method"] == method) & (runs["per_class"] == per_class)])
