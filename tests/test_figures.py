"""The figures: what they draw equals the records, and the committed ones are up to date."""

import importlib
import re
from dataclasses import replace
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from analysis import drawing, plot_confusion, plot_degradation
from analysis.questions.length import NETS, format_section
from analysis.records import load_records
from experiments.lenet import LENET
from reproduce.config import Config
from reproduce.errors import UserError
from tests.fake_records import make_curve, write_run, write_seeds

SCRIPTS = {
    name: importlib.import_module(f"analysis.plot_{name}")
    for name in ("degradation", "bn_placement", "optimizer", "layer_responses", "length", "warmup")
}
COMMITTED = sorted(drawing.FIGURES.glob("*.svg"))


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def draw(name: str, records: Path) -> Figure:
    return SCRIPTS[name].draw(*load_records(records))


def lines(axes: Axes) -> list[Line2D]:
    """Return the lines that show data, without the empty ones made for the legend."""
    return [line for line in axes.get_lines() if len(np.asarray(line.get_xdata()))]


def xy(line: Line2D) -> tuple[list[float], list[float]]:
    return np.asarray(line.get_xdata()).tolist(), np.asarray(line.get_ydata()).tolist()


def ends(axes: Axes, style: str = "-") -> list[float]:
    """Return the last value of every line in a style: of test errors by default."""
    return [xy(line)[1][-1] for line in lines(axes) if line.get_linestyle() == style]


def legend(axes: Axes) -> list[str]:
    box = axes.get_legend()
    assert box is not None
    return [text.get_text() for text in box.get_texts()]


def write_degradation(records: Path):
    """Write plain and residual nets of 20 and 56 layers, three seeds each."""
    write_seeds(records, Config(depth=20, residual=False), [9.0, 9.2, 9.4], train_error=4.0)
    write_seeds(records, Config(depth=56, residual=False), [13.0, 13.1, 13.2], train_error=8.0)
    write_seeds(records, Config(depth=20), [8.0, 8.3, 8.6], train_error=2.0)
    write_seeds(records, Config(depth=56), [6.9, 7.0, 7.1], train_error=0.5)


def test_degradation_draws_means_in_bands_of_one_standard_deviation(tmp_path):
    write_degradation(tmp_path)
    figure = draw("degradation", tmp_path)
    plain, residual = figure.axes
    assert ends(plain) == pytest.approx([9.2, 13.1]) and ends(residual) == pytest.approx([8.3, 7.0])
    assert ends(plain, "--") == [4.0, 8.0] and ends(residual, "--") == [2.0, 0.5]
    curve = make_curve(64_000, 2.0, 8.3, 4)
    train, test = lines(residual)[:2]
    for line, column in ((train, "train_error"), (test, "test_error")):
        assert xy(line) == ([16_000, 32_000, 48_000, 64_000], pytest.approx([getattr(row, column) for row in curve]))
    assert train.get_color() == test.get_color() == drawing.DEPTH_COLOR[20]
    band = np.asarray(residual.collections[1].get_paths()[0].vertices)  # test error of 20 layers: 8.0, 8.3, 8.6
    assert {round(y, 6) for x, y in band if x == 64_000} == {8.0, 8.6}
    assert plain.get_xlim() == (0, 64_000) and plain.get_ylim() == residual.get_ylim() == (0, 20)
    assert legend(plain) == legend(residual) == ["20 layers (n=3)", "56 layers (n=3)"]


def test_the_papers_errors_do_not_overlap_and_plot_readings_are_hollow(tmp_path):
    write_degradation(tmp_path)
    places = []
    for panel, errors, fill in zip(
        draw("degradation", tmp_path).axes, ([9.25, 13.25], [8.75, 6.97]), ("none", "full"), strict=True
    ):
        marks = [line for line in panel.child_axes[0].get_lines() if line.get_marker() == "o"]
        assert [xy(line)[1][0] for line in marks] == errors and {line.get_fillstyle() for line in marks} == {fill}
        places.append([xy(line)[0][0] for line in marks])
    assert places[0] == places[1] and len(set(places[0])) == 2


def test_only_full_length_finished_runs_in_one_precision_are_drawn(tmp_path):
    write_seeds(tmp_path, Config(depth=20), [8.0, 9.0])
    write_seeds(tmp_path, Config(depth=20, iterations=1000), [50.0] * 4)
    write_seeds(tmp_path, Config(depth=20, precision="bf16"), [7.0])
    write_run(tmp_path, Config(depth=20, seed=2), status="diverged")
    write_run(tmp_path, Config(depth=20, seed=3), status="unfinished")
    figure = draw("degradation", tmp_path)
    residual = figure.axes[1]
    assert sorted(ends(residual)) == [8.0, 9.0] and legend(residual) == ["20 layers (n=2)"]
    assert not residual.collections, "no band for fewer than three runs"
    header = figure.get_suptitle().replace("\n", " ")
    assert header.startswith("fp32; each line is one run") and header.endswith("; 1 diverged not drawn; 1 unfinished not drawn")


