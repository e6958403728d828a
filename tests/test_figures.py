"""The figures: what is in their axes equals the records, and what must not be drawn is not."""

import importlib
import re
import shlex
import subprocess
import sys
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

from analysis import (
    cli,
    drawing,
    plot_bn_placement,
    plot_confusion,
    plot_degradation,
    plot_layer_responses,
    plot_length,
    plot_optimizer,
)
from analysis.records import load_records
from experiments.lenet import LENET
from reproduce.config import Config
from reproduce.errors import UserError
from tests.fake_records import make_curve, write_cell, write_run

SCRIPTS = {
    "degradation": plot_degradation,
    "bn_placement": plot_bn_placement,
    "optimizer": plot_optimizer,
    "layer_responses": plot_layer_responses,
}


ROOT = Path(__file__).parents[1]
SHOWN = re.findall(
    r"!\[[^]]*\]\((\S+\.svg)\)\n\nDrawn by `python analysis/(plot_\w+)\.py(.*)`",
    (ROOT / "RESULTS.md").read_text(encoding="utf-8"),
)
"""Of every figure of RESULTS.md: the picture, the script that draws it and its flags."""
THIN = 0.5
"""Width of line that single seeds stay below."""


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def drawn(axes: Axes) -> list[Line2D]:
    """What is drawn in the axes' own coordinates, but for the thin lines of single seeds."""
    lines = [line for line in axes.get_lines() if len(np.asarray(line.get_xdata())) > 0]
    return [line for line in lines if line.get_linewidth() > THIN and line.get_transform() == axes.transData]


def xy(line: Line2D) -> tuple[list[float], list[float]]:
    return np.asarray(line.get_xdata()).tolist(), np.asarray(line.get_ydata()).tolist()


def title(figure: Figure) -> str:
    return figure.get_suptitle()


def write_degradation(records: Path, **changes):
    """Plain and residual nets of 20 and 56 layers, three seeds each."""
    for depth, residual, errors, train in (
        (20, False, [9.0, 9.2, 9.4], 4.0),
        (56, False, [13.0, 13.1, 13.2], 8.0),
        (20, True, [8.0, 8.3, 8.6], 2.0),
        (56, True, [6.9, 7.0, 7.1], 0.5),
    ):
        write_cell(records, Config(depth=depth, residual=residual, **changes), errors, train_error=train)


def test_degradation_draws_the_means_of_the_records(tmp_path):
    write_degradation(tmp_path)
    figure = plot_degradation.draw(*load_records(tmp_path))
    plain, residual = figure.axes
    assert (plain.get_title(), residual.get_title()) == ("plain nets", "residual nets")
    assert [len(drawn(axes)) for axes in (plain, residual)] == [4, 4]
    means = {
        (plain, 0): (4.0, 9.2),
        (plain, 1): (8.0, 13.1),
        (residual, 0): (2.0, 8.3),
        (residual, 1): (0.5, 7.0),
    }
    for (axes, net), (train_error, test_error) in means.items():
        train, test = drawn(axes)[2 * net : 2 * net + 2]
        curve = make_curve(64_000, train_error, test_error, 4)
        for line, column in ((train, "train_error"), (test, "test_error")):
            x, y = xy(line)
            assert x == [1.6, 3.2, 4.8, 6.4] and y == pytest.approx([row[column] for row in curve])
        assert train.get_linestyle() == "--" and test.get_linestyle() == "-"
        assert test.get_linewidth() > train.get_linewidth()
        assert train.get_color() == test.get_color() == drawing.DEPTH_COLOUR[(20, 56)[net]]
    assert plain.get_xlim() == (0, 6.4) and plain.get_ylim() == residual.get_ylim() == (0, 20)
    assert plain.get_xlabel() == "iterations (1e4)" and plain.get_ylabel() == "error (%)"
    about = "mean over 3 seeds, band ± one standard deviation; fp32; triangles: the paper's final test errors"
    assert title(figure) == about
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["20 layers", "56 layers", "training error", "test error"]


