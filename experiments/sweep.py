"""Train the missing runs of an experiment.

    python experiments/sweep.py degradation

Trains on all npu devices or, if there are none, on all cuda devices or on the CPU; seed 0 of every configuration before seed 1
of any. Skips runs that have ended, resumes unfinished ones, and continues after a run that fails or diverges. Exit status: 0
all runs have finished, 1 some failed or diverged, 2 user error, 75 stopped early (the same command resumes).
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # import this checkout, not an installed version

import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Annotated, Literal

import tyro

from experiments import EXPERIMENTS
from experiments.engine.local_engine import VISIBLE, choose_concurrency, find_devices, train_locally
from experiments.engine.ray_engine import train_on_cluster
from experiments.engine.run_queue import RunQueue
from experiments.engine.status import format_run, format_state, print_dry_run, print_status, read_state
from reproduce import cli
from reproduce.config import PAPER_ITERATIONS, Config, Precision, RunOptions, require
from reproduce.dataset import detect_dataset, find_data_folder, read_dataset, resolve_dataset
from reproduce.errors import STOPPED, UserError

# Sweep.__post_init__ checks the name, because tyro can check it only against a Literal that lists all names.
Name = Annotated[str, tyro.conf.arg(metavar=f"{{{','.join(EXPERIMENTS)}}}", help_behavior_hint="(required)")]


@dataclass(frozen=True)
class Sweep:
    """Which runs to train, and where.

    Raises:
        UserError: a value is out of range.
    """

    experiment: tyro.conf.Positional[Name] = ""
    """The module of experiments/ that lists the configurations."""
    seeds: int = 5
    """Seeds per configuration (0, 1, ...)."""
    only: Annotated[tuple[str, ...], tyro.conf.arg(metavar="PATTERN ...")] = ()
    """Only runs whose folder or flags (without --no-residual) match a shell pattern, such as plain20 or 'resnet110*seed0'.
    Runs that match the first pattern come first."""
    iterations: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Train for N instead of 64,000 iterations; configurations with a shorter schedule are scaled by the same factor."""
    precision: Annotated[Precision | None, tyro.conf.arg(metavar="{fp32,tf32,bf16}")] = None
    """Train all runs in this precision."""
    dry_run: bool = False
    """Only print the commands and the estimated time."""
    status: bool = False
    """Only print which runs are finished, unfinished and missing."""
    devices: Annotated[tuple[str, ...], tyro.conf.arg(metavar="DEVICE ...")] = ()
    """cpu, cuda:0, npu:1, ..., or cuda or npu for all devices of that kind; by default all of the first usable kind.
    With --engine ray, one of cpu, cuda, npu."""
    per_device: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Concurrent runs per device: interleaved in one process on cuda and npu, in separate processes on a CPU.
    Default: one per CPU core, 4 on cuda, 1 on npu and with --engine ray."""
    time_limit: Annotated[float | None, tyro.conf.arg(metavar="SECONDS")] = None
    """Stop the sweep after this time; every run writes a checkpoint."""
    engine: Literal["local", "ray"] = "local"
    """Train on the devices of this machine, or on this machine's Ray cluster."""
    data: Annotated[str, tyro.conf.arg(metavar="DIR|synthetic|mnist")] = RunOptions.data
    """See reproduce/run.py --help."""
    out: Path = Path("experiments/records")
    """Folder for the run folders <net>-<key>/seed<k>."""
    eval_every: int = RunOptions.eval_every
    """See reproduce/run.py --help."""
    checkpoint_every: int = RunOptions.checkpoint_every
    """See reproduce/run.py --help."""

    def __post_init__(self):
        names = ", ".join(EXPERIMENTS)
        require(self.experiment in EXPERIMENTS, f"name an experiment: {names}", self.experiment or "none")
        require(self.seeds >= 1, "seeds must be at least 1", self.seeds)
        require(self.iterations is None or self.iterations >= 1, "iterations must be at least 1", self.iterations)
        require(self.per_device is None or self.per_device >= 1, "per-device must be at least 1", self.per_device)
        for name in self.devices:
            is_device = re.fullmatch(rf"cpu|({'|'.join(VISIBLE)})(:\d+)?", name) is not None
            require(is_device, "devices must be cpu, cuda, npu, cuda:0, npu:0, ...", repr(name))
        self.options()

    def options(self) -> RunOptions:
        """Return the options that all runs share."""
        names = ("data", "out", "time_limit", "eval_every", "checkpoint_every")
        return RunOptions(**{name: getattr(self, name) for name in names})