def test_a_net_above_the_axis_is_named(tmp_path):
    write_degradation(tmp_path)
    write_seeds(tmp_path, Config(depth=110, residual=False), [61.0, 62.0], train_error=60.0)
    plain, residual = draw("degradation", tmp_path).axes
    assert [text.get_text() for text in plain.texts] == ["110 layers: test error above 20%"]
    assert not residual.texts and plain.get_ylim() == (0, 20)


def test_a_diverged_network_is_not_called_not_run(tmp_path):
    write_degradation(tmp_path)
    write_run(tmp_path, Config(depth=110, residual=False), status="diverged")
    header = draw("degradation", tmp_path).get_suptitle().replace("\n", " ")
    assert header.endswith("; not run: plain-32/44, ResNet-32/44/110; 1 diverged not drawn")


def test_other_depths_are_drawn_and_missing_networks_are_named(tmp_path):
    write_seeds(tmp_path, Config(depth=26, iterations=500), [30.0])
    write_seeds(tmp_path, Config(depth=8, iterations=500), [40.0])
    figure = draw("degradation", tmp_path)
    assert legend(figure.axes[1]) == ["8 layers (n=1)", "26 layers (n=1)"]
    assert len({line.get_color() for line in lines(figure.axes[1])}) == 2
    header = figure.get_suptitle().replace("\n", " ")
    assert "not run: plain-20/32/44/56/110, ResNet-20/32/44/56/110" in header


def test_a_residual_network_deeper_than_those_of_fig_6_is_drawn(tmp_path):
    write_seeds(tmp_path, Config(depth=20), [8.5])
    write_seeds(tmp_path, Config(depth=1202), [7.9])
    plain, residual = draw("degradation", tmp_path).axes
    assert legend(residual) == ["20 layers (n=1)", "1202 layers (n=1)"] and sorted(ends(residual)) == [7.9, 8.5]
    (paper,) = residual.child_axes
    assert isinstance(paper, Axes)
    assert [y for line in lines(paper) for y in set(xy(line)[1])] == [8.75] * 2, "a line of no length and its marker"


def test_the_header_fits_into_the_figure(tmp_path):
    write_seeds(tmp_path, Config(depth=110, iterations=500), [30.0])
    write_run(tmp_path, Config(iterations=500), status="diverged")
    figure = draw("bn_placement", tmp_path)
    (header,) = (text for text in figure.texts if text.get_text() == figure.get_suptitle())
    figure.draw_without_rendering()
    box = header.get_window_extent()
    assert "not run" in header.get_text() and box.x0 >= 0 and box.x1 <= figure.bbox.x1


def test_shortened_runs_are_drawn_with_a_warning(tmp_path):
    write_seeds(tmp_path, Config(depth=20, iterations=1000), [50.0, 52.0])
    write_seeds(tmp_path, Config(depth=20, residual=False, iterations=1000), [70.0])
    write_seeds(tmp_path, Config(depth=32, iterations=60), [88.0])
    figure = draw("degradation", tmp_path)
    assert figure.get_suptitle().startswith("1,000 of 64,000 iterations, not comparable with the paper")
    assert [ends(axes) for axes in figure.axes] == [[70.0], [50.0, 52.0]] and not figure.axes[0].child_axes
    assert all(axes.get_ylim()[1] > 80 for axes in figure.axes), "the first evaluations are in view"


def test_bn_placement_draws_runs_intervals_and_every_published_pair(tmp_path):
    write_seeds(tmp_path, Config(depth=110), [6.5, 6.6, 6.7])
    write_seeds(tmp_path, Config(depth=110, block="bn-after-add"), [8.0, 8.2, 8.4])
    before, after, final = draw("bn_placement", tmp_path).axes
    assert ends(before) == pytest.approx([6.6]) and ends(after) == pytest.approx([8.2])
    heights = {round(y, 2) for line in lines(final) for y in xy(line)[1]}
    half = 4.302653 * 0.2 / 3**0.5
    assert heights >= {6.5, 6.6, 6.7, 8.0, 8.2, 8.4, round(8.2 + half, 2), round(8.2 - half, 2)}
    assert heights >= {8.17, 6.61, 8.29, 8.34, 6.97, 13.56}, "Identity Mappings; gcr at 20 and at 110"
    assert any(text.get_text().startswith("13.56") for text in final.texts), "above the axis, so printed"