def test_single_seeds_are_thin_lines_and_the_papers_errors_marks_at_the_edge(tmp_path):
    write_degradation(tmp_path)
    plain, residual = plot_degradation.draw(*load_records(tmp_path)).axes
    thin = [line for line in residual.get_lines() if line.get_linewidth() < THIN]
    assert len(thin) == 2 * 2 * 3 and {xy(line)[1][-1] for line in thin} >= {8.0, 8.3, 8.6}
    marks = [line for line in residual.get_lines() if line.get_marker() == "<"]
    assert [xy(line)[1] for line in marks] == [[8.75], [6.97]] and all(xy(line)[0][0] > 1 for line in marks)
    read_off = [xy(line)[1] for line in plain.get_lines() if line.get_marker() == "<"]
    assert read_off == [[9.25], [13.25]], "the middle of what was read off the plot"


def test_the_band_is_one_standard_deviation_of_the_seeds(tmp_path):
    write_degradation(tmp_path)
    residual = plot_degradation.draw(*load_records(tmp_path)).axes[1]
    band = np.asarray(residual.collections[1].get_paths()[0].vertices)  # test error of 20 layers: 8.0, 8.3, 8.6
    last = band[band[:, 0] == 6.4][:, 1]
    assert last.min() == pytest.approx(8.0) and last.max() == pytest.approx(8.6)


def test_colours_tell_depths_apart():
    assert len(set(drawing.DEPTH_COLOUR.values())) == len(drawing.DEPTH_COLOUR)


def test_a_net_above_the_axis_is_named(tmp_path):
    write_degradation(tmp_path)
    write_cell(tmp_path, Config(depth=110, residual=False), [61.0, 62.0], train_error=60.0)
    plain, residual = plot_degradation.draw(*load_records(tmp_path)).axes
    assert [text.get_text() for text in plain.texts] == ["plain-110: above 20%, not displayed"]
    assert not residual.texts and plain.get_ylim() == (0, 20)


def test_full_runs_are_drawn_and_shortened_ones_left_out(tmp_path):
    write_cell(tmp_path, Config(depth=20), [8.0, 9.0])
    write_cell(tmp_path, Config(depth=20, iterations=1000), [50.0] * 4)
    figure = plot_degradation.draw(*load_records(tmp_path))
    assert len(drawn(figure.axes[1])) == 2 and xy(drawn(figure.axes[1])[1])[1][-1] == pytest.approx(8.5)
    assert "shortened" not in title(figure)


def test_shortened_runs_alone_are_drawn_with_a_warning(tmp_path):
    write_cell(tmp_path, Config(depth=20, iterations=1000), [50.0, 52.0])
    write_cell(tmp_path, Config(depth=32, iterations=60), [88.0])
    figure = plot_degradation.draw(*load_records(tmp_path))
    assert title(figure).startswith("shortened: 1000 of 64000 iterations, not comparable")
    plain, residual = figure.axes
    assert [text.get_text() for text in plain.texts] == ["no runs"]
    x, y = xy(drawn(residual)[1])
    assert x == [250, 500, 750, 1000] and y[-1] == 51 and len(drawn(residual)) == 2
    assert residual.get_ylim()[0] == 0 and residual.get_ylim()[1] > max(y) and residual.get_xlim()[1] > 1000


@pytest.mark.parametrize("change", [{"split": "val"}, {"weight_decay": 0.0}, {"normalization": "channel-mean"}])
def test_a_run_of_another_recipe_is_not_drawn(tmp_path, change):
    write_cell(tmp_path, Config(depth=20, **change), [8.0])
    with pytest.raises(UserError):
        plot_degradation.draw(*load_records(tmp_path))


def test_synthetic_runs_are_drawn_only_when_asked_for(tmp_path):
    write_degradation(tmp_path, dataset="synthetic")
    with pytest.raises(UserError, match="cifar10"):
        plot_degradation.draw(*load_records(tmp_path))
    figure = plot_degradation.draw(*load_records(tmp_path), dataset_info="synthetic")
    assert title(figure).startswith("synthetic data, not comparable") and len(drawn(figure.axes[0])) == 4


