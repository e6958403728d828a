"""Train what is missing of an experiment.

    python experiments/sweep.py degradation

trains the experiment's runs on all local devices: seed 0 of every cell before seed 1 of any. What is done is skipped,
what is unfinished goes on, and a run that fails or diverges does not stop the others. Exit status: 0 all done, 1 some
failed or diverged, 2 wrong use, 75 stopped early (the same command goes on from there).
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # run this checkout, whatever is installed
import math
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Literal

import tyro

from experiments import EXPERIMENTS
from experiments.engine.concurrency import count_cores
from experiments.engine.dashboard import Dashboard
from experiments.engine.local_engine import check_names, choose_concurrency, find_devices, train_locally
from experiments.engine.progress import describe_run, format_run, has_ended, read_ended, read_progress
from experiments.engine.ray_engine import train_on_cluster
from experiments.engine.run_queue import RunQueue
from experiments.engine.status import print_dry_run, print_status
from reproduce import cli
from reproduce.config import PAPER_ITERATIONS, Config, Precision, RunOptions, require
from reproduce.dataset import detect_dataset
from reproduce.errors import UserError
from reproduce.image_folder import resolve_dataset

# Required, and one of EXPERIMENTS, which Sweep checks: a choice of the parser's own would have to be written out as types.
Name = Annotated[str, tyro.conf.arg(metavar=f"{{{','.join(EXPERIMENTS)}}}", help_behavior_hint="(required)")]


@dataclass(frozen=True)
class Sweep:
    """Which runs, and where.

    Raises:
        UserError: a value outside its range.
    """

    experiment: tyro.conf.Positional[Name] = ""
    """The module of experiments/ that lists the configs."""
    seeds: int = 5
    """Replicates of every cell: seeds 0, 1, ..."""
    only: Annotated[tuple[str, ...], tyro.conf.arg(metavar="PATTERN ...")] = ()
    """Only runs whose folder and flags contain one of these, with * ? [] as in a shell: plain20, bn-after-add,
    '110*seed0'; those of the first pattern first."""
    iterations: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Shorten training to N iterations instead of 64000, and whatever is shorter in proportion."""
    precision: Annotated[Precision | None, tyro.conf.arg(metavar="{fp32,tf32,bf16}")] = None
    """Train everything in this precision."""
    dry_run: bool = False
    """Only print the commands and an estimate of the time."""
    status: bool = False
    """Only tell what is done, unfinished and missing."""
    devices: Annotated[tuple[str, ...], tyro.conf.arg(metavar="DEVICE ...")] = ()
    """cpu, or some of cuda:0 cuda:1 npu:0 ..., or a kind for all of it; by default all devices that there are. On a
    cluster, one of cpu cuda npu."""
    per_device: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Runs at the same time on each device: in one process on cuda and npu, in a process each on a CPU or a cluster. By
    default one for each usable core of a CPU, on cuda and npu what experiments/devices/throughput.py found the fastest or, where it
    has not measured, 1; on a cluster 1."""
    time_limit: Annotated[float | None, tyro.conf.arg(metavar="SECONDS")] = None
    """Stop the whole sweep after so many seconds, every run with a checkpoint."""
    engine: Literal["local", "ray"] = "local"
    """Train on this machine's devices, or on the Ray cluster it belongs to."""
    data: Annotated[str, tyro.conf.arg(metavar="DIR|synthetic|mnist")] = RunOptions.data
    """As for reproduce/run.py."""
    out: Path = Path("experiments/records")
    """Folder that receives <net>-<key>/seed<k>."""
    eval_every: int = RunOptions.eval_every
    """As for reproduce/run.py."""
    checkpoint_every: int = RunOptions.checkpoint_every
    """As for reproduce/run.py."""

    def __post_init__(self):
        if not self.experiment:
            raise UserError(f"name an experiment: {', '.join(EXPERIMENTS)}")
        if self.experiment not in EXPERIMENTS:
            choices = f"Expected one of {tuple(EXPERIMENTS)}."
            raise UserError(f"invalid choice {self.experiment!r} for argument 'experiment'. {choices}")
        require(self.seeds >= 1, "seeds must be at least 1", self.seeds)
        require(self.iterations is None or self.iterations >= 1, "iterations must be at least 1", self.iterations)
        require(self.per_device is None or self.per_device >= 1, "per-device must be at least 1", self.per_device)
        check_names(self.devices)
        self.options()

    def options(self) -> RunOptions:
        return RunOptions(
            data=self.data,
            out=self.out,
            time_limit=self.time_limit,
            eval_every=self.eval_every,
            checkpoint_every=self.checkpoint_every,
        )


def parse(arguments: Sequence[str]) -> Sweep:
    """The command line's sweep.

    Raises:
        UserError: a flag or value is wrong.
    """
    return cli.parse_args(Sweep, arguments, "sweep.py", __doc__, tyro.conf.FlagCreatePairsOff)


# Which runs -----------------------------------------------------------------------------------------------------------