def test_optimizers_have_a_panel_per_net(tmp_path):
    for net in (Config(depth=20), Config(depth=56, residual=False), Config(depth=32, augment=False), Config(depth=44)):
        write_seeds(tmp_path, net, [8.0])
        if net.depth != 44:
            write_seeds(tmp_path, replace(net, optimizer="adam", lr=1e-3), [9.0])
    write_seeds(tmp_path, Config(optimizer="adamw", lr=3e-3), [8.8])
    write_seeds(tmp_path, Config(optimizer="adamw", lr=0.03, split="val"), [8.7])
    write_seeds(tmp_path, Config(optimizer="adam", dataset="pictures", classes="a/b", pictures="0" * 64), [14.0])
    panels = {axes.get_title(): axes for axes in draw("optimizer", tmp_path).axes}
    assert list(panels) == ["ResNet-20", "plain-56", "ResNet-32 without augmentation"]
    assert [ends(axes) for axes in panels.values()] == [[8.0, 9.0, 8.8], [8.0, 9.0], [8.0, 9.0]]
    assert legend(panels["ResNet-20"]) == ["SGD, lr 0.1 (n=1)", "Adam, lr 0.001 (n=1)", "AdamW, lr 0.003 (n=1)"]
    assert len({lines(axes)[0].get_color() for axes in panels.values()}) == 1, "SGD has one color"


def test_sgd_alone_is_no_comparison(tmp_path):
    write_seeds(tmp_path, Config(), [8.0])
    write_run(tmp_path, Config(optimizer="adam"), status="diverged")
    with pytest.raises(UserError, match="sweep.py optimizer"):
        draw("optimizer", tmp_path)


def test_an_optimizer_above_20_percent_is_drawn(tmp_path):
    write_seeds(tmp_path, Config(depth=32, augment=False), [12.5])
    write_seeds(tmp_path, Config(depth=32, augment=False, optimizer="adam"), [39.0])
    axes = draw("optimizer", tmp_path).axes[0]
    assert axes.get_ylim()[1] > 39 and not axes.texts


def test_layer_responses_in_network_order_and_sorted(tmp_path):
    rising = [(layer + 1) / 10 for layer in range(19)]
    for seed in range(3):
        write_run(tmp_path, Config(depth=20, seed=seed), responses=[(seed + 1) * std for std in rising])
    write_run(tmp_path, Config(depth=20, residual=False), responses=[3.0] * 19)
    write_run(tmp_path, Config(depth=32), responses=[1.0] * 31)  # not in the paper's figure
    original, ranked = draw("layer_responses", tmp_path).axes
    (plain, residual), (_, in_order) = lines(original), lines(ranked)
    assert xy(residual) == ([*range(1, 20)], pytest.approx([2 * std for std in rising]))
    assert xy(in_order)[1] == pytest.approx([2 * std for std in rising[::-1]])
    assert (plain.get_linestyle(), residual.get_linestyle()) == ("--", "-") and xy(plain)[1] == [3.0] * 19
    assert original.get_xlim() == (0, 20) and legend(original) == ["plain-20 (n=1)", "ResNet-20 (n=3)"]


def test_no_line_crosses_a_length_that_was_not_run(tmp_path):
    for length, error in ((3200, 20.0), (16_000, 10.0), (64_000, 8.0)):
        write_seeds(tmp_path, Config(iterations=length), [error, error + 1])
    for length, error in ((3200, 60.0), (64_000, 15.0)):
        write_seeds(tmp_path, Config(depth=56, residual=False, iterations=length), [error])
    axes = draw("length", tmp_path).axes[0]
    means = {line.get_color(): xy(line)[1] for line in lines(axes) if line.get_marker() == "None"}
    assert means[drawing.DEPTH_COLOR[20]] == [20.5, 10.5, 8.5]
    assert np.isnan(means[drawing.DEPTH_COLOR[56]][1]), "a gap at 16,000"
    assert axes.get_xscale() == axes.get_yscale() == "log"


def test_warmup_draws_the_first_10000_iterations(tmp_path):
    write_run(tmp_path, Config(depth=56), evaluations=64)
    write_run(tmp_path, Config(depth=56, warmup="iterations"), train_error=0.5, evaluations=64)
    axes = draw("warmup", tmp_path).axes[0]
    assert [xy(line)[0] for line in lines(axes)] == [[1000 * (i + 1) for i in range(10)]] * 2
    assert legend(axes) == ["56 layers, no warm-up (n=1)", "56 layers, warm-up (n=1)"]


