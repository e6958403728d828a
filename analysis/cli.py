"""What this folder's command lines share: --records, and one sentence and exit status 2 for what the user can mend."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from reproduce.cli import format_version, run_cli  # before pandas is loaded, as it has what is told of Ctrl-C meanwhile

# isort: split
from analysis.records import RECORDS
from reproduce.errors import UserError

FORMATS = (".svg", ".png", ".pdf")
"""Of pictures."""


class TellVersion(argparse.Action):
    """argparse's own would have to know it before it is asked for."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object):
        print(format_version())
        parser.exit()


class Parser(argparse.ArgumentParser):
    """argparse, but a wrong command line raises UserError instead of printing the usage."""

    def __init__(self, description: str | None):
        super().__init__(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
        self.add_argument("--version", action=TellVersion, nargs=0, help="tell version and commit of this package and exit")
        self.add_argument("--records", type=Path, default=RECORDS, help=f"folder of the run folders ({RECORDS})")

    def error(self, message: str) -> NoReturn:
        raise UserError(message)


def run_script(main: Callable[[Sequence[str]], int]) -> NoReturn:
    """Runs a command line's main and exits with its status."""
    sys.exit(run_cli(main, sys.argv[1:]))
