"""Write RESULTS.md, docs/devices.md, docs/statistics.md, analysis/tables/*.csv and two blocks of README.md from the records.

    python analysis/table.py            writes them into the current folder, the root of the checkout
    python analysis/table.py --check    writes nothing; prints the files that are out of date and returns exit status 1

README.md is changed only between the lines <!-- results:begin --> and <!-- results:end -->, and those of weights.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # import this checkout, not an installed version
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import pandas as pd
import tyro

from analysis.claims import Verdict, judge_all
from analysis.devices import describe_moves, format_devices
from analysis.estimates import MINIMUM
from analysis.markdown import fill_template
from analysis.questions import QUESTIONS
from analysis.records import RECORDS, load_records
from analysis.run_tables import format_classes_csv, format_runs_csv
from analysis.sections import choose_runs
from analysis.statistics_page import describe_exploratory, describe_larger_stds, describe_single_seeds, format_statistics
from analysis.summary import (
    describe_scope,
    format_claims_csv,
    format_fig6,
    format_readme_results,
    format_verdict_table,
    format_weights,
    list_findings,
)
from experiments import degradation
from reproduce import cli
from reproduce.errors import UserError


@dataclass(frozen=True)
class TableOptions:
    """What to read, and whether to write."""

    check: bool = False
    """Write nothing; exit with status 1 if a file is out of date."""
    records: Annotated[Path, tyro.conf.arg(metavar="DIR")] = RECORDS
    """Folder that contains the run folders."""


def format_results(
    runs: pd.DataFrame, curves: pd.DataFrame, findings: Sequence[str], verdicts: Sequence[Verdict], records: Path
) -> str:
    """Return RESULTS.md; `records` is the folder of the run folders."""
    sections = {question: question.format_section(runs, curves).strip() for question in QUESTIONS}
    return fill_template(
        "results",
        records_folder=records.as_posix(),
        minimum=MINIMUM,
        scope=describe_scope(runs),
        fig6=format_fig6(runs),
        findings="\n".join(f"{number}. {text}" for number, text in enumerate(findings, 1)) or "No full-length run yet.",
        sections="\n\n".join(filter(None, sections.values())),
        not_run=list_not_run([question.NOT_RUN for question, text in sections.items() if not text], runs),
        verdicts=format_verdict_table(verdicts),
        exploratory=describe_exploratory(runs),
        single_seeds=describe_single_seeds(),
        larger_stds=describe_larger_stds(runs),
        devices=describe_moves(runs),
    )


def list_not_run(questions: Sequence[str], runs: pd.DataFrame) -> str:
    """Return the questions without runs, each with its command, and the precision to train them in."""
    if not questions:
        return "Nothing."
    _, precision = choose_runs(runs, degradation.CONFIGS)
    listed = "\n".join(f"- {question}" for question in questions)
    return f"{listed}\n\nAdd `--precision {precision}` to compare with the runs above."


def replace_block(readme: str, name: str, text: str) -> str:
    """Return the README with `text` between the markers of a block.

    Raises:
        UserError: the markers are missing or repeated.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    replaced, count = re.subn(f"(?s){begin}.*?{end}", lambda _: f"{begin}\n{text}\n{end}", readme)
    if count != 1:
        raise UserError(f"README.md needs the lines {begin} and {end} once each, in this order")
    return replaced


def format_files(records: Path) -> dict[Path, str]:
    """Return every generated file with its text."""
    runs, curves = load_records(records)
    verdicts = judge_all(runs)
    findings = list_findings(runs)
    readme = replace_block(Path("README.md").read_text(encoding="utf-8"), "results", format_readme_results(runs, findings))
    files = {
        "RESULTS.md": format_results(runs, curves, findings, verdicts, records),
        "README.md": replace_block(readme, "weights", format_weights(runs, Path("weights"))),
        "docs/devices.md": format_devices(runs, records),
        "docs/statistics.md": format_statistics(runs, verdicts),
        "analysis/tables/runs.csv": format_runs_csv(runs),
        "analysis/tables/classes.csv": format_classes_csv(runs),
        "analysis/tables/claims.csv": format_claims_csv(verdicts),
    }
    return {Path(name): text for name, text in files.items()}


def check_files(files: dict[Path, str]) -> int:
    """Print the files that are out of date and the figures that are missing; return the exit status."""
    stale = [path for path, text in files.items() if not path.is_file() or path.read_text(encoding="utf-8") != text]
    for path in stale:
        print(f"{path} is out of date: run python analysis/table.py")
    shown = {path.parent / name for path, text in files.items() for name in re.findall(r"!\[[^]]*\]\(([^)]+)\)", text)}
    missing = sorted(path for path in shown if not path.is_file())
    for path in missing:
        print(f"{path} is missing: run python analysis/plot_{path.stem}.py")
    return 1 if stale or missing else 0


def main(arguments: Sequence[str]) -> int:
    """Write or check the files and return the exit status.

    Raises:
        UserError: wrong arguments, a damaged record, or a README without the markers.
    """
    options = cli.parse_args(TableOptions, arguments, "table.py", __doc__, tyro.conf.FlagCreatePairsOff)
    files = format_files(options.records)
    if options.check:
        return check_files(files)
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(cli.run_cli(main, sys.argv[1:]))