def test_confusions_are_summed_over_the_seeds(tmp_path):
    write_seeds(tmp_path, LENET, [2.0, 3.0])
    write_seeds(tmp_path, replace(LENET, precision="bf16"), [4.0])
    axes = plot_confusion.draw(*load_records(tmp_path)).axes[0]
    counts = [int(text.get_text()) for text in axes.texts]
    assert sum(counts) == 20_000 and sum(counts[::11]) == 19_500 and "2 runs, error 2.50%" in axes.get_title()
    (tmp_path / LENET.folder / "confusion.csv").unlink()
    assert "1 run, error 3.00%" in plot_confusion.draw(*load_records(tmp_path)).axes[0].get_title()


def test_the_figure_of_lengths_is_in_the_precision_of_its_section(tmp_path):
    for net in NETS:
        write_seeds(tmp_path, net, [8.0, 8.1, 8.2])
        write_seeds(tmp_path, replace(net, precision="bf16"), [8.0])
        write_seeds(tmp_path, replace(net, precision="bf16", iterations=3200), [20.0])
    runs, curves = load_records(tmp_path)
    assert "Test error in %, fp32" in format_section(runs, curves)
    axes = draw("length", tmp_path).axes[0]
    assert axes.get_title().startswith("fp32") and list(axes.get_xticks()) == [64_000]


def test_lengths_are_compared_without_a_full_length_run(tmp_path):
    write_seeds(tmp_path, replace(NETS[0], precision="bf16", iterations=3200), [20.0])
    runs, curves = load_records(tmp_path)
    assert "Test error in %, bf16" in format_section(runs, curves)
    axes = draw("length", tmp_path).axes[0]
    assert axes.get_title().startswith("bf16") and list(axes.get_xticks()) == [3200]


# Commands -------------------------------------------------------------------------------------------------------------


def test_a_figure_is_written_as_svg_and_png_and_equal_records_give_equal_files(tmp_path, monkeypatch):
    write_degradation(tmp_path / "records")
    monkeypatch.setattr(drawing, "FIGURES", tmp_path / "figures")
    written = [tmp_path / "figures" / f"degradation{suffix}" for suffix in (".svg", ".png")]
    contents = []
    for _ in range(2):
        plot_degradation.main(["--records", str(tmp_path / "records")])
        contents.append([path.read_bytes() for path in written])
    assert contents[0] == contents[1] and b"<dc:date>" not in contents[0][0]
    assert contents[0][0].startswith(b"<?xml") and contents[0][1].startswith(b"\x89PNG")


@pytest.mark.parametrize("name", [*SCRIPTS, "confusion", "transfer"])
def test_without_runs_a_script_names_the_command_that_trains_them(tmp_path, name):
    (tmp_path / "none").mkdir()
    script = importlib.import_module(f"analysis.plot_{name}")
    with pytest.raises(UserError, match=r"python experiments/(sweep\.py \w+|transfer\.py)"):
        script.main(["--records", str(tmp_path / "none"), "--output", str(tmp_path / "figures" / f"{name}.svg")])
    assert not (tmp_path / "figures").exists()


def read_svg(path: Path) -> tuple[list[str], np.ndarray]:
    """Return the texts of a figure, and all its coordinates."""
    content = path.read_text(encoding="utf-8")
    drawn = " ".join(re.findall(r'\b(?:d|x|y|transform)="([^"]*)"', content))
    return re.findall("<!-- (.*?) -->", content), np.array(re.findall(r"-?[\d.]+", drawn), dtype=float)


@pytest.mark.parametrize("committed", COMMITTED, ids=lambda path: path.stem)
def test_committed_figures_match_the_records(tmp_path, monkeypatch, committed):
    if f"Matplotlib v{matplotlib.__version__}," not in committed.read_text(encoding="utf-8"):
        pytest.skip(f"{committed.name} was drawn with another version of matplotlib")
    monkeypatch.chdir(Path(__file__).parents[1])
    importlib.import_module(f"analysis.plot_{committed.stem}").main(["--output", str(tmp_path / "drawn.svg")])
    (texts, numbers), (committed_texts, committed_numbers) = read_svg(tmp_path / "drawn.svg"), read_svg(committed)
    assert texts == committed_texts and len(numbers) == len(committed_numbers)
    assert np.allclose(numbers, committed_numbers, atol=0.01), f"run python analysis/plot_{committed.stem}.py"
