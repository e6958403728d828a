"""Write RESULTS.md and the table in README.md from the run folders.

    python analysis/table.py            writes both
    python analysis/table.py --check    writes nothing; exit status 1 and the names of the files that are out of date, and of
                                        figures that they show and that are not there

The text of RESULTS.md stands in analysis/template.md; its sections come from questions/, sections.py and speed.py.
README.md is changed only between the lines <!-- results:begin --> and <!-- results:end -->.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # run this checkout, whatever is installed
import os
import re
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Any

import pandas as pd

from analysis import sections
from analysis.acceptance import describe_acceptance
from analysis.claims import RULES_COMMIT, RULES_DATE, RULES_VERSION, TOLERANCE, Verdict, format_claims, judge_all
from analysis.cli import Parser, run_script
from analysis.estimates import MINIMUM
from analysis.markdown import format_figure
from analysis.power import RATES, TRIALS, format_power
from analysis.questions import QUESTIONS
from analysis.questions.ambiguity import measure_effects
from analysis.records import load_records
from analysis.speed import list_throughput, load_throughput
from analysis.summary import format_readme_block, format_summary
from experiments import degradation
from experiments.devices.acceptance import RECORDS as ACCEPTANCE
from reproduce.config import PAPER_ITERATIONS
from reproduce.errors import UserError

PREVIEW = PAPER_ITERATIONS // 20
"""Iterations of the shortened runs whose figure RESULTS.md shows."""
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"


def write_results(
    runs: pd.DataFrame, throughput: Sequence[dict[str, Any]], acceptance: str, verdicts: Sequence[Verdict], link: str
) -> str:
    """RESULTS.md. `link` is where the run folders are, seen from there; `acceptance` is that section's text."""
    questions = "\n\n".join(question.format_section(runs, link) for question in QUESTIONS)
    return Template(Path(__file__).with_name("template.md").read_text(encoding="utf-8")).substitute(
        records_folder=f"[{link}]({link})",
        how_it_was_run=sections.describe_sessions(runs),
        throughput=list_throughput(throughput),
        acceptance=acceptance,
        summary=format_summary(runs, verdicts, PREVIEW),
        questions=questions,
        rules_version=RULES_VERSION,
        rules_date=RULES_DATE,
        rules_commit=RULES_COMMIT,
        older_records=sections.name_older_records(runs, RULES_DATE),
        seed_correlation=sections.describe_seed_correlation(runs),
        trials=f"{TRIALS:,}",
        power=format_power(pd.read_csv(RATES)),
        minimum=MINIMUM,
        tolerance=TOLERANCE,
        claims=format_claims(verdicts),
        others=sections.list_others(runs, questions, link),
        shortened=sections.list_shortened(runs, questions, link),
        without_result=sections.list_without_result(runs),
        figure_shortened=format_figure(runs, degradation.CONFIGS, "degradation", PREVIEW),
        **measure_effects(runs),
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
    """Returns 0, or 1 where --check finds a file out of date or a figure missing.

    Raises:
        UserError, OSError: what the caller turns into a sentence and exit status 2.
    """
    parser = Parser(__doc__)
    parser.add_argument("--results", type=Path, default=Path("RESULTS.md"), help="file to write (RESULTS.md)")
    parser.add_argument("--readme", type=Path, default=Path("README.md"), help="file whose block to write (README.md)")
    parser.add_argument("--check", action="store_true", help="write nothing, fail if a file is out of date")
    parser.add_argument("--weights", type=Path, default=Path("weights"), help="folder of the published weights (weights)")
    options = parser.parse_args(list(arguments))
    runs, _ = load_records(options.records)
    verdicts = judge_all(runs)
    acceptance = describe_acceptance(options.records / ACCEPTANCE.name)
    link = Path(os.path.relpath(options.records, options.results.parent)).as_posix()
    readme = options.readme.read_text(encoding="utf-8")
    wanted = {
        options.results: write_results(runs, load_throughput(options.records), acceptance, verdicts, link),
        options.readme: replace_block(readme, format_readme_block(runs, verdicts, options.weights), options.readme.name),
    }
    if options.check:
        stale = [path for path, text in wanted.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
        for path in stale:
            print(f"{path} is out of date: run python analysis/table.py")
        shown = {path.parent / name for path, text in wanted.items() for name in re.findall(r"!\[[^]]*\]\(([^)]+)\)", text)}
        missing = sorted(path for path in shown if not path.is_file())
        for path in missing:
            print(f"{path} is shown and not there: run python analysis/plot_{path.stem.rstrip('0123456789_')}.py")
        return 1 if stale or missing else 0
    for path, text in wanted.items():
        path.write_text(text, encoding="utf-8")
        print(path)
    return 0


if __name__ == "__main__":
    run_script(main)
