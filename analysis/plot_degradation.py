"""Fig. 6: training and test error over the iterations, plain nets beside residual nets.

    python analysis/plot_degradation.py

draws the finished full-length runs below --records to analysis/figures/degradation.svg and .png.
"""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from analysis import drawing
from analysis.command import end
from experiments.degradation import DEPTHS, PLAIN, RESIDUAL


def draw(runs: pd.DataFrame, curves: pd.DataFrame, data_set: str = "cifar10") -> Figure:
    """The figure: plain | residual, one colour per depth.

    Raises:
        UserError: there is no run to draw.
    """
    choice = drawing.choose(runs, PLAIN + RESIDUAL, data_set, "degradation")
    figure, panels = plt.subplots(1, 2, figsize=(8, 3.8), sharey=True, layout="constrained")
    for title, configs, axes in zip(("plain nets", "residual nets"), (PLAIN, RESIDUAL), panels, strict=True):
        drawing.draw_nets(axes, choice, curves, configs, title)
    panels[0].set_ylabel("error (%)")
    depths = {config.depth for config in choice.cells}
    drawing.add_legend(figure, {f"{depth} layers": drawing.DEPTH_COLOUR[depth] for depth in DEPTHS if depth in depths})
    figure.suptitle(choice.remark, fontsize="small")
    return figure


def main(arguments: Sequence[str]) -> int:
    options = drawing.parse(arguments, __doc__, "degradation")
    runs, curves = drawing.load_runs(options)
    drawing.save(draw(runs, curves, options.data_set), options)
    return 0


if __name__ == "__main__":
    end(main)
