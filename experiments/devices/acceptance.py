"""Whether a device trains right: what short runs on it come to, beside many such runs on a CPU.

    python experiments/devices/acceptance.py --device cuda --data DIR

parity.py compares single steps; this compares outcomes. A few runs of ResNet-20 and of plain-20 (of each that has a reference)
are trained as run.py trains them, ITERATIONS iterations each, under seeds that the reference has not seen: two to three minutes
a run on a core of a CPU. The schedule keeps its shape; it is so short for the sake of the reference, which takes twenty runs of
a net.

Each of three measures of each net (the training losses of both halves of the run, and the final test error) is compared with
the reference by Student's t: the difference of the means in units of s sqrt(1/m + 1/n), where m runs are compared with n of
the reference and s is the reference's standard deviation, with n - 1 degrees of freedom. It is what the prediction interval of
the mean of m more runs rests on, and does not depend on the spread of a few. P-values are two-sided and multiplied by the
number of measures (Bonferroni). One of ALPHA or less, or a run that diverges, is the verdict that the device does not train
right. RESULTS.md tells how often it finds a fault where there is none, and which of those tried it finds.

Exit status: 0 it trains as the reference does, 1 it does not, 2 wrong use, 75 stopped early.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))  # run this checkout, whatever is installed
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import tyro
from scipy import stats

from reproduce import cli, run
from reproduce.config import Config, DeviceChoice, Precision, RunOptions, format_flags, require
from reproduce.dataset import detect_dataset
from reproduce.errors import UserError
from reproduce.progress import print_line
from reproduce.record import Record, list_run_folders, read_record, read_sessions
from reproduce.schema import Diverged

ITERATIONS = 300
NETS = [Config(depth=20, residual=residual, iterations=ITERATIONS) for residual in (True, False)]
RECORDS = Path("experiments/records/acceptance")
REFERENCE, FAULTS = "reference", "faults"
"""Folders of RECORDS: run folders of NETS; a folder of run folders for every fault that was put in on purpose."""
MEASURES = ("training loss, first half", "training loss, second half", "test error")
TESTS = len(MEASURES) * len(NETS)
ALPHA = 0.01
LEAST = 5
"""Runs of a net without which it has no reference, and is left out."""
FIRST_SEED = 20
"""The seeds before it are the reference's."""

Measures = tuple[float, ...]
"""What a run has come to, in the order of MEASURES; a loss each or percent."""


@dataclass(frozen=True)
class Acceptance:
    """What to train.

    Raises:
        UserError: a value outside its range.
    """

    device: DeviceChoice = "auto"
    runs: int = 3
    """Runs of each net."""
    precision: Precision = "fp32"
    """Of the runs; the reference is in fp32."""
    capture: bool = True
    """As for reproduce/run.py."""
    data: Annotated[str, tyro.conf.arg(metavar="DIR")] = RunOptions.data
    """Folder of CIFAR-10."""
    out: Path = Path("runs/acceptance")
    """Receives a folder named by the time, with a run folder for every run."""
    reference: Path = RECORDS / REFERENCE
    """Run folders to compare with."""

    def __post_init__(self):
        require(self.runs >= 1, "runs must be at least 1", self.runs)


class Difference(NamedTuple):
    """A measure of a net, here and in the reference; p for all TESTS together."""

    net: str
    measure: str
    reference: float
    std: float
    found: float
    p: float


def measure_run(record: Record) -> Measures | None:
    """What a run has come to; infinite where it has diverged, None where it has not ended.

    Raises:
        UserError: it is evaluated at other iterations than the reference.
    """
    config, rows, result = record.config, record.rows, record.result
    if result is None:
        return None
    if isinstance(result, Diverged):
        return (math.inf,) * len(MEASURES)
    half = config.iterations // 2
    if [row.iteration for row in rows] != [half, config.iterations]:
        raise UserError(f"{config.folder} is not evaluated after {half} and {config.iterations} iterations, and nowhere else")
    return rows[0].train_loss, rows[1].train_loss, result.test_error


def load_runs(folder: Path) -> dict[Config, Measures]:
    """What the runs below a folder have come to, as far as they have ended.

    Raises:
        UserError: a record is damaged.
    """
    records = [read_record(path) for path in list_run_folders(folder)]
    found = {record.config: measure_run(record) for record in records}
    return {config: measures for config, measures in found.items() if measures is not None}


