"""Do TF32 or bf16 in place of full single precision change the test error?"""

import pandas as pd

from analysis.estimates import MINIMUM, Contrast, Truth, all_of, contrast, is_equivalent
from analysis.markdown import format_estimates, format_label, format_table
from analysis.records import PRECISIONS, comparable_runs, select_runs
from analysis.sample import NotEnoughRuns, Sample, format_spread_source, pooled_published_std
from experiments.precision import NETS
from reproduce.config import Config

NEUTRAL_WITHIN = 0.5
"""Points: what the effect of a neutral precision is shown not to exceed."""
FULL = PRECISIONS[0]


def format_section(runs: pd.DataFrame, link: str) -> str:
    within = f"within {NEUTRAL_WITHIN:g} points of zero"
    return f"""## Precision

Test errors in lower precisions less those in fp32. A precision is called neutral when there are at least {MINIMUM} runs of each
cell, the 95% interval of the difference, averaged over the two nets, lies {within}, the mean difference of each net does
too, and no run diverged in it where none did in fp32. The claims compare nets in one precision, whichever it is.

{compare_precisions(comparable_runs(runs))}"""


def sample_pair(runs: pd.DataFrame, precision: str, *nets: Config) -> tuple[Sample, Sample]:
    """The nets in a precision, and in fp32, the spread of whose runs is of one kind.

    Raises:
        NotEnoughRuns: one of them has no finished run in one of the two.
    """
    samples = Sample(runs, *nets, precision=precision), Sample(runs, *nets, precision=FULL)
    pooled_published_std(*samples)
    return samples


def average_effect(lower: Sample, full: Sample) -> Contrast:
    """The test error of the first less that of the second, averaged over the nets."""
    count = len(lower.configs)
    terms = [sample.term(position) for sample in (lower, full) for position in range(count)]
    return contrast(terms, [1 / count] * count + [-1 / count] * count)


def format_effect(runs: pd.DataFrame, precision: str, *nets: Config) -> str:
    try:
        lower, full = sample_pair(runs, precision, *nets)
        return f"{average_effect(lower, full)}{format_spread_source(lower)}"
    except NotEnoughRuns:
        return "-"


def is_neutral(runs: pd.DataFrame, precision: str) -> Truth:
    """Whether a precision is shown to give the test errors of fp32."""
    if precision == FULL:
        return True
    try:
        lower, full = sample_pair(runs, precision, *NETS)
    except NotEnoughRuns:
        return None
    if lower.seeds < MINIMUM:
        return None
    each = [abs(lower.mean(i).mean - full.mean(i).mean) < NEUTRAL_WITHIN or None for i in range(len(NETS))]
    diverges = lower.diverged > 0 and full.diverged == 0
    finding = all_of(is_equivalent(average_effect(lower, full), NEUTRAL_WITHIN), not diverges)
    return None if finding.holds and None in each else finding.holds


def compare_precisions(runs: pd.DataFrame) -> str:
    """Every lower precision against fp32, net by net and averaged over the nets, and whether it is neutral."""
    rows = []
    for precision in PRECISIONS[1:]:
        for net in NETS:
            errors = [format_estimates(select_runs(runs, net), precision=which) for which in (FULL, precision)]
            rows.append([precision, format_label(net), *errors, format_effect(runs, precision, net), "-"])
        verdict = {True: "neutral", False: "not neutral", None: "not shown to be neutral"}[is_neutral(runs, precision)]
        rows.append([precision, "both", "-", "-", format_effect(runs, precision, *NETS), f"**{verdict}**"])
    header = ["precision", "net", "test error, fp32", "test error", "difference", f"within {NEUTRAL_WITHIN:g} points"]
    return format_table(header, rows)