def test_precisions_are_not_pooled(tmp_path):
    write_cell(tmp_path, Config(depth=20), [8.0] * 3)
    write_cell(tmp_path, Config(depth=20, precision="bf16"), [9.0] * 5)
    figure = plot_degradation.draw(*load_records(tmp_path))
    assert xy(drawn(figure.axes[1])[1])[1][-1] == 8.0 and "; fp32" in title(figure)
    write_cell(tmp_path, Config(depth=32, precision="bf16"), [7.0])
    figure = plot_degradation.draw(*load_records(tmp_path))
    assert xy(drawn(figure.axes[1])[1])[1][-1] == 9.0 and "; bf16" in title(figure)


def test_runs_without_a_result_are_counted(tmp_path):
    write_degradation(tmp_path)
    write_run(tmp_path, Config(depth=56, residual=False, seed=3), status="diverged")
    write_run(tmp_path, Config(depth=56, seed=3), status="unfinished")
    figure = plot_degradation.draw(*load_records(tmp_path))
    assert "1 diverged not drawn; 1 unfinished not drawn" in title(figure)
    assert xy(drawn(figure.axes[0])[3])[1][-1] == pytest.approx(13.1)


def test_bn_placement_draws_seeds_means_and_published_numbers(tmp_path):
    write_cell(tmp_path, Config(depth=110), [6.5, 6.6, 6.7])
    write_cell(tmp_path, Config(depth=110, block="bn-after-add"), [8.0, 8.2, 8.4])
    figure = plot_bn_placement.draw(*load_records(tmp_path))
    before, after, final = figure.axes
    assert before.get_title() == "BN before the addition" and len(drawn(before)) == len(drawn(after)) == 2
    assert xy(drawn(before)[1])[1][-1] == pytest.approx(6.6) and xy(drawn(after)[1])[1][-1] == pytest.approx(8.2)
    heights = sorted(round(y, 2) for line in drawn(final) for y in xy(line)[1])
    for number in (6.5, 6.6, 6.7, 8.0, 8.2, 8.4, 8.17, 6.61, 8.29, 8.34):  # seeds, means, Identity Mappings, gcr
        assert number in heights
    assert heights.count(6.6) == 2 and 13.56 not in heights, "gcr's runs without warm-up are another experiment"
    half = 4.302653 * 0.2 / 3**0.5
    assert round(8.2 + half, 2) in heights and round(8.2 - half, 2) in heights


def test_the_mean_of_two_seeds_has_no_interval(tmp_path):
    write_cell(tmp_path, Config(depth=110), [6.5, 6.7])
    write_cell(tmp_path, Config(depth=110, block="bn-after-add"), [8.0])
    final = plot_bn_placement.draw(*load_records(tmp_path)).axes[2]
    heights = [round(y, 2) for line in drawn(final) for y in xy(line)[1]]
    assert {6.5, 6.6, 6.7, 8.0} <= set(heights) and not [y for y in heights if y < 6.5]


def test_shortened_bn_placement_stands_alone(tmp_path):
    write_cell(tmp_path, Config(depth=20, iterations=1000), [50.0])
    with pytest.raises(UserError, match="bn_placement"):
        plot_bn_placement.draw(*load_records(tmp_path))  # the baseline alone is no comparison
    write_cell(tmp_path, Config(depth=20, iterations=1000, block="bn-after-add"), [51.0])
    final = plot_bn_placement.draw(*load_records(tmp_path)).axes[2]
    assert sorted(y for line in drawn(final) for y in xy(line)[1]) == [50.0, 51.0]


@pytest.mark.parametrize("draw", [plot_bn_placement.draw, plot_optimizer.draw])
def test_a_shortened_comparison_is_drawn_beside_its_own_baseline(tmp_path, draw):
    """Not beside a longer one, one in another precision, or one of a net that it does not have."""
    others = [Config(block="bn-after-add"), Config(optimizer="adam")]
    for config in others:
        write_cell(tmp_path, replace(config, iterations=1000, precision="bf16"), [51.0])
    write_cell(tmp_path, Config(iterations=1000, precision="bf16"), [50.0])
    write_cell(tmp_path, Config(iterations=1000), [49.0] * 3)
    write_cell(tmp_path, Config(), [8.0])
    figure = draw(*load_records(tmp_path))
    assert "shortened: 1000 of 64000 iterations" in title(figure) and "bf16" in title(figure)
    curves = [line for axes in figure.axes[:2] for line in drawn(axes)]
    assert sorted(xy(line)[1][-1] for line in curves if line.get_linestyle() == "-") == [50.0, 51.0]


