"""Write RESULTS.md and the table in README.md from the run folders.

    python analysis/table.py            writes both
    python analysis/table.py --check    writes nothing; exit status 1 and the names of the files that are out of date

The text of RESULTS.md stands in analysis/template.md; its sections come from questions/, sections.py and speed.py.
README.md is changed only between the lines <!-- results:begin --> and <!-- results:end -->.
"""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Any

import pandas as pd

from analysis import sections
from analysis.claims import TOLERANCE, VERDICTS, Verdict, judge_all, list_claims
from analysis.command import Parser, end
from analysis.markdown import show_figure, write_estimates, write_number, write_table
from analysis.paper import HE, load_paper, published
from analysis.questions import QUESTIONS
from analysis.questions.ambiguity import measure_effects
from analysis.records import comparable, finished, load, select
from analysis.sample import MINIMUM
from analysis.speed import list_throughput, load_throughput
from experiments import degradation
from reproduce.config import PAPER_ITERATIONS, UserError
from reproduce.record import read_weights_header

PREVIEW = PAPER_ITERATIONS // 20
"""Iterations of the shortened runs whose figure RESULTS.md shows."""
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"


def write_results(runs: pd.DataFrame, throughput: Sequence[dict[str, Any]], verdicts: Sequence[Verdict], link: str) -> str:
    """RESULTS.md. `link` is where the run folders are, seen from there."""
    return Template(Path(__file__).with_name("template.md").read_text(encoding="utf-8")).substitute(
        records_folder=f"[{link}]({link})",
        how_it_was_run=sections.describe_sessions(runs),
        throughput=list_throughput(throughput),
        questions="\n\n".join(question.write_section(runs, link) for question in QUESTIONS),
        minimum=MINIMUM,
        tolerance=TOLERANCE,
        claims=list_claims(verdicts),
        shortened=sections.list_shortened(runs, link),
        without_result=sections.list_without_result(runs),
        figure_shortened=show_figure(runs, degradation.CONFIGS, "degradation", PREVIEW),
        **measure_effects(runs),
    )


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
    for residual, plain in zip(degradation.RESIDUAL, degradation.PLAIN, strict=True):
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
