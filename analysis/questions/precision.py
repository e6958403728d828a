"""Do TF32 or bf16 in place of full single precision change the test error?"""

import pandas as pd

from analysis.estimates import MINIMUM, Interval, all_of, is_equivalent
from analysis.markdown import format_estimates, format_net, format_number, format_table
from analysis.paper import load_paper, published
from analysis.records import PRECISIONS, comparable_runs, finished_runs, select_runs
from analysis.sample import NotEnoughRuns, Sample
from experiments.precision import NETS
from reproduce.config import Config

NEUTRAL_WITHIN = 0.5
"""Points: what the effect of a neutral precision is shown not to exceed."""
FULL = PRECISIONS[0]
COMPARISON = "tensorflow/models#5243"
"""Source of the published comparison."""
NOT_RUN = (
    "Does lower precision (TF32, bf16) change the test error? A published comparison of fp16 and fp32 on ResNet-56 finds no "
    "difference (tensorflow/models#5243): `python experiments/sweep.py precision`."
)
VERDICTS = {True: "no", False: "yes", None: "not known yet"}


def format_section(runs: pd.DataFrame, curves: pd.DataFrame) -> str:
    full = comparable_runs(runs)
    rows, words = [], []
    for precision in PRECISIONS[1:]:
        for net in NETS:
            if effect := format_effect(full, precision, net):
                errors = [select_runs(full[full["precision"] == p], net) for p in (FULL, precision)]
                rows.append([format_net(net), precision, *map(format_estimates, errors), effect])
        words.append(f"{precision}: {VERDICTS[is_neutral(full, precision)]}")
    header = ["network", "precision", "test error, fp32", "test error", "difference from fp32"]
    if not rows:
        return ""
    return f"""## Does lower precision change the test error?

{"; ".join(words)}. {describe_published()} A precision is neutral if the 95% interval of its effect, averaged over ResNet-20 and
ResNet-56 with at least {MINIMUM} seeds each, lies within {NEUTRAL_WITHIN:g} points of zero, the mean effect on each network
does too, and no run diverges that does not in fp32. Elsewhere, our networks are compared with each other in one precision only.

{format_table(header, rows)}

Test error in %. {format_not_run_precisions(full)}"""


def describe_published() -> str:
    """Return the published comparison of fp16 with fp32."""
    numbers = published(load_paper(), source=COMPARISON, quantity="test error")
    errors = " and ".join(f"{row['variant'] or 'fp32'} {format_number(row)}" for _, row in numbers.iterrows())
    return f"A published comparison on ResNet-56 finds none: {errors} ({COMPARISON})."


def format_not_run_precisions(full: pd.DataFrame) -> str:
    """Return one line with the precisions in which one of the networks has no finished run."""
    done = finished_runs(full)
    missing = [
        f"{format_net(net)} in {precision}"
        for precision in PRECISIONS
        for net in NETS
        if select_runs(done[done["precision"] == precision], net).empty
    ]
    command = "`python experiments/sweep.py precision`"
    return f"Not run yet: {', '.join(missing)} ({command})." if missing else f"{command} trains these networks."


def sample_pairs(runs: pd.DataFrame, precision: str, *nets: Config) -> Sample:
    """Return the networks in a precision, then in fp32.

    Raises:
        NotEnoughRuns: one of them has no finished run in one of the two.
    """
    return Sample(runs, *nets, *nets, precisions=[precision] * len(nets) + [FULL] * len(nets))


def average_effect(pairs: Sample) -> Interval:
    """Return the difference between the two halves of a sample, averaged over the networks."""
    count = len(pairs.configs) // 2
    return pairs.combine({i: (1 if i < count else -1) / count for i in range(2 * count)})


def format_effect(runs: pd.DataFrame, precision: str, *nets: Config) -> str:
    try:
        return str(average_effect(sample_pairs(runs, precision, *nets)))
    except NotEnoughRuns:
        return ""


def is_neutral(runs: pd.DataFrame, precision: str) -> bool | None:
    """Return whether a precision gives the test errors of fp32, None if that is not shown."""
    if precision == FULL:
        return True
    try:
        pairs = sample_pairs(runs, precision, *NETS)
    except NotEnoughRuns:
        return None
    if pairs.seeds < MINIMUM:
        return None
    count = len(NETS)
    each = [abs(pairs.difference(i, count + i).mean) < NEUTRAL_WITHIN or None for i in range(count)]
    diverges = any(pairs.diverged[:count]) and not any(pairs.diverged[count:])
    finding = all_of(is_equivalent(average_effect(pairs), NEUTRAL_WITHIN), not diverges)
    return None if finding.holds and None in each else finding.holds
