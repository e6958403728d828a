"""Learning rate, warm-up, the step, evaluation, and that the host's way of cutting the work changes nothing."""

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from reproduce import train
from reproduce.config import Config, Machine
from reproduce.data import Data, load, plan
from reproduce.device import Device
from reproduce.model import build_network
from reproduce.train import ForeachSGD, History, Training, learning_rate
from reproduce.turns import complete
from tests.conftest import CPU, QUICK, train_alone
from tests.test_data import as_data, random_images

# Learning rate --------------------------------------------------------------------------------------------------------

MOMENTS = (0, 399, 400, 31_999, 32_000, 47_999, 48_000, 63_999)


@pytest.mark.parametrize(
    ("config", "warmup_ended", "rates"),
    [
        (Config(depth=56), None, (0.1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001)),
        (Config(depth=110), 400, (0.01, 0.01, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001)),
        (Config(depth=110), 300, (0.01, 0.1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001)),
        (Config(depth=110), None, (0.01, 0.01, 0.01, 0.01, 0.01, 0.01, 0.001, 0.001)),
        (Config(depth=110, warmup="iterations"), None, (0.01, 0.01, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001)),
        (Config(depth=110, warmup="none"), None, (0.1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.001, 0.001)),
    ],
)
def test_learning_rate_at_the_papers_moments(config: Config, warmup_ended: int | None, rates: tuple[float, ...]):
    got = [learning_rate(config, iteration, warmup_ended) for iteration in MOMENTS]
    assert got == pytest.approx(rates, rel=1e-12)


