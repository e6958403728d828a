"""Device validation: do short runs on a device match a CPU reference?

    python experiments/devices/acceptance.py --device cuda --data DIR

parity.py compares single steps; this script compares outcomes. It trains a few runs of ResNet-20 and plain-20 with run.py, 300
iterations each, with seeds that the reference does not contain (two to three minutes per run on a CPU core). The schedule has
the paper's shape; it is that short because the reference takes twenty runs per network.

For each network, three measures (the training losses of both halves of the run, and the final test error) are compared with
the reference by Student's t: the difference of the means divided by s sqrt(1/m + 1/n), for m new runs and n reference runs,
where s is the reference's standard deviation, with n - 1 degrees of freedom. That is the prediction interval for the mean of m
more runs; it does not depend on the standard deviation of the few runs here. P-values are two-sided and Bonferroni-adjusted for
the six comparisons (three measures of two networks). The device fails if one is at most 0.01, or if a run diverges.
docs/devices.md gives the rate of false alarms and the faults that the test detects.

Exit status: 0 passed, 1 failed, 2 user error, 75 stopped early.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # import this checkout, not an installed version

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Annotated, NamedTuple

import numpy as np
import tyro
from scipy import stats

from reproduce import cli, run
from reproduce.config import Config, DeviceChoice, Precision, RunOptions, format_flags, require
from reproduce.dataset import detect_dataset
from reproduce.errors import STOPPED, UserError
from reproduce.progress import print_line
from reproduce.record import list_run_folders, read_record
from reproduce.schema import Diverged

ITERATIONS = 300
NETS = [Config(depth=20, residual=residual, iterations=ITERATIONS) for residual in (True, False)]
RECORDS = Path("experiments/records/acceptance")
REFERENCE, FAULTS = "reference", "faults"
"""Subfolders of RECORDS: the reference's run folders, and a folder of run folders for each deliberate fault."""
MEASURES = ("training loss, first half", "training loss, second half", "test error")
TESTS = len(MEASURES) * len(NETS)
ALPHA = 0.01
FIRST_SEED = 20
"""First seed of the new runs; the reference uses the seeds below it."""

Measures = tuple[float, ...]
"""A run's values of MEASURES."""


@dataclass(frozen=True)
class Options:
    """What to train.

    Raises:
        UserError: a value is out of range.
    """

    device: DeviceChoice = "auto"
    runs: int = 3
    """Runs of each network."""
    precision: Precision = "fp32"
    """Precision of these runs (the reference is in fp32)."""
    data: Annotated[str, tyro.conf.arg(metavar="DIR")] = RunOptions.data
    """Folder of CIFAR-10."""
    out: Path = Path("runs/acceptance")
    """Parent folder; each call creates a folder named after the time."""

    def __post_init__(self):
        require(self.runs >= 1, "runs must be at least 1", self.runs)


class Difference(NamedTuple):
    """Means of a measure, and the adjusted p-value."""

    net: str
    measure: str
    reference: float
    std: float
    found: float
    p: float


def load_runs(folder: Path) -> dict[Config, Measures]:
    """Return the measures of the runs below a folder that have ended, infinite for those that diverged.

    Raises:
        UserError: a record is damaged.
    """
    found = {}
    for path in list_run_folders(folder):
        record = read_record(path)
        if isinstance(record.result, Diverged):
            found[record.config] = (math.inf,) * len(MEASURES)
        elif record.result is not None:
            half, end = record.rows  # evaluated twice
            found[record.config] = half.train_loss, end.train_loss, record.result.test_error
    return found


def select_measures(runs: dict[Config, Measures], net: Config) -> list[Measures]:
    """Return the measures of a configuration's runs, sorted by seed."""
    return [runs[config] for config in sorted(runs, key=lambda config: config.seed) if replace(config, seed=net.seed) == net]


def compare(net: str, reference: Sequence[Measures], found: Sequence[Measures]) -> list[Difference]:
    """Compare each measure with the reference, which must have at least two runs and no diverged one."""
    n, m = len(reference), len(found)
    means, stds = np.mean(reference, axis=0), np.std(reference, axis=0, ddof=1)
    new_means = np.mean(found, axis=0)
    ps = 2 * stats.t.sf(np.abs(new_means - means) / (stds * math.sqrt(1 / m + 1 / n)), n - 1)
    columns = zip(means.tolist(), stds.tolist(), new_means.tolist(), np.minimum(1, TESTS * ps).tolist(), strict=True)
    return [Difference(net, measure, *numbers) for measure, numbers in zip(MEASURES, columns, strict=True)]


def list_alarms(differences: Sequence[Difference]) -> list[Difference]:
    """Return the measures that differ significantly, or cannot be compared (p is NaN)."""
    return [difference for difference in differences if not difference.p > ALPHA]


def format_difference(difference: Difference) -> str:
    net, measure, reference, std, mean, p = difference
    return f"{net:10}  {measure:26}  {reference:9.3f} ± {std:<6.3f}  {mean:9.3f}  {(mean - reference) / std:+9.2f}  {p:8.2g}"


def main(arguments: Sequence[str]) -> int:
    """Train, print the comparison and the verdict, and return the exit status.

    Raises:
        UserError: the reference is missing, or a run reports an error.
    """
    options = cli.parse_args(Options, arguments, "acceptance.py", __doc__)
    dataset = detect_dataset(options.data)
    reference = load_runs(RECORDS / REFERENCE)
    nets = [replace(net, dataset=dataset) for net in NETS]
    if any(len(select_measures(reference, net)) < 2 for net in nets):
        raise UserError(f"{RECORDS / REFERENCE} must contain at least two runs of each network on {dataset}")
    out = options.out / datetime.now().strftime("%Y%m%d-%H%M%S")
    seeds = range(FIRST_SEED, FIRST_SEED + options.runs)
    configs = [replace(net, precision=options.precision, seed=seed) for net in nets for seed in seeds]
    for number, config in enumerate(configs, start=1):
        half = config.iterations // 2
        shared = RunOptions(options.device, options.data, out=out, eval_every=half, checkpoint_every=config.iterations)
        print_line(f"run {number} of {len(configs)}: {config.net}, seed {config.seed}")
        status = run.main(format_flags(config, shared))
        if status == STOPPED:
            print_line("stopped before the comparison; the same command starts over")
            return status
    found = load_runs(out)
    device = read_record(out / configs[0].folder).sessions[-1].device_name
    differences = []
    for net in nets:
        new = select_measures(found, replace(net, precision=options.precision))
        differences += compare(net.net, select_measures(reference, net), new)
    print(f"\nMeans of {options.runs} runs; differences in standard deviations of the reference; adjusted p-values:")
    print(f"{'network':10}  {'measure':26}  {'reference':>18}  {'device':>9}  {'diff':>9}  {'p':>8}")
    print(*map(format_difference, differences), sep="\n")
    count = len(list_alarms(differences))
    verdict = f"failed: {count} measures" if count else "passed: no measure"
    print(f"{verdict} on {device} differ{'' if count else 's'} significantly from the reference")
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(cli.run_cli(main, sys.argv[1:]))
