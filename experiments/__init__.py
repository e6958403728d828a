"""One module per question, with the configurations to train, and the sweep that trains them.

Run as a script, each question's module prints its docstring, even if this repository is not installed; only transfer.py trains.
"""

from types import ModuleType

from experiments import ambiguity, block_design, bn_placement, deep, degradation, lenet, optimizer, precision, warmup, wide

MODULES = (degradation, bn_placement, block_design, optimizer, deep, warmup, ambiguity, precision, wide, lenet)
EXPERIMENTS: dict[str, ModuleType] = {module.__name__.removeprefix("experiments."): module for module in MODULES}
"""The experiments of sweep.py. Each module has CONFIGS and may have a GRID, which is trained first."""
