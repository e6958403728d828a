"""The benchmark runs and prints what it promises; no speed is asserted."""

import re
from pathlib import Path

import pytest

from experiments.throughput import Settings, measure
from reproduce.config import UserError


def test_a_short_benchmark(workplace: Path, capsys: pytest.CaptureFixture[str]):
    measure(Settings(depths=(8,), precisions=("fp32", "bf16"), iterations=3, rounds=1, data="synthetic", device="cpu"))
    about, *rows = capsys.readouterr().out.splitlines()
    assert "torch" in about
    seconds = {row[10:23].strip(): float(re.findall(r"([\d.]+) s/iteration", row)[0]) for row in rows[:4]}
    assert seconds.keys() == {"plain fp32", "plain bf16", "ours fp32", "ours bf16"}
    assert min(seconds.values()) > 0
    assert re.search(r"preparing a batch is [\d.]+% of our fastest step", rows[4])


def test_an_unusable_device_is_refused(workplace: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("reproduce.device.problem", lambda kind: "it is not there")
    with pytest.raises(UserError, match="device cuda is not usable"):
        measure(Settings(data="synthetic", device="cuda"))
