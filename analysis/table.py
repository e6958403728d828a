"""Write RESULTS.md and the table in README.md from the run folders.

    python analysis/table.py            writes both
    python analysis/table.py --check    writes nothing; exit status 1 and the names of the files that are out of date

The text of RESULTS.md stands in analysis/template.md, its tables come from sections.py. README.md is changed only
between the lines <!-- results:begin --> and <!-- results:end -->.
"""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from string import Template
from typing import Any

import pandas as pd

from analysis import sections
from analysis.claims import TOLERANCE
from analysis.command import Parser, end
from analysis.estimates import MINIMUM, NEUTRAL_WITHIN
from analysis.records import HE, comparable, finished, load, load_paper, optimizer_settings, published, select
from analysis.speed import list_throughput, load_throughput
from analysis.verdicts import VERDICTS, Verdict, judge_all
from analysis.wording import write_estimates, write_number, write_runs, write_table
from reproduce.config import PAPER_ITERATIONS, Config, UserError
from reproduce.record import read_weights_header

PREVIEW = PAPER_ITERATIONS // 20
"""Iterations of the shortened runs whose figure RESULTS.md shows."""
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"


def write_results(runs: pd.DataFrame, throughput: Sequence[dict[str, Any]], verdicts: Sequence[Verdict], link: str) -> str:
    """RESULTS.md. `link` is where the run folders are, seen from there."""
    full = comparable(runs)
    blocks = [Config(depth=depth, block=block) for depth in sections.BLOCK_DEPTHS for block in sections.BLOCKS[2:]]
    others = [config for settings in optimizer_settings(full).values() for config in settings[1:]]
    text = Template(Path(__file__).with_name("template.md").read_text(encoding="utf-8")).substitute(
        records_folder=f"[{link}]({link})",
        how_it_was_run=sections.describe_sessions(runs),
        throughput=list_throughput(throughput),
        precisions=sections.compare_precisions(full),
        neutral_within=NEUTRAL_WITHIN,
        table_6=sections.side_by_side(full, sections.RESIDUAL),
        table_6_runs=write_runs(full, sections.RESIDUAL, link),
        plain_nets=sections.side_by_side(full, sections.PLAIN),
        plain_nets_runs=write_runs(full, sections.PLAIN, link),
        bn_placement=sections.compare_bn_placement(full),
        bn_placement_runs=write_runs(full, sections.AFTER, link),
        block_designs=sections.compare_block_designs(full),
        block_designs_runs=write_runs(full, blocks, link),
        optimizers=sections.compare_optimizers(full, link),
        optimizers_published=sections.list_published_optimizers(),
        warmups=sections.compare_warmups(full, link),
        layer_responses=sections.compare_layer_responses(full),
        # The ledger compares our own runs: there, and only there, the 45,000 images of --split val count.
        ledger=sections.write_ledger(runs, link),
        minimum=MINIMUM,
        tolerance=TOLERANCE,
        claims=sections.list_claims(verdicts),
        shortened=sections.list_shortened(runs, link),
        without_result=sections.list_without_result(runs),
        figure_degradation=show_figure(full, sections.RESIDUAL[:5] + sections.PLAIN, "degradation"),
        figure_shortened=show_figure(runs, sections.RESIDUAL[:5] + sections.PLAIN, "degradation", PREVIEW),
        figure_bn_placement=show_figure(full, sections.AFTER, "bn_placement"),
        figure_optimizer=show_figure(full, others, "optimizer"),
        figure_layer_responses=show_figure(full, sections.RESIDUAL[:5] + sections.PLAIN, "layer_responses"),
        **sections.measure_effects(runs),
    )
    return text


def show_figure(runs: pd.DataFrame, nets: Sequence[Config], name: str, iterations: int = PAPER_ITERATIONS) -> str:
    """The picture where there are runs to draw it from, else the command that will draw it."""
    drawn_by, picture = f"python analysis/plot_{name}.py", f"analysis/figures/{name}"
    if iterations != PAPER_ITERATIONS:
        picture += f"_{iterations}"
        drawn_by += f" --iterations {iterations} --output {picture}"
    if any(len(finished(select(runs, replace(net, iterations=iterations)))) for net in nets):
        return f"![{name.replace('_', ' ')}]({picture}.svg)\n\nDrawn by `{drawn_by}`."
    return f"`{drawn_by}` draws the figure once there are runs."