def test_optimizers_without_a_baseline_and_on_pictures_do_no_harm(tmp_path):
    write_cell(tmp_path, Config(), [8.0])
    write_cell(tmp_path, Config(optimizer="adam", iterations=3200), [20.0])
    write_cell(tmp_path, Config(depth=56, residual=False, optimizer="adam"), [14.0])
    write_cell(tmp_path, Config(optimizer="adam", dataset="pictures", classes="a/b", pictures="0" * 64), [14.0])
    assert [axes.get_title() for axes in plot_optimizer.draw(*load_records(tmp_path)).axes] == ["plain-56"]


def test_errors_are_drawn_against_the_length_of_training(tmp_path):
    for length, error in ((3200, 20.0), (16_000, 10.0), (64_000, 8.0)):
        write_cell(tmp_path, Config(iterations=length), [error, error + 1])
    write_cell(tmp_path, Config(depth=56, residual=False, iterations=3200), [60.0])
    write_cell(tmp_path, Config(depth=32, iterations=3200), [50.0])
    axes = plot_length.draw(load_records(tmp_path)[0]).axes[0]
    lines = {str(line.get_label()): xy(line) for line in axes.get_lines() if not str(line.get_label()).startswith("_")}
    assert lines["ResNet-20"] == ([3200, 16_000, 64_000], [20.5, 10.5, 8.5]) and lines["plain-56"] == ([3200], [60.0])
    assert axes.get_xscale() == "log"
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(UserError, match="no finished run"):
        plot_length.draw(load_records(empty)[0])


def test_optimizers_share_a_panel_per_net(tmp_path):
    for net in (Config(depth=20), Config(depth=56, residual=False), Config(depth=32, augment=False), Config(depth=44)):
        write_cell(tmp_path, net, [8.0, 8.2])
        if net.depth != 44:
            write_cell(tmp_path, replace(net, optimizer="adam", lr=1e-3), [9.0, 9.4])
    write_cell(tmp_path, Config(optimizer="adamw", lr=3e-3), [8.8])
    write_cell(tmp_path, Config(optimizer="adamw", lr=0.03, split="val"), [8.7])
    figure = plot_optimizer.draw(*load_records(tmp_path))
    panels = {axes.get_title(): axes for axes in figure.axes}
    assert list(panels) == ["ResNet-20", "plain-56", "ResNet-32, no augmentation"]
    assert [len(drawn(axes)) for axes in panels.values()] == [6, 4, 4]
    assert [xy(line)[1][-1] for line in drawn(panels["ResNet-20"])[1::2]] == pytest.approx([8.1, 9.2, 8.8])
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["SGD 0.1", "Adam 0.001", "AdamW 0.003", "training error", "test error"]
    sgd = {axes: drawn(axes)[0].get_color() for axes in panels.values()}
    assert len(set(sgd.values())) == 1


def test_any_number_of_optimizers_has_a_colour_each(tmp_path):
    write_cell(tmp_path, Config(), [8.0])
    for step in range(1, 12):
        write_cell(tmp_path, Config(optimizer="adam", lr=step * 1e-3), [9.0 + step / 10])
    axes = plot_optimizer.draw(*load_records(tmp_path)).axes[0]
    assert len({line.get_color() for line in drawn(axes)}) == 12


def test_an_optimizer_above_the_axis_is_drawn_nevertheless(tmp_path):
    write_cell(tmp_path, Config(depth=32, augment=False), [12.5])
    write_cell(tmp_path, Config(depth=32, augment=False, optimizer="adam"), [39.0])
    write_cell(tmp_path, Config(depth=32, augment=False, optimizer="adamw"), [14.0])
    axes = plot_optimizer.draw(*load_records(tmp_path)).axes[0]
    assert axes.get_ylim()[1] > 39 and not axes.texts and len(drawn(axes)) == 6


