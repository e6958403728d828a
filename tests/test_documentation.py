"""The commands of README.md and docs/custom-images.md run as they are printed, shortened where they train."""

import importlib
import os
import re
import shlex
import shutil
from pathlib import Path

import pytest

from analysis import drawing
from tests.test_image_folder import write_images

ROOT = Path(__file__).parents[1]
SHORTER = {
    "reproduce/run.py": "--iterations 2 --batch-size 8 --device cpu --out runs",
    "experiments/sweep.py": "--dry-run",
}
"""Flags appended to the commands of a script; the last value of a flag counts."""
TESTED_ELSEWHERE = ("pytest", "evaluate.py weights")
"""Parts of commands that need CIFAR-10 or call the tests."""


def list_commands(page: str) -> list[str]:
    """Return the arguments of each `python` in the page's bash blocks."""
    blocks = re.findall(r"^```bash\n(.*?)^```", (ROOT / page).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    commands = [line.partition(" #")[0].strip() for block in blocks for line in block.splitlines()]
    found = [command.partition("python ")[2] for command in commands if "python " in command]
    return [command for command in found if not any(word in command for word in TESTED_ELSEWHERE)]


def run_script(command: str) -> int:
    script, *arguments = shlex.split(command)
    module = importlib.import_module(script.removesuffix(".py").replace("/", "."))
    return module.main([*arguments, *SHORTER.get(script, "").split()])


@pytest.fixture
def folder(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with the synthetic dataset, a run and images."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    os.symlink(ROOT / "weights", workplace / "weights")
    (workplace / "experiments").mkdir()
    os.symlink(ROOT / "experiments" / "records", workplace / "experiments" / "records")
    shutil.copy(ROOT / "README.md", workplace)
    write_images(workplace / "photos", ("cat", "dog"), train=10)
    shutil.copy(workplace / "photos" / "test" / "dog" / "0.png", workplace / "IMAGE.jpg")
    return workplace


@pytest.mark.parametrize("page", ["README.md", "docs/custom-images.md"])
def test_commands(folder: Path, page: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setattr(drawing, "FIGURES", folder / "figures")
    commands = list_commands(page)
    assert len(commands) > 3
    run = ""
    for command in commands:
        if "run.py" in command and "--data" not in command:
            command += " --data synthetic"
        assert run_script(command.replace("RUN", run)) == 0, command
        run = run or capsys.readouterr().out.rpartition("run folder ")[2].strip()
