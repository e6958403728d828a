"""How often the rules of claims err, and how small a difference so many seeds can find.

    python analysis/power.py

judges simulated runs by the rules of estimates.py and writes analysis/power.csv, which RESULTS.md shows; about half a minute.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # run this checkout, whatever is installed
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import optimize, stats

from analysis.claims import TOLERANCE
from analysis.estimates import CONFIDENCE, Finding, Term, contrast, is_equivalent, is_positive, matches_published
from analysis.markdown import format_table
from reproduce.cli import parse_args, run_cli

RATES = Path(__file__).with_name("power.csv")
TRIALS = 2000
DISTANCE = 1.0
"""Points by which the errors of two nets differ where a claim says that they do not, or that they do."""
SPREADS = ((0.2, 0.2), (0.5, 0.5), (0.5, 0.2))
"""The standard deviation of single runs, and what the published ones would make it: single runs are judged by that."""
CLAIMS = {
    "one net is clearly worse": (DISTANCE, 0.0),
    "two nets are similar": (0.0, DISTANCE),
    "a published number is met": (0.0, DISTANCE),
}
"""With the distance at which each is true, and one at which it is false."""


def summarise(errors: np.ndarray, published: float) -> Term:
    """Runs of a cell as the claims take them: their own spread from three on, else the published one."""
    if len(errors) < 3:
        return Term(len(errors), float(errors.mean()), published, known=True)
    return Term(len(errors), float(errors.mean()), float(errors.std(ddof=1)))


def judge(claim: str, first: Term, second: Term, number: float) -> Finding:
    if claim == "a published number is met":
        return matches_published(second, number, TOLERANCE)
    difference = contrast([first, second], [1, -1])
    return is_equivalent(difference, TOLERANCE) if "similar" in claim else is_positive(difference, TOLERANCE)


def simulate(claim: str, distance: float, seeds: int, spread: float, published: float, trials: int) -> list[bool | None]:
    """What the rule says of nets whose errors are this far apart, trial by trial."""
    generator = np.random.default_rng([seeds, round(10 * spread), round(10 * published), round(10 * distance)])
    found = []
    for _ in range(trials):
        first, second = generator.normal(8 + distance, spread, seeds), generator.normal(8, spread, seeds)
        number = generator.normal(8 + distance, spread)  # a published number is a single run
        found.append(judge(claim, summarise(first, published), summarise(second, published), float(number)).holds)
    return found


def measure_rates(trials: int = TRIALS) -> pd.DataFrame:
    """Shares of right, open and wrong verdicts, in percent, of every claim where it is true and where it is false."""
    rows = []
    for claim, distances in CLAIMS.items():
        for seeds in (1, 3, 5):
            for spread, published in SPREADS[: 3 if seeds == 1 else 2]:
                row = {"claim": claim, "seeds": seeds, "spread": spread, "published": published}
                for truth, distance in zip((True, False), distances, strict=True):
                    found = simulate(claim, distance, seeds, spread, published, trials)
                    for name, verdict in (("right", truth), ("open", None), ("wrong", not truth)):
                        row[f"{name} where {str(truth).lower()}"] = 100 * found.count(verdict) / trials
                rows.append(row)
    return pd.DataFrame(rows)


def find_smallest_difference(seeds: int, spread: float, power: float = 0.8) -> float:
    """The difference of two nets that their seeds show to be clearly there this often."""
    degrees, error = 2 * seeds - 2, spread * math.sqrt(2 / seeds)
    quantile = stats.t.ppf((1 + CONFIDENCE) / 2, degrees)

    def excess(difference: float) -> float:
        return float(stats.nct.sf(quantile, degrees, difference / error)) - power

    return optimize.brentq(excess, 0, 20 * spread)  # pyright: ignore[reportReturnType]


def format_power(rates: pd.DataFrame) -> str:
    """The two tables of RESULTS.md."""
    rows = []
    for row in rates.to_dict("records"):
        shares = [f"{row[f'{name} where {truth}']:.1f}" for truth in ("true", "false") for name in ("right", "open", "wrong")]
        rows.append([row["claim"], row["seeds"], row["spread"], row["published"] if row["seeds"] == 1 else "-", *shares])
    header = ["claim", "seeds", "std of a run", "published std"]
    header += [f"{name} where it is {truth}" for truth in ("true", "false") for name in ("right", "open", "wrong")]
    smallest = [[spread, *(f"{find_smallest_difference(seeds, spread):.2f}" for seeds in (3, 5, 8))] for spread in (0.2, 0.5)]
    return (
        f"{format_table(header, rows)}\n\nThe smallest difference of two nets, in points, that their seeds show to be clearly "
        f"there four times in five:\n\n{format_table(['std of a run', '3 seeds', '5 seeds', '8 seeds'], smallest)}"
    )


def main(arguments: Sequence[str]) -> int:
    parse_args(measure_rates, arguments, "power.py", __doc__).to_csv(RATES, index=False)
    print(RATES)
    return 0


if __name__ == "__main__":
    sys.exit(run_cli(main, sys.argv[1:]))