def test_a_shortened_run_keeps_the_shape_of_the_schedule():
    config = Config(iterations=200)
    rates = [learning_rate(config, iteration, None) for iteration in (0, 99, 100, 149, 150, 199)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


def test_error_triggered_warmup_ends_when_a_whole_window_is_below_80_percent():
    config, history = Config(depth=110, batch_size=10), History()
    for wrong in (9, 8, 7):  # 90%, 80% and 70% error over windows of 100 iterations, in chunks of 50
        for _ in range(2):
            assert history.warmup_ended is None
            history.note(config, [1.0] * 50, [wrong] * 50)
    assert history.warmup_ended == 300
    history.note(config, [1.0] * 100, [9] * 100)
    assert history.warmup_ended == 300


def test_warmup_ends_in_a_real_run(synthetic: Data, tmp_path):
    """At lr/10 the net falls below 80% error at its own time; the rate of the rows before and after shows when."""
    config = replace(QUICK, warmup="error", iterations=500, lr=0.2)
    machine = Machine(eval_every=100)
    assert train_alone(config, machine, synthetic, CPU, tmp_path) == "finished"
    rows = train.record.read_metrics(tmp_path)
    ended = (train.record.read_result(tmp_path) or {})["warmup_ended"]
    assert ended is not None and 100 <= ended < 250 and ended % train.WARMUP_WINDOW == 0
    for row in rows:
        assert row["learning_rate"] == pytest.approx(learning_rate(config, row["iteration"] - 1, ended))
        if row["iteration"] <= 200:
            assert (row["train_error"] < 80) == (row["iteration"] >= ended)


# The step -------------------------------------------------------------------------------------------------------------


def test_golden_first_step():
    data = as_data(random_images(64))
    training = Training(Config(batch_size=32), data, CPU, capture=False)
    before = [parameter.detach().clone() for parameter in training.network.parameters()]
    losses, _ = complete(training.chunk(0, 1, [0.1]))
    after = list(training.network.parameters())
    gradient = nn.utils.get_total_norm([p.grad for p in after if p.grad is not None]).item()
    update = nn.utils.get_total_norm([(p - q).detach() for p, q in zip(after, before, strict=True)]).item()
    assert [losses[0], gradient, update] == pytest.approx(GOLDEN, rel=2e-4), (
        "the first step of the default recipe has changed. Where only kernels changed (a new torch), compare a full run "
        "with the records before moving these numbers; where the recipe changed, raise config.SCHEMA as well"
    )


GOLDEN = [2.90046, 5.30524, 0.530529]


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("decay", ["all", "weights"])
def test_training_equals_torch_used_the_usual_way(optimizer: Any, decay: Any):
    """Six steps across a change of learning rate against a plain loop with torch.optim and float learning rates."""
    config = Config(depth=8, batch_size=8, optimizer=optimizer, decay=decay, weight_decay=0.01, momentum=0.8)
    data = as_data(random_images(32))
    rates = [0.05, 0.05, 0.05, 0.005, 0.005, 0.005]
    training = Training(config, data, CPU, capture=False)
    losses, wrong = complete(training.chunk(0, 6, rates))

    network = build_network(config).to(memory_format=torch.channels_last).train()
    decayed = [p for name, p in network.named_parameters() if decay == "all" or "conv" in name or name == "linear.weight"]
    others = [p for p in network.parameters() if not any(p is q for q in decayed)]
    groups: list[dict[str, Any]] = [{"params": decayed}] + ([{"params": others, "weight_decay": 0.0}] if others else [])
    usual = {
        "sgd": lambda: torch.optim.SGD(groups, lr=1, momentum=0.8, weight_decay=0.01),
        "adam": lambda: torch.optim.Adam(groups, lr=1, betas=(0.8, 0.999), weight_decay=0.01),
        "adamw": lambda: torch.optim.AdamW(groups, lr=1, betas=(0.8, 0.999), weight_decay=0.01),
    }[optimizer]()
    for row, rate, loss, mistakes in zip(plan(config, 32, 0, 6), rates, losses, wrong, strict=True):
        images, labels = train.batch(data.train, data, row)
        for group in usual.param_groups:
            group["lr"] = rate
        usual.zero_grad()
        logits = network(images)
        expected = F.cross_entropy(logits, labels)
        assert loss == pytest.approx(expected.item(), rel=1e-4)
        assert mistakes == int((logits.argmax(1) != labels).sum())
        expected.backward()
        usual.step()
    for ours, theirs in zip(training.network.parameters(), network.parameters(), strict=True):
        # Adam divides by the gradient's size: where that is all rounding, a few steps' difference of rounding remains.
        torch.testing.assert_close(ours, theirs, atol=1e-2, rtol=1e-2)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_foreach_sgd_is_torchs_sgd(momentum: float):
    torch.manual_seed(0)
    ours, theirs = ([nn.Parameter(t.clone()) for t in tensors] for tensors in [[torch.randn(5, 3), torch.randn(7)]] * 2)
    rate = torch.tensor(0.1)
    a = ForeachSGD(ours, lr=rate, momentum=momentum, weight_decay=0.01)
    b = torch.optim.SGD(theirs, lr=0.1, momentum=momentum, weight_decay=0.01)
    for step in range(5):
        if step == 3:
            rate.fill_(0.01)
            b.param_groups[0]["lr"] = 0.01
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn_like(p)
            q.grad = p.grad.clone()
        a.step()
        b.step()
    for p, q in zip(ours, theirs, strict=True):
        torch.testing.assert_close(p, q, atol=1e-6, rtol=1e-6)


def state_after(config: Config, data: Data, cuts: list[int], device: Device = CPU) -> dict[str, Any]:
    training = Training(config, data, device, capture=True)
    losses = []
    for start, stop in itertools.pairwise(cuts):
        losses += complete(training.chunk(start, stop, [0.1] * (stop - start)))[0]
    return training.state() | {"losses": losses}


def assert_equal(a: Any, b: Any):
    """Equality to the bit of nested dicts and lists of tensors and numbers."""
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_equal(a[key], b[key])
    elif isinstance(a, list):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_equal(x, y)
    elif isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype and torch.equal(a, b)
    else:
        assert a == b


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_cut_into_chunks_changes_nothing(synthetic: Data, residual: bool, optimizer: str, precision: str):
    config = replace(QUICK, residual=residual, optimizer=optimizer, precision=precision)
    whole = state_after(config, synthetic, [0, 10])
    assert_equal(state_after(config, synthetic, [0, 1, 2, 7, 10]), whole)


def test_bf16_is_not_fp32_and_close_to_it(synthetic: Data):
    losses = {p: state_after(replace(QUICK, precision=p), synthetic, [0, 3])["losses"] for p in ("fp32", "bf16")}
    assert losses["fp32"] != losses["bf16"]
    assert losses["fp32"] == pytest.approx(losses["bf16"], rel=0.1)


def test_bn_over_halves_normalises_each_half(synthetic: Data):
    whole, halves = (Training(replace(QUICK, bn_batch=b), synthetic, CPU, False) for b in ("whole", "halves"))
    for training in (whole, halves):
        complete(training.chunk(0, 1, [0.0]))
    images, _ = train.batch(synthetic.train, synthetic, plan(QUICK, len(synthetic.train), 0, 1)[0])
    means = [whole.network.conv(part).mean((0, 2, 3)) for part in (images, *images.chunk(2))]
    torch.testing.assert_close(whole.network.bn.running_mean, 0.1 * means[0])
    torch.testing.assert_close(halves.network.bn.running_mean, 0.09 * means[1] + 0.1 * means[2])


# Graph capture, on a device that pretends to have it ------------------------------------------------------------------


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Makes the CPU claim graphs; train.capture then returns what the test puts into the list."""
    answers: list[Any] = []
    monkeypatch.setattr(Device, "has_graphs", property(lambda self: True))
    monkeypatch.setattr(train, "capture", lambda device, step: answers[0](step))
    monkeypatch.setattr(train, "mark", lambda device: lambda: True)
    monkeypatch.setattr(train, "make_optimizer", lambda c, n, rate, d: torch.optim.SGD(n.parameters(), rate, 0.9))
    return answers


def test_replayed_steps_follow_the_eager_ones(synthetic: Data, graphs: list[Any]):
    replayed = []

    def capture(step: Any) -> Any:
        return lambda: (replayed.append(1), step())

    graphs.append(capture)
    captured = state_after(QUICK, synthetic, [0, 2, 4, 10])
    assert len(replayed) == 10 - 2
    graphs[0] = lambda step: "RuntimeError: cannot capture"
    assert_equal(state_after(QUICK, synthetic, [0, 2, 4, 10]), captured)


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [(lambda step: "RuntimeError: no such function", "no such function"), (lambda step: lambda: None, "does nothing")],
)
def test_a_capture_that_fails_or_does_nothing_is_announced_and_loses_nothing(
    synthetic: Data, graphs: list[Any], capsys: pytest.CaptureFixture[str], answer: Any, sentence: str
):
    graphs.append(answer)
    state = state_after(QUICK, synthetic, [0, 10])
    assert sentence in capsys.readouterr().err
    graphs[0] = lambda step: step
    assert_equal(state_after(QUICK, synthetic, [0, 10]), state)


# Evaluation and responses ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [7, 100])
def test_evaluation_counts_every_image_once(synthetic: Data, size: int):
    network = build_network(QUICK).eval()
    with torch.no_grad():
        views, labels = train.batch(synthetic.test, synthetic, train.central(0, 100, CPU.torch_device))
        wrong = int((network(views).argmax(1) != labels).sum())
    device = replace(CPU, eval_batch_size=size)
    for is_training in (False, True):
        network.train(is_training)
        assert train.evaluate(network, synthetic.test, synthetic, device, QUICK) == wrong
        assert network.training is is_training, "an evaluation leaves the mode as it was"


def test_population_statistics_are_those_of_the_training_images_and_do_not_disturb_training(synthetic: Data):
    few = replace(synthetic, train=synthetic.test)
    training = Training(QUICK, few, replace(CPU, eval_batch_size=100), capture=False)
    complete(training.chunk(0, 3, [0.1] * 3))
    train.take_population_statistics(training.network, few, training.device, QUICK)
    views, _ = train.batch(few.train, few, train.central(0, 100, CPU.torch_device))
    with torch.no_grad():
        responses = training.network.conv(views)
    torch.testing.assert_close(training.network.bn.running_mean, responses.mean((0, 2, 3)))
    torch.testing.assert_close(training.network.bn.running_var, responses.var((0, 2, 3)), rtol=1e-4, atol=1e-5)
    assert training.network.bn.momentum == 0.1
    weights = {n: t for n, t in training.network.named_parameters()}
    complete(training.chunk(3, 6, [0.1] * 3))
    undisturbed = Training(QUICK, few, CPU, capture=False)
    complete(undisturbed.chunk(0, 6, [0.1] * 6))
    assert all(torch.equal(weights[name], tensor) for name, tensor in undisturbed.network.named_parameters())


@pytest.mark.parametrize("block", ["original", "full-preactivation"])
def test_layer_responses_are_the_standard_deviations_over_the_test_set(synthetic: Data, block: str):
    config = replace(QUICK, block=block)
    network = build_network(config)
    got = train.layer_responses(network, synthetic, replace(CPU, eval_batch_size=30), config)
    seen: list[float] = []
    for module in network.responses():
        module.register_forward_hook(lambda _module, _inputs, output: seen.append(output.std(correction=0).item()))
    network.eval()
    with torch.no_grad():
        network(train.batch(synthetic.test, synthetic, train.central(0, 100, CPU.torch_device))[0])
    np.testing.assert_allclose(got, seen, rtol=1e-4)
    assert len(got) == QUICK.depth - 1


# Whole runs -----------------------------------------------------------------------------------------------------------


def test_a_run_that_overflows_is_recorded_as_diverged(synthetic: Data, tmp_path):
    config = replace(QUICK, lr=1e30)
    assert train_alone(config, Machine(), synthetic, CPU, tmp_path) == "diverged"
    result = train.record.read_result(tmp_path)
    assert result is not None and result["status"] == "diverged" and 0 < result["iteration"] < 24
    assert train.record.read_metrics(tmp_path) == []


def test_the_synthetic_set_is_learned(synthetic_folder, tmp_path):
    config = Config(depth=8, iterations=100, batch_size=32, dataset="synthetic")
    data = load(config, synthetic_folder, CPU.torch_device)
    assert train_alone(config, Machine(), data, CPU, tmp_path) == "finished"
    result = train.record.read_result(tmp_path)
    assert result is not None and result["test_error"] < 20
