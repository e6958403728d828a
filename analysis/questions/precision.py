"""Do TF32 or bf16 in place of full single precision change the test error?"""

import pandas as pd

from analysis.estimates import estimate, signed
from analysis.markdown import label, write_estimates, write_table
from analysis.records import PRECISIONS, comparable, select
from analysis.sample import MINIMUM, NEUTRAL_WITHIN, is_neutral, mean_effect, precision_effects
from experiments.precision import NETS


def write_section(runs: pd.DataFrame, link: str) -> str:
    within = f"{NEUTRAL_WITHIN:g} points of zero"
    return f"""## Precision

Test errors in lower precisions less those in fp32, seed by seed. A precision is called neutral when the 95% interval of the
difference, averaged over the two nets seed by seed for at least {MINIMUM} seeds, lies within {within}, the
mean difference of each net does too, and no run diverged in it whose twin in fp32 did not. Only fp32 and a neutral precision
count in the claims.

{compare_precisions(comparable(runs))}"""


def compare_precisions(runs: pd.DataFrame) -> str:
    """Every lower precision against fp32, net by net and averaged over the nets, and whether it is neutral."""
    rows = []
    for precision in PRECISIONS[1:]:
        effects = precision_effects(runs, precision)
        for net, effect in zip(NETS, effects, strict=True):
            errors = [write_estimates(select(runs, net), precision=which) for which in (PRECISIONS[0], precision)]
            rows.append([precision, label(net), *errors, signed(estimate(effect)), "-"])
        verdict = {True: "neutral", False: "not neutral", None: "not shown to be neutral"}[is_neutral(runs, precision)]
        rows.append([precision, "both", "-", "-", signed(estimate(mean_effect(effects))), f"**{verdict}**"])
    header = ["precision", "net", "test error, fp32", "test error", "difference", f"within {NEUTRAL_WITHIN:g} points"]
    return write_table(header, rows)
