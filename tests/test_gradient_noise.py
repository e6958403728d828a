"""gradient_noise.py: its statistics on vectors with known error, bias and noise, and one short measurement."""

import json
from pathlib import Path

import pytest
import torch

from experiments.devices import gradient_noise
from experiments.devices.gradient_noise import Options, compare_gradients, measure
from reproduce.errors import UserError
from reproduce.evaluation import measure_error
from reproduce.model import build_network
from reproduce.weights import Classifier, TrainedNetwork, save_network
from tests.conftest import CPU, QUICK


def test_statistics_of_known_errors():
    generator = torch.Generator().manual_seed(0)
    size = 20_000
    gradient_P, bias_P = torch.randn(2, size, generator=generator) / size**0.5  # of norm 1
    exact_BP = gradient_P + 2 * torch.randn(64, size, generator=generator) / size**0.5
    error_BP = 0.2 * torch.randn(64, size, generator=generator) / size**0.5
    unbiased = compare_gradients(exact_BP, exact_BP + error_BP)
    assert unbiased["noise"] == pytest.approx(2 / (1 + 4 / 64) ** 0.5, rel=0.02)
    assert unbiased["relative_error"] == pytest.approx(0.2 / 5**0.5, rel=0.02)
    assert abs(unbiased["bias"]) < 0.02, "the mean error alone has a norm of 0.2 / sqrt(64) = 0.025"
    biased = compare_gradients(exact_BP, exact_BP + error_BP + 0.1 * bias_P)
    assert biased["bias"] == pytest.approx(0.1 / biased["gradient_norm"], rel=0.05)
    assert biased["bias"] > biased["bias_by_chance"] > 0


def test_a_short_measurement(workplace: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gradient_noise, "NETS", [QUICK])
    classifier = Classifier(build_network(QUICK), torch.zeros(3, 32, 32), torch.ones(3, 1, 1)).eval()
    trained = TrainedNetwork(classifier, QUICK, {}, Path())
    Path("weights").mkdir()
    save_network(Path("weights/trained.safetensors"), trained)
    path = measure(Options(batches=4, data="synthetic", device="cpu", out=workplace / "out"))
    record = json.loads(path.read_text())
    initial, published = record["rows"]
    assert (initial["net"], initial["weights"]) == ("residual8", "initial")
    assert (record["device"], record["data"]) == ("cpu", "synthetic")
    assert 0 < initial["relative_error"] < 0.5 and initial["noise"] > 0 and "test_error_fp32" not in initial
    data = trained.load_data("synthetic", CPU.torch_device)
    assert published["test_error_fp32"] == measure_error(classifier.network, data.test, data, CPU, QUICK)
    assert 0 < published["test_error_bf16"] <= 100
    with pytest.raises(UserError, match="folder of CIFAR-10, or synthetic, got mnist"):
        measure(Options(data="mnist", device="cpu", out=workplace / "other"))
    assert not (workplace / "other").exists()