def list_weights(runs: pd.DataFrame, folder: Path) -> str:
    """The published weights files and the test error that their runs' records give.

    Raises:
        UserError: a file is not by reproduce/export.py, or the record of its run is not there.
    """
    rows = []
    for path in sorted(folder.glob("*.safetensors")):
        run = read_weights_header(path)[0].folder
        found = finished(runs[runs["folder"] == str(run)])
        if found.empty:
            raise UserError(f"{path} is of {run}, which has no finished record: add the record or remove the file")
        row = found.iloc[0]
        card = f"[{path.stem}](weights/{path.stem}.md)"
        rows.append([card, f"{row['test_error']:.2f}", f"{row['iterations']:,}", row["precision"], f"`{run}`"])
    if not rows:
        return "No trained weights are published yet: they come with the runs of full length."
    return write_table(["weights", "test error", "iterations", "precision", "record"], rows)


def write_summary(runs: pd.DataFrame, verdicts: Sequence[Verdict], weights: Path) -> str:
    """README.md's block: Table 6 and the plain nets, the paper beside ours, how many claims came out, and the weights."""
    full = comparable(runs)
    numbers = published(load_paper(), source=HE, quantity="test error")
    paper = {(row["kind"], row["depth"]): write_number(row) for _, row in numbers.iterrows()}
    rows = []
    for residual, plain in zip(sections.RESIDUAL[:5], sections.PLAIN, strict=True):
        errors = []
        for kind, net in (("residual", residual), ("plain", plain)):
            errors += [paper[kind, net.depth], write_estimates(select(full, net))]
        rows.append([residual.depth, *errors])
    header = ["layers", "residual, paper", "residual, ours", "plain, paper", "plain, ours"]
    counts = Counter(verdict.verdict for verdict in verdicts)
    claims = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS)
    basis = "" if len(finished(full)) else " No full-length run is recorded yet."
    return (
        f"{write_table(header, rows)}\n\n"
        "Test error in % at the last of 64,000 iterations: mean ± standard deviation (n seeds), precision. The paper's "
        f"plain nets are read off its Fig. 6.{basis} Claims: {claims}. Peers, rules, commands and records are in "
        f"[RESULTS.md](RESULTS.md).\n\n{list_weights(runs, weights)}"
    )


def replace_block(readme: str, block: str, name: str) -> str:
    """The README with another text between the markers.

    Raises:
        UserError: it does not have each marker once, in order.
    """
    if readme.count(BEGIN) != 1 or readme.count(END) != 1 or readme.index(BEGIN) > readme.index(END):
        raise UserError(f"{name} needs the line {BEGIN} and after it the line {END}, once each: the table goes between them")
    before, _, rest = readme.partition(BEGIN)
    return f"{before}{BEGIN}\n{block}\n{END}{rest.partition(END)[2]}"


def main(arguments: Sequence[str]) -> int:
    """Returns 0, or 1 where --check finds a file out of date.

    Raises:
        UserError, OSError: what the caller turns into a sentence and exit status 2.
    """
    parser = Parser(__doc__)
    parser.add_argument("--results", type=Path, default=Path("RESULTS.md"), help="file to write (RESULTS.md)")
    parser.add_argument("--readme", type=Path, default=Path("README.md"), help="file whose block to write (README.md)")
    parser.add_argument("--check", action="store_true", help="write nothing, fail if a file is out of date")
    parser.add_argument("--weights", type=Path, default=Path("weights"), help="folder of the published weights (weights)")
    options = parser.parse_args(list(arguments))
    runs, _ = load(options.records)
    verdicts = judge_all(runs)
    link = Path(os.path.relpath(options.records, options.results.parent)).as_posix()
    readme = options.readme.read_text(encoding="utf-8")
    wanted = {
        options.results: write_results(runs, load_throughput(options.records), verdicts, link),
        options.readme: replace_block(readme, write_summary(runs, verdicts, options.weights), options.readme.name),
    }
    if options.check:
        stale = [path for path, text in wanted.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
        for path in stale:
            print(f"{path} is out of date: run python analysis/table.py")
        return 1 if stale else 0
    for path, text in wanted.items():
        path.write_text(text, encoding="utf-8")
        print(path)
    return 0


if __name__ == "__main__":
    end(main)
