"""BN before the addition (the paper's) or after it: curves of both, and the final test error by depth.

    python analysis/plot_bn_placement.py

draws the finished full-length runs below --records to analysis/figures/bn_placement.svg and .png. Beside
full-length runs stand the numbers that others published.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # run this checkout, whatever is installed
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis import drawing
from analysis.cli import run_script
from analysis.estimates import MINIMUM, estimate
from analysis.paper import IDENTITY, load_paper, published
from experiments.bn_placement import AFTER, BEFORE, DEPTHS
from reproduce.config import Block, Config

PLACEMENTS: dict[Block, str] = {"original": "BN before the addition", "bn-after-add": "BN after the addition"}
COLOURS: dict[Block, drawing.ColorType] = {"original": drawing.PALETTE[0], "bn-after-add": drawing.PALETTE[3]}
MARKERS = {"gcr/torch-residual-networks": "D", IDENTITY: "^"}


def draw(runs: pd.DataFrame, curves: pd.DataFrame, dataset_info: str = "cifar10") -> Figure:
    """The figure: above, curves before | after; below, final test errors by depth.

    Raises:
        UserError: there is no run with BN after the addition to draw.
    """
    nets: dict[Block, list[Config]] = {"original": BEFORE, "bn-after-add": AFTER}
    choice = drawing.choose_beside(runs, BEFORE, AFTER, dataset_info, "bn_placement")
    figure, panels = plt.subplot_mosaic([list(PLACEMENTS), ["final", "final"]], figsize=(8, 7), layout="constrained")
    for block, name in PLACEMENTS.items():
        drawing.draw_nets(panels[block], choice, curves, nets[block], name)
    panels["original"].set_ylabel("error (%)")
    draw_final(panels["final"], choice, nets)
    depths = {config.depth for config in choice.cells}
    drawing.add_legend(figure, {f"{depth} layers": drawing.DEPTH_COLOUR[depth] for depth in DEPTHS if depth in depths})
    figure.suptitle(choice.remark, fontsize="small")
    return figure


def draw_final(axes: Axes, choice: drawing.Choice, nets: Mapping[Block, list[Config]]):
    """Final test errors: every seed a dot, the mean, from MINIMUM seeds on with its 95% interval, published numbers hollow."""
    for block, shift in zip(nets, (-0.12, 0.12), strict=True):
        for place, config in enumerate(nets[block]):
            if config not in choice.cells:
                continue
            errors = choice.cells[config]["test_error"].astype(float)
            ours = estimate(errors)
            bar = [[ours.mean - ours.low], [ours.high - ours.mean]] if ours.n >= MINIMUM else None
            if ours.n > 1:
                axes.plot([place + shift / 3] * ours.n, errors, ".", color=COLOURS[block], alpha=0.6, markersize=5)
            axes.errorbar(place + shift, ours.mean, bar, fmt="o", color=COLOURS[block], capsize=3, label=PLACEMENTS[block])
        if choice.is_full:
            draw_published(axes, block, shift)
    interval = ", 95% interval" if any(len(cell) >= MINIMUM for cell in choice.cells.values()) else ""
    axes.set(
        xticks=range(len(DEPTHS)),
        xticklabels=DEPTHS,
        xlabel="layers",
        ylabel=f"final test error (%)\nseeds, mean{interval}",
    )
    axes.set_xlim(-0.6, len(DEPTHS) - 0.4)
    handles, names = axes.get_legend_handles_labels()
    entries = dict(zip(names, handles, strict=True))  # one of each name
    above = {
        "loc": "lower center",
        "bbox_to_anchor": (0.5, 1.0),
        "ncols": 2,
        "columnspacing": 1.2,
        "handletextpad": 0.3,
    }
    axes.legend(list(entries.values()), list(entries), fontsize="small", frameon=False, **above)


def draw_published(axes: Axes, block: Block, shift: float):
    numbers = published(load_paper(), variant=block, quantity="test error", kind="residual")
    for source, marker in MARKERS.items():
        rows = numbers[(numbers["source"] == source) & (numbers["protocol"] != "no warm-up")]
        places = [DEPTHS.index(int(depth)) + 2 * shift for depth in rows["depth"]]
        axes.plot(places, rows["value"], marker, color=COLOURS[block], fillstyle="none")
        axes.plot([], [], marker, color="0.4", fillstyle="none", label=source)


def main(arguments: Sequence[str]) -> int:
    options = drawing.parse(arguments, __doc__, "bn_placement")
    runs, curves = drawing.load_runs(options)
    drawing.save(draw(runs, curves, options.data_set), options)
    return 0


if __name__ == "__main__":
    run_script(main)