def test_layer_responses_in_order_and_ranked(tmp_path):
    rising = [(layer + 1) / 10 for layer in range(19)]
    write_run(tmp_path, Config(depth=20), responses=rising)
    write_run(tmp_path, Config(depth=20, seed=1), responses=[2 * std for std in rising])
    write_run(tmp_path, Config(depth=20, residual=False), responses=[3.0] * 19)
    write_run(tmp_path, Config(depth=32), responses=[1.0] * 31)  # not in the paper's figure
    figure = plot_layer_responses.draw(load_records(tmp_path)[0])
    above, below = figure.axes
    mean = [1.5 * std for std in rising]
    (plain, residual), (_, ranked) = drawn(above), drawn(below)
    assert xy(residual) == ([*range(1, 20)], pytest.approx(mean))
    assert xy(ranked)[1] == pytest.approx(mean[::-1])
    assert plain.get_linestyle() == "--" and residual.get_linestyle() == "-" and xy(plain)[1] == [3.0] * 19
    assert plain.get_color() == residual.get_color()
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["plain-20", "ResNet-20"]


def test_shortened_runs_are_drawn_when_asked_for(tmp_path):
    write_cell(tmp_path, Config(depth=20), [8.0])
    write_cell(tmp_path, Config(depth=20, iterations=60), [88.0])
    flags = ["--records", str(tmp_path), "--iterations"]
    runs, curves = drawing.load_runs(drawing.parse([*flags, "60"], "", "degradation"))
    figure = plot_degradation.draw(runs, curves)
    assert title(figure).startswith("shortened: 60 of 64000") and xy(drawn(figure.axes[1])[1])[1][-1] == 88.0
    with pytest.raises(UserError, match="has 61 iterations; there are: 60, 64000$"):
        drawing.load_runs(drawing.parse([*flags, "61"], "", "degradation"))


# The commands ---------------------------------------------------------------------------------------------------------


def write_all(records: Path):
    write_degradation(records)
    write_cell(records, Config(depth=20, block="bn-after-add"), [8.4])
    write_cell(records, Config(depth=20, optimizer="adam"), [9.4])


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_writes_the_same_svg_twice(tmp_path, name):
    write_all(tmp_path / "records")
    contents = []
    for output in (tmp_path / "first" / name, tmp_path / "second" / f"{name}.v2"):
        assert SCRIPTS[name].main(["--records", str(tmp_path / "records"), "--output", str(output)]) == 0
        assert sorted(path.name for path in output.parent.iterdir()) == [f"{output.name}.png", f"{output.name}.svg"]
        contents.append(output.with_name(output.name + ".svg").read_bytes())
        pixels = plt.imread(output.with_name(output.name + ".png"))
        assert pixels.shape[1] == 1600 and (pixels[..., :3] < 0.9).mean() > 0.01
    assert contents[0] == contents[1] and b"<dc:date>" not in contents[0]


def test_a_name_with_a_suffix_is_one_picture(tmp_path, capsys):
    write_all(tmp_path / "records")
    output = tmp_path / "figure.pdf"
    plot_degradation.main(["--records", str(tmp_path / "records"), "--output", str(output)])
    assert output.read_bytes().startswith(b"%PDF") and len(list(tmp_path.iterdir())) == 2
    assert capsys.readouterr().out == f"{output}\n"


def complain(monkeypatch, capsys, name: str, *arguments: str) -> str:
    """What a script says that ends with exit status 2: one line on stderr and nothing else."""
    monkeypatch.setattr(sys, "argv", [f"plot_{name}.py", *arguments])
    with pytest.raises(SystemExit) as ending:
        cli.run_script(SCRIPTS[name].main)
    out, err = capsys.readouterr()
    assert ending.value.code == 2 and out == "" and err.startswith("error: ") and err.count("\n") == 1
    return err