def select_seeds(runs: dict[Config, Measures], net: Config) -> list[Measures]:
    """What the runs of a net have come to, seed by seed."""
    return [runs[config] for config in sorted(runs, key=lambda config: config.seed) if replace(config, seed=net.seed) == net]


def compare(net: str, reference: Sequence[Measures], found: Sequence[Measures]) -> list[Difference]:
    """Each measure of some runs beside the reference, which has at least two and none that has diverged."""
    n, m = len(reference), len(found)
    means, stds, here = np.mean(reference, axis=0), np.std(reference, axis=0, ddof=1), np.mean(found, axis=0)
    ps = 2 * stats.t.sf(np.abs(here - means) / (stds * math.sqrt(1 / m + 1 / n)), n - 1)
    columns = (means, stds, here, np.minimum(1, TESTS * ps))
    return [
        Difference(net, measure, *numbers) for measure, *numbers in zip(MEASURES, *(c.tolist() for c in columns), strict=True)
    ]


def is_alarm(differences: Sequence[Difference]) -> bool:
    return any(difference.p <= ALPHA for difference in differences)


def describe(difference: Difference) -> str:
    net, measure, mean, std, here, p = difference
    return f"{net:10}  {measure:26}  {mean:9.3f} ± {std:<6.3f}  {here:9.3f}  {(here - mean) / std:+9.2f}  {p:8.2g}"


def judge(device: str, runs: int, differences: Sequence[Difference]) -> str:
    """The verdict in one sentence."""
    least = min(differences, key=lambda difference: difference.p)
    if not is_alarm(differences):
        return (
            f"{device} trains right, as far as {runs} {'runs' if runs > 1 else 'run'} of each net can tell: nothing differs "
            f"from the reference (p {least.p:.2g} at least, for {TESTS} measures together)"
        )
    others = sum(difference.p <= ALPHA for difference in differences) - 1
    more = f", and {others} more of {len(differences)} measures differ" if others else ""
    return (
        f"{device} does not train as the reference does: {least.net}'s {least.measure} is {least.found:.3f} on average, in the "
        f"reference {least.reference:.3f} ± {least.std:.3f} (p {least.p:.2g} for {TESTS} measures together){more}"
    )


def main(arguments: Sequence[str]) -> int:
    """Trains, prints the comparison and the verdict, and returns the exit status.

    Raises:
        UserError, OSError: what the caller turns into a sentence and exit status 2.
    """
    acceptance = cli.parse_args(Acceptance, arguments, "acceptance.py", __doc__)
    dataset = detect_dataset(acceptance.data)
    recorded = load_runs(acceptance.reference)
    references = {net: select_seeds(recorded, net) for net in (replace(net, dataset=dataset) for net in NETS)}
    references = {net: reference for net, reference in references.items() if len(reference) >= LEAST}
    if not references:
        raise UserError(
            f"{acceptance.reference} has no reference on {dataset}: {LEAST} runs of a net that have ended, at least"
        )
    out = acceptance.out / datetime.now().strftime("%Y%m%d-%H%M%S")
    wanted = [replace(net, precision=acceptance.precision) for net in references]
    seeds = range(FIRST_SEED, FIRST_SEED + acceptance.runs)
    for number, config in enumerate([replace(net, seed=seed) for net in wanted for seed in seeds], start=1):
        half = config.iterations // 2
        options = RunOptions(acceptance.device, acceptance.data, out=out, eval_every=half, checkpoint_every=config.iterations)
        print_line(f"run {number} of {len(wanted) * acceptance.runs}: {config.net}, seed {config.seed}")
        status = run.run(format_flags(config, replace(options, capture=acceptance.capture)))
        if status == run.STOPPED:
            print_line("stopped without a verdict; the same command begins anew")
            return status
    found = load_runs(out)
    device = read_sessions(out / replace(wanted[0], seed=FIRST_SEED).folder)[-1].device_name
    differences = []
    for net, reference in zip(wanted, references.values(), strict=True):
        differences += compare(net.net, reference, select_seeds(found, net))
    count = " and ".join(str(n) for n in sorted({len(reference) for reference in references.values()}))
    print(f"\nMeans of {acceptance.runs} runs and of {count} of the reference, and the difference in its standard deviations:")
    print(f"{'net':10}  {'measure':26}  {'reference':>18}  {'here':>9}  {'by':>9}  {'p':>8}")
    print(*map(describe, differences), sep="\n")
    print(judge(device, acceptance.runs, differences))
    return 1 if is_alarm(differences) else 0


if __name__ == "__main__":
    sys.exit(cli.run_cli(main, sys.argv[1:]))