def parse(arguments: Sequence[str]) -> Sweep:
    """Parse a command line.

    Raises:
        UserError: a flag or value is wrong.
    """
    return cli.parse_args(Sweep, arguments, "sweep.py", __doc__, tyro.conf.FlagCreatePairsOff)


def adapt_config(sweep: Sweep, config: Config) -> Config:
    """Apply --iterations, --precision and --data to a configuration."""
    if sweep.iterations is not None:
        config = replace(config, iterations=max(1, sweep.iterations * config.iterations // PAPER_ITERATIONS))
    if sweep.precision is not None:
        config = replace(config, precision=sweep.precision)
    return config if detect_dataset(sweep.data) == "cifar10" else replace(config, **resolve_dataset(sweep.data))


def list_runs(sweep: Sweep) -> list[Config]:
    """Return the runs in the order of training."""
    module = EXPERIMENTS[sweep.experiment]
    configs = getattr(module, "GRID", []) + module.CONFIGS
    runs = [replace(config, seed=seed) for seed in range(sweep.seeds) for config in configs]
    adapted = list(dict.fromkeys(adapt_config(sweep, config) for config in runs))
    if not sweep.only:
        return adapted
    names = {}
    for run in adapted:
        name = format_run(run).replace(" --no-residual", "")  # so that "residual" does not select plain networks
        names[run] = (name, name.replace("residual", "resnet"))
    selected = [
        run for pattern in sweep.only for run in adapted if any(fnmatchcase(name, f"*{pattern}*") for name in names[run])
    ]
    return list(dict.fromkeys(selected))


def check_data(runs: Sequence[Config], data: str):
    """Download or read the datasets of the runs, so that an error appears once, before the first run.

    Raises:
        UserError: a dataset is missing or damaged.
    """
    datasets = {config.dataset: config for config in runs if config.dataset != "synthetic"}
    for config in datasets.values():
        read_dataset(config.dataset, find_data_folder(config.dataset, data), config.classes)


def main(arguments: Sequence[str]) -> int:
    """Train the runs, or print their status or commands, and return the exit status.

    Raises:
        UserError: the arguments, a record, a device or the data is invalid.
    """
    start = time.monotonic()
    sweep = parse(arguments)
    runs = list_runs(sweep)
    if not runs:
        patterns = " or ".join(map(repr, sweep.only))
        raise UserError(f"no run of {sweep.experiment} matches {patterns}: see --dry-run without --only")
    pending = [config for config in runs if read_state(config, sweep.out).status in ("unfinished", "missing")]
    if sweep.status:
        print_status(runs, sweep.out)
        return 0
    if sweep.dry_run:
        kind = sweep.devices[0].partition(":")[0] if sweep.devices else RunOptions.device
        print_dry_run(runs, replace(sweep.options(), device=kind))
        return 0
    deadline = math.inf if sweep.time_limit is None else start + sweep.time_limit
    queue = RunQueue(runs, sweep.out)
    if pending and sweep.engine == "ray":
        train_on_cluster(queue, sweep.options(), sweep.devices, sweep.per_device or 1, deadline)
    elif pending:
        devices = find_devices(sweep.devices)
        check_data(runs, sweep.data)
        slots = {name: sweep.per_device or choose_concurrency(name.partition(":")[0], len(pending)) for name in devices}
        sweep.out.mkdir(parents=True, exist_ok=True)  # an error appears once, not in every run
        train_locally(queue, sweep.options(), slots, deadline)
    queue.bar.close()
    if queue.common_error is not None:
        raise UserError(queue.common_error)
    return print_outcome(runs, sweep.out, queue.failures)


def print_outcome(runs: Sequence[Config], out: Path, failures: dict[Config, str]) -> int:
    """Print the runs that diverged or failed and the number in each state; return the exit status."""
    status = {config: read_state(config, out).status for config in runs}
    diverged = [config for config in runs if status[config] == "diverged"]
    failed = [config for config in failures if status[config] not in ("finished", "diverged")]
    finished = list(status.values()).count("finished")
    remaining = len(runs) - finished - len(diverged) - len(failed)
    for config in diverged:
        print(format_state(config, out))
    for config in failed:
        print(f"{config.folder}: failed: {failures[config]}")
    resume = "; the same command resumes" if remaining else ""
    print(f"{finished} of {len(runs)} runs finished, {len(diverged)} diverged, {len(failed)} failed, {remaining} left{resume}")
    return STOPPED if remaining else 1 if diverged or failed else 0


if __name__ == "__main__":
    sys.exit(cli.run_cli(main, sys.argv[1:]))