def adapt_config(sweep: Sweep, config: Config) -> Config:
    """A config as this sweep trains it."""
    if sweep.iterations is not None:
        config = replace(config, iterations=max(1, sweep.iterations * config.iterations // PAPER_ITERATIONS))
    if sweep.precision is not None:
        config = replace(config, precision=sweep.precision)
    named = detect_dataset(sweep.data)
    return config if named == "cifar10" else replace(config, **resolve_dataset(sweep.data))


def list_runs(sweep: Sweep) -> list[Config]:
    """The experiment's runs in the order in which they are trained, as far as they are known by now.

    An experiment's GRID, where it has one, is trained with seed 0 only, and its results decide on the configs that
    `derived` adds.
    """
    module = EXPERIMENTS[sweep.experiment]
    grid: list[Config] = getattr(module, "GRID", [])
    cells: list[Config] = module.CONFIGS
    if grid:
        cells = cells + module.derived(lambda config: read_ended(adapt_config(sweep, config), sweep.out))
    runs = grid + [replace(cell, seed=seed) for seed in range(sweep.seeds) for cell in cells]
    adapted = dict.fromkeys(adapt_config(sweep, config) for config in runs)
    if not sweep.only:
        return list(adapted)
    written = {config: format_run(config) for config in adapted}
    return list(dict.fromkeys(c for pattern in sweep.only for c in written if fnmatchcase(written[c], f"*{pattern}*")))


def print_grid_state(sweep: Sweep):
    """Says so where cells are not known yet because the grid that decides on them has not ended."""
    grid = getattr(EXPERIMENTS[sweep.experiment], "GRID", [])
    ended = sum(read_ended(adapt_config(sweep, config), sweep.out) is not None for config in grid)
    if ended < len(grid):
        print(f"{ended} of {len(grid)} grid runs have ended: cells at the learning rate they choose are yet to come")


# What would be in the way of every run ---------------------------------------------------------------------------------


def find_nearest_folder(out: Path) -> Path:
    """The folder --out, or the one in which it, or what is above it, would be made.

    Raises:
        UserError: there is a file in the way.
    """
    nearest = next(path for path in (out, *out.parents) if path.exists())
    if not nearest.is_dir():
        raise UserError(f"--out {out} cannot be a folder: {nearest} is a file")
    return nearest


def check_obstacles(sweep: Sweep, runs: Sequence[Config]):
    """Obtains the data sets of the runs, and looks whether --out can be written, so that no run is started in vain.

    Raises:
        UserError: either cannot be done.
    """
    try:
        tempfile.TemporaryFile(dir=find_nearest_folder(sweep.out)).close()
    except OSError as error:
        raise UserError(f"--out {sweep.out} cannot be written: {error.strerror}") from None
    one_of_each = {config.dataset: config for config in runs if config.dataset != "synthetic"}
    for config in one_of_each.values() if sweep.engine == "local" else ():
        import torch

        from reproduce.dataset import find_data_folder
        from reproduce.sampling import load_data

        load_data(config, find_data_folder(config.dataset, sweep.data), torch.device("cpu"))


# Training them --------------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str]) -> int:
    """Runs one command line and returns the exit status.

    Raises:
        UserError, OSError: what the caller turns into a sentence and exit status 2.
    """
    began = time.monotonic()
    sweep = parse(arguments)
    find_nearest_folder(sweep.out)
    runs = list_runs(sweep)
    if not runs:
        patterns = " or ".join(map(repr, sweep.only))
        raise UserError(f"no run of {sweep.experiment} matches {patterns}: --dry-run without --only lists them")
    options = sweep.options()
    if sweep.status:
        print_status(runs, sweep.out)
    elif sweep.dry_run:
        kinds = {name.partition(":")[0] for name in sweep.devices}
        per_device = sweep.per_device or (count_cores() if kinds == {"cpu"} else 1)
        lanes = max(1, len(sweep.devices)) * per_device
        print_dry_run(runs, replace(options, device=kinds.pop()) if len(kinds) == 1 else options, lanes)
    if sweep.status or sweep.dry_run:
        print_grid_state(sweep)
        return 0
    deadline = math.inf if sweep.time_limit is None else began + sweep.time_limit
    backlog = RunQueue(lambda: list_runs(sweep), sweep.out, Dashboard())
    left = [config for config in runs if not has_ended(config, sweep.out)]
    if not left:
        pass  # no need of a device
    elif sweep.engine == "ray":
        check_obstacles(sweep, runs)
        train_on_cluster(backlog, options, sweep.devices, sweep.per_device or 1, deadline)
    else:
        devices = find_devices(sweep.devices)
        check_obstacles(sweep, runs)
        given = sweep.per_device
        lanes = choose_concurrency(devices, left) if given is None else dict.fromkeys(devices, given)
        train_locally(backlog, options, lanes, deadline)
    if backlog.obstacle is not None:
        raise UserError(backlog.obstacle)
    return summarise_runs(list_runs(sweep), sweep, backlog.failures)


def summarise_runs(runs: Sequence[Config], sweep: Sweep, failures: dict[Config, str]) -> int:
    """Says what has become of the runs, the bad ones one by one, and returns the exit status."""
    states = {config: read_progress(config, sweep.out).state for config in runs}
    failed = [config for config in failures if not has_ended(config, sweep.out)]
    diverged = [config for config, state in states.items() if state == "diverged"]
    left = [
        config for config, state in states.items() if state in ("missing", "unfinished", "damaged") and config not in failed
    ]
    for config in diverged:
        print(describe_run(config, sweep.out))
    for config in failed:
        print(f"{config.folder}: failed, {failures[config]}")
    finished = sum(state == "finished" for state in states.values())
    bad = f"{len(diverged)} diverged, {len(failed)} failed"
    again = "; the same command goes on from there" if left else ""
    print(f"{finished} of {len(runs)} runs finished, {bad}, {len(left)} left{again}")
    print_grid_state(sweep)
    return 75 if left else 1 if failed or diverged else 0


if __name__ == "__main__":
    sys.exit(cli.run_cli(main, sys.argv[1:]))
