"""Fig. 6: training and test error over the iterations, plain nets beside residual nets.

    python analysis/plot_degradation.py

draws the finished full-length runs below --records to analysis/figures/degradation.svg and .png. Triangles at the right
edge are the paper's final test errors of the nets drawn, those of plain nets read off its plot.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # run this checkout, whatever is installed
from collections.abc import Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from analysis import drawing
from analysis.cli import run_script
from experiments.degradation import DEPTHS, PLAIN, RESIDUAL


def draw(runs: pd.DataFrame, curves: pd.DataFrame, dataset_info: str = "cifar10") -> Figure:
    """The figure: plain | residual, one colour per depth.

    Raises:
        UserError: there is no run to draw.
    """
    choice = drawing.choose(runs, PLAIN + RESIDUAL, dataset_info, "degradation")
    layout = ConstrainedLayoutEngine(rect=(0, 0, 0.985, 1))  # room for what is drawn on the right edge
    figure, panels = plt.subplots(1, 2, figsize=(8, 3.8), sharey=True, layout=layout)
    for title, configs, axes in zip(("plain nets", "residual nets"), (PLAIN, RESIDUAL), panels, strict=True):
        drawing.draw_nets(axes, choice, curves, configs, title)
        for config in configs:
            if choice.is_full and config in choice.cells:
                drawing.mark_published(axes, config)
    panels[0].set_ylabel("error (%)")
    depths = {config.depth for config in choice.cells}
    drawing.add_legend(figure, {f"{depth} layers": drawing.DEPTH_COLOUR[depth] for depth in DEPTHS if depth in depths})
    remark = "; triangles: the paper's final test errors" if choice.is_full else ""
    figure.suptitle(choice.remark + remark, fontsize="small")
    return figure


def main(arguments: Sequence[str]) -> int:
    options = drawing.parse(arguments, __doc__, "degradation")
    runs, curves = drawing.load_runs(options)
    drawing.save(draw(runs, curves, options.data_set), options)
    return 0


if __name__ == "__main__":
    run_script(main)
