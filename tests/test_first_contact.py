"""First contact: steps in their order and limits, what is made of those that fail, and commands that exist."""

import inspect
import sys
import time
from pathlib import Path

import pytest

from experiments import acceptance, first_contact, sweep, throughput
from experiments.first_contact import NO_CAPTURE, Contact, Step, do_steps, list_steps, main, write_report
from reproduce import command, run
from reproduce.config import UserError
from reproduce.step import Training


def python(code: str) -> list[str]:
    return [sys.executable, "-c", f"import sys, time; {code}"]


def do(folder: Path, *steps: Step, seconds: float = 60) -> dict[str, str]:
    outcomes = do_steps(steps, time.monotonic() + seconds, folder)
    assert [outcome.name for outcome in outcomes] == [step.name for step in steps]
    return {outcome.name: outcome.went for outcome in outcomes}


def test_a_step_that_fails_is_tried_otherwise_and_what_needs_it_waits(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    without = python("print('so far'); print('tried', sys.argv[1:]); sys.exit(0 if sys.argv[1:] else 3)")
    steps = [
        Step("smoke", without, 50, ("--no-capture",)),
        Step("tests", python("sys.exit(1)"), 50, needs=("smoke",)),
        Step("throughput", python("sys.exit(75)"), 50, needs=("tests",)),
        Step("acceptance", python("sys.exit(7)"), 50, ("-x",)),
        Step("sweep", python("pass"), 50, needs=("smoke",)),
    ]
    assert do(tmp_path, *steps) == {
        "smoke": "right with --no-capture (without: exit status 3)",
        "tests": "exit status 1",
        "throughput": "not begun, because of tests",
        "acceptance": "exit status 7; exit status 7 with -x",
        "sweep": "not begun, because of smoke",
    }
    assert "so far\ntried ['--no-capture']\n" in capsys.readouterr().out
    log = (tmp_path / "smoke.log").read_text()
    assert log.count("so far\n") == 2 and "tried []\n" in log and log.startswith(f"$ {sys.executable} -c ")


def test_a_step_that_gives_up_its_capture_is_not_right_as_it_is(tmp_path: Path):
    assert NO_CAPTURE in inspect.getsource(Training.give_up_capture)
    gives_up = python(f"print('{NO_CAPTURE}, training step by step instead: none'); print('trained')")
    steps = [Step("smoke", gives_up, 50, ("-x",)), Step("tests", python("pass"), 50, needs=("smoke",))]
    assert do(tmp_path, *steps, Step("sweep", python("pass"), 50, needs=("smoke",))) == {
        "smoke": "right, but not captured",
        "tests": "right",
        "sweep": "not begun, because of smoke",
    }


def test_a_sweep_is_given_the_time_that_is_left(tmp_path: Path):
    code = "print(sys.argv[1:]); sys.exit(75)"
    (outcome,) = do_steps([Step("sweep", python(code), 1e9, right=(0, 75))], time.monotonic() + 40, tmp_path)
    assert outcome.went == "right" and outcome.said in ("['--time-limit', '40']", "['--time-limit', '39']")
    assert do(tmp_path, Step("sweep", python(code), 1e9), seconds=0) == {"sweep": "no time is left"}


def test_a_step_that_outlasts_its_limit_is_ended_with_its_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(first_contact, "GRACE", 0.5)
    child = "import signal, subprocess; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('begun', flush=True); "
    child += "subprocess.run([sys.executable, '-c', 'import time; time.sleep(100)'])"
    before = time.monotonic()
    (outcome,) = do_steps([Step("tests", python(child), 3)], before + 60, tmp_path)
    assert (outcome.went, outcome.said) == ("stopped after 3 s", "begun")
    assert time.monotonic() < before + 50, "the child's output is the step's, and the child is ended as well"


def test_the_report_has_a_step_to_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    for code, status in (("print('it works')", 0), ("print('it does not'); sys.exit(2)", 1)):
        monkeypatch.setattr(first_contact, "list_steps", lambda contact, code=code: [Step("smoke", python(code), 50)])
        assert main(["--out", str(tmp_path)]) == status
        report = (tmp_path / "report.txt").read_text()
        assert report in capsys.readouterr().out
        went, said = report.splitlines()
        assert went.startswith("smoke ") and went.endswith(" s  exit status 2" if status else " s  right")
        assert said.split() == (["it", "does", "not"] if status else ["it", "works"])
    assert write_report([first_contact.Outcome("sweep", "not begun", 0.0, "")]).count("\n") == 0


def test_the_commands_exist(tmp_path: Path):
    steps = list_steps(Contact(device="cpu", data="here", out=tmp_path, precision="bf16"))
    lines = {step.name: step.line[2:] for step in steps}
    assert list(lines) == ["smoke", "tests", "throughput", "acceptance", "sweep"]
    config, machine = run.parse(lines["smoke"])
    assert (config.iterations, machine.device, machine.data) == (100, "cpu", "here")
    assert command.parse(throughput.Settings, lines["throughput"], "", "").quick
    assert command.parse(acceptance.Acceptance, lines["acceptance"], "", "").device == "cpu"
    swept = sweep.parse(lines["sweep"])
    assert (swept.devices, swept.precision, swept.out, swept.seeds) == (("cpu",), "bf16", tmp_path / "records", 1)
    assert not {"--devices", "auto"} & set(list_steps(Contact(steps=("sweep",)))[0].line)
    assert all(Path(line[1] if line[1] != "-m" else line[-1]).is_file() for line in (step.line for step in steps))
    assert run.parse([*lines["smoke"], "--no-capture"])[1].capture is False
    assert not command.parse(acceptance.Acceptance, [*lines["acceptance"], "--no-capture"], "", "").capture


@pytest.mark.parametrize("flags", ["--minutes 0", "--minutes nan", "--experiment nosuch", "--steps nosuch"])
def test_wrong_use_is_one_sentence(flags: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=rf"^[^\n]*{flags.split()[0][2:]}[^\n]*$"):
        main(flags.split())
    assert not list(tmp_path.iterdir())