@pytest.mark.parametrize("name", SCRIPTS)
def test_without_records_a_script_names_the_command_that_makes_them(tmp_path, monkeypatch, capsys, name):
    output = tmp_path / "figures" / name
    (tmp_path / "none").mkdir()
    said = complain(monkeypatch, capsys, name, "--records", str(tmp_path / "none"), "--output", str(output))
    experiment = {"layer_responses": "degradation"}.get(name, name)
    assert f"python experiments/sweep.py {experiment}" in said and not output.parent.exists()


@pytest.mark.parametrize(
    "arguments", [["--color", "red"], ["--data-set", "imagenet"], ["--output"], ["stray"], ["--iterations", "x"]]
)
def test_wrong_use_is_one_sentence(monkeypatch, capsys, arguments):
    complain(monkeypatch, capsys, "degradation", *arguments)


def test_a_damaged_record_is_one_sentence(tmp_path, monkeypatch, capsys):
    folder = write_run(tmp_path, Config())
    (folder / "result.json").write_text("{")
    assert str(folder) in complain(monkeypatch, capsys, "degradation", "--records", str(tmp_path))


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path, monkeypatch, capsys):
    write_all(tmp_path / "records")
    (tmp_path / "file").write_text("")
    output = str(tmp_path / "file" / "figure")
    complain(monkeypatch, capsys, "degradation", "--records", str(tmp_path / "records"), "--output", output)


def test_the_script_runs_by_its_path(tmp_path):
    write_all(tmp_path / "records")
    script = Path(plot_degradation.__file__)
    flags = ["--records", str(tmp_path / "records"), "--output", str(tmp_path / "figure.svg")]
    done = subprocess.run([sys.executable, str(script), *flags], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "") and (tmp_path / "figure.svg").stat().st_size > 10_000


def read_svg(path: Path) -> tuple[list[str], np.ndarray]:
    """What is written in a picture, and the numbers of all that is drawn."""
    content = path.read_text(encoding="utf-8")
    drawn = " ".join(re.findall(r'\b(?:d|x|y|transform)="([^"]*)"', content))
    return re.findall("<!-- (.*?) -->", content), np.array(re.findall(r"-?[\d.]+", drawn), dtype=float)


@pytest.mark.parametrize("picture, script, flags", SHOWN)
def test_the_figures_of_the_results_are_those_of_the_records(tmp_path, monkeypatch, picture, script, flags):
    if f"Matplotlib v{matplotlib.__version__}," not in (ROOT / picture).read_text(encoding="utf-8"):
        pytest.skip(f"{picture} was drawn with another version of matplotlib")
    monkeypatch.chdir(ROOT)
    importlib.import_module(f"analysis.{script}").main([*shlex.split(flags), "--output", str(tmp_path / "drawn.svg")])
    (texts, numbers), (shown_texts, shown) = read_svg(tmp_path / "drawn.svg"), read_svg(ROOT / picture)
    assert texts == shown_texts and len(numbers) == len(shown) and np.allclose(numbers, shown, atol=0.01), (
        f"{picture} is out of date: run python analysis/{script}.py{flags}"
    )


def test_every_figure_of_the_results_is_compared_with_the_records():
    assert {Path(picture).name for picture, _, _ in SHOWN} == {path.name for path in ROOT.glob("analysis/figures/*.svg")}


# Confusions -----------------------------------------------------------------------------------------------------------


def test_confusions_are_summed_over_the_seeds(tmp_path):
    write_cell(tmp_path, LENET, [2.0, 3.0])
    write_cell(tmp_path, replace(LENET, precision="bf16"), [4.0])
    axes = plot_confusion.draw(load_records(tmp_path)[0]).axes[0]
    written = [int(text.get_text()) for text in axes.texts]
    assert sum(written) == 20_000 and sum(written[::11]) == 19_500 and "2 runs in fp32; error 2.50%" in axes.get_title()
    with pytest.raises(UserError, match=r"sweep\.py lenet"):
        write_cell(tmp_path / "other", Config(), [8.0])
        plot_confusion.draw(load_records(tmp_path / "other")[0])
