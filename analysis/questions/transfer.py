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
                gain = "" if method == "scratch" else format_gain(after, method, per_class)
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
    counts = [count for count in IMAGES_PER_CLASS if format_gain(after, "all", count)]
    if not counts:
        return "Not run yet: `python experiments/transfer.py`."
    gains = join_words([f"{format_gain(after, 'all', count)} points with {count}" for count in counts])
    alone = join_words([f"{format_paired(after, (1, 'head', count), (-1, 'all', count))} with {count}" for count in counts])
    return (
        f"The error from scratch minus that of fine-tuning all layers is {gains} images per class. The error with only the "
        f"linear layer trained minus that of fine-tuning all layers is {alone}."
    )


def errors_by_seed(after: pd.DataFrame, method: str, per_class: int) -> pd.Series:
    return select_group(after, method, per_class).set_index("seed")["test_error"].astype(float)


def format_gain(after: pd.DataFrame, method: str, per_class: int) -> str:
    return format_paired(after, (1, "scratch", per_class), (-1, method, per_class))


def format_paired(after: pd.DataFrame, *groups: tuple[int, str, int]) -> str:
    """Return a weighted sum of test errors, paired by seed, with Student's 95% interval from MINIMUM common seeds on.

    groups: weight, method, and images per class of each.
    """
    errors = [weight * errors_by_seed(after, method, per_class) for weight, method, per_class in groups]
    total = estimate(pd.concat(errors, axis=1, join="inner").sum(axis=1))
    if total.n >= MINIMUM:
        return str(combine([total], [1]))
    return f"{total.mean:+.2f}" if total.n else ""


def select_recipe(runs: pd.DataFrame, classes: str, iterations: int, *free: str) -> pd.DataFrame:
    """Return the runs on images of these classes that differ from the recipe only in the fields named."""
    config = Config(depth=DEPTH, iterations=iterations, dataset="pictures", classes=classes, pictures="any")
    return select_runs(runs[runs["precision"] == PRECISION], config, free=("pictures", *free))


def select_group(runs: pd.DataFrame, method: str, per_class: int) -> pd.DataFrame:
    """Return the finished runs of a method with this number of images per class."""
    return finished_runs(runs[(runs["method"] == method) & (runs["per_class"] == per_class)])
