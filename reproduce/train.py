"""Training one network: learning rate, step, evaluation, and the loop with its checkpoints (section 4.2).

Shapes: N images in a batch, K classes.
"""

# pyright: reportPrivateImportUsage=false

import math
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from reproduce import record
from reproduce.config import Config, Machine
from reproduce.data import Data, Images, batch, central, plan
from reproduce.device import Device, autocast, capture, mark, peak_memory
from reproduce.model import Network, build_network
from reproduce.turns import Turns

WARMUP_ERROR = 80.0
"""The training error, in percent, that ends an error-triggered warm-up (section 4.2, on ResNet-110)."""
WARMUP_WINDOW = 100
"""Iterations over which that error is measured, again and again until it is low enough."""
WARMUP_ITERATIONS = 400
"""Length of a fixed warm-up: what the paper found the error-triggered one to take."""
EAGER_ITERATIONS = 3
"""Iterations before a capture, in which libraries choose their kernels and the optimizer makes its state."""
BURST, BURSTS_AHEAD = 25, 2
"""Iterations given to the device in one turn, and how many such bursts it may have before it: enough for it not to wait
while others have their turns, and not so many that its queue is full and makes the host wait."""


def learning_rate(config: Config, iteration: int, warmup_ended: int | None) -> float:
    """The learning rate of an iteration, counted from 0.

    warmup_ended: the first iteration after an error-triggered warm-up, None while it lasts. A warm-up that the error does
    not end is over at the first milestone.
    """
    ended = {"none": 0, "iterations": WARMUP_ITERATIONS, "error": warmup_ended}[config.warmup]
    milestones = (config.iterations // 2, config.iterations * 3 // 4)
    passed = sum(iteration >= milestone for milestone in milestones)
    warming = passed == 0 and (ended is None or iteration < ended)
    assert config.lr is not None
    return config.lr / 10 ** (passed + warming)


class ForeachSGD(torch.optim.SGD):
    """torch's SGD with momentum for devices without its fused kernel: torch's own foreach form reads a learning rate
    that is a tensor back to the host at every step."""

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        for group in self.param_groups:
            parameters = group["params"]
            gradients = torch._foreach_add([p.grad for p in parameters], parameters, alpha=group["weight_decay"])
            buffers = [self.state[p].setdefault("momentum_buffer", torch.zeros_like(p)) for p in parameters]
            torch._foreach_mul_(buffers, group["momentum"])
            torch._foreach_add_(buffers, gradients)
            torch._foreach_sub_(parameters, torch._foreach_mul(buffers, group["lr"]))


def make_optimizer(config: Config, network: nn.Module, rate: Tensor, device: Device) -> torch.optim.Optimizer:
    """The config's optimizer, whose learning rate is the device scalar `rate` whenever it steps."""
    # Weights have several dimensions; biases and BN's parameters one.
    decayed, others = [], []
    for parameter in network.parameters():
        (decayed if config.decay == "all" or parameter.dim() > 1 else others).append(parameter)
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    if config.optimizer == "sgd":
        if device.fused:
            return torch.optim.SGD(groups, lr=rate, momentum=config.momentum, fused=True)
        return ForeachSGD(groups, lr=rate, momentum=config.momentum)
    optimizer = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    betas = (config.momentum, 0.999)
    return optimizer(groups, lr=rate, betas=betas, fused=device.fused, capturable=device.has_graphs)


class Training:
    """One network in training on a device: the buffers that a step reads and writes, and the step.

    A step takes everything from the device and leaves everything there (its batch's description, its learning rate, its
    loss and error), so that a graph of it can be replayed and the host is met once per chunk.
    """

    def __init__(self, config: Config, data: Data, device: Device, capture: bool):
        self.config, self.data, self.device = config, data, device
        self.network = build_network(config).to(device.torch_device).to(memory_format=device.memory_format).train()
        on_device: dict[str, Any] = {"device": device.torch_device}
        self.rows = torch.zeros(device.chunk, 4, config.batch_size, dtype=torch.int64, **on_device)
        self.rates = torch.zeros(device.chunk, **on_device)
        self.losses = torch.zeros(device.chunk, **on_device)
        self.wrong = torch.zeros(device.chunk, dtype=torch.int64, **on_device)
        self.cursor = torch.zeros(1, dtype=torch.int64, **on_device)
        self.rate = torch.zeros((), **on_device)
        self.optimizer = make_optimizer(config, self.network, self.rate, device)
        self.may_capture = capture and device.has_graphs
        self.replay = None
        self.planned, self.planned_from = self.rows[:0].cpu(), 0

    def step(self):
        """One iteration: the batch at the cursor, forward, backward, update, loss and wrong answers noted, cursor moved."""
        row = self.rows.index_select(0, self.cursor)[0]
        self.rate.copy_(self.rates.index_select(0, self.cursor)[0])
        images, labels = batch(self.data.train, self.data, row)
        images = images.contiguous(memory_format=self.device.memory_format)
        with autocast(self.device, self.config.precision):
            parts = images.chunk(2) if self.config.bn_batch == "halves" else [images]
            logits_NK = torch.cat([self.network(part) for part in parts])
        loss = F.cross_entropy(logits_NK.float(), labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.losses.index_copy_(0, self.cursor, loss.detach()[None])
        self.wrong.index_copy_(0, self.cursor, (logits_NK.argmax(1) != labels).sum()[None])
        self.cursor.add_(1)

    def chunk(self, start: int, stop: int, rates: list[float]) -> Turns[tuple[list[float], list[int]]]:
        """The iterations start <= i < stop, no more than the device's chunk, at their learning rates.

        Returns: each one's loss and number of wrong answers.
        """
        count = stop - start
        self.rows[:count].copy_(self.plan(start, stop))
        self.rates[:count].copy_(torch.tensor(rates))
        self.cursor.zero_()
        done, ahead = 0, deque(maxlen=BURSTS_AHEAD)
        if self.replay is None and self.may_capture:
            done = min(count, EAGER_ITERATIONS)
            for _ in range(done):
                self.step()
            self.try_capture()
        size = max(1, BURST // self.device.steps_per_replay) * self.device.steps_per_replay
        for begin in range(done, count, size):
            while len(ahead) == BURSTS_AHEAD and not ahead[0]():
                yield
            self.burst(min(size, count - begin))
            ahead.append(mark(self.device))
            yield
        if stop < self.config.iterations:
            self.plan(stop, stop + 1)  # the host's share of the next chunk, while the device is busy with this one
        while ahead and not ahead[-1]():
            yield
        if self.replay is not None and int(self.cursor) != count:
            # A graph that replays without doing anything has been seen in the field: nothing is lost but time.
            self.give_up_capture("its replay does nothing")
            self.burst(count - int(self.cursor))
        return self.losses[:count].tolist(), self.wrong[:count].tolist()

    def burst(self, count: int):
        while count > 0:
            if self.replay is not None and count >= self.device.steps_per_replay:
                self.replay()
                count -= self.device.steps_per_replay
            else:
                self.step()
                count -= 1

    def plan(self, start: int, stop: int) -> Tensor:
        """The batches of a chunk's iterations, from a plan made for as many as the device's chunk."""
        first, last = start - self.planned_from, stop - self.planned_from
        if first < 0 or last > len(self.planned):
            self.planned, self.planned_from = self.draw(start, start + self.device.chunk), start
            first, last = 0, stop - start
        return self.planned[first:last]

    def draw(self, start: int, stop: int) -> Tensor:
        return plan(self.config, len(self.data.train), start, stop)

    def try_capture(self):
        def steps():
            for _ in range(self.device.steps_per_replay):
                self.step()

        replay = capture(self.device, steps)
        if isinstance(replay, str):
            self.give_up_capture(replay)
        else:
            self.replay = replay

    def give_up_capture(self, reason: str):
        self.may_capture, self.replay = False, None
        tqdm.write(f"no graph capture, training step by step instead: {reason}", file=sys.stderr)

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of the network and the optimizer, on the CPU and independent of the device's layout."""
        states = [self.optimizer.state[parameter] for parameter in self.network.parameters()]
        return {
            "network": {name: tensor.cpu().contiguous() for name, tensor in self.network.state_dict().items()},
            "optimizer": [{name: tensor.cpu().contiguous() for name, tensor in state.items()} for state in states],
        }

    def restore(self, state: dict[str, Any]):
        """Takes up what `state` gave, in the memory layout of this device."""
        self.network.load_state_dict(state["network"])
        for parameter, saved in zip(self.network.parameters(), state["optimizer"], strict=True):
            for name, tensor in saved.items():
                layout = parameter if tensor.shape == parameter.shape else tensor
                self.optimizer.state[parameter][name] = torch.empty_like(layout, device=parameter.device).copy_(tensor)


# Looking at the network -----------------------------------------------------------------------------------------------


def single_views(images: Images, data: Data, device: Device) -> Iterator[tuple[Tensor, Tensor]]:
    """All of `images`, a part of `data`, in order and as they are, in batches, with their labels."""
    for start in range(0, len(images), device.eval_batch_size):
        rows = central(start, min(start + device.eval_batch_size, len(images)), device.torch_device)
        views, labels = batch(images, data, rows)
        yield views.contiguous(memory_format=device.memory_format), labels


@contextmanager
def evaluating(network: Network, device: Device, config: Config) -> Iterator[None]:
    was_training = network.training
    network.eval()
    with torch.inference_mode(), autocast(device, config.precision):
        yield
    network.train(was_training)


def evaluate(network: Network, images: Images, data: Data, device: Device, config: Config) -> float:
    """The error on a part of `data` in percent, single view (section 4.2), in the precision of the training."""
    wrong = torch.zeros((), dtype=torch.int64, device=device.torch_device)
    with evaluating(network, device, config):
        for views, labels in single_views(images, data, device):
            wrong += (network(views).argmax(1) != labels).sum()
    return 100 * int(wrong) / len(images)


def take_population_statistics(network: Network, data: Data, device: Device, config: Config):
    """Replaces BN's moving averages by averages over the training images as they are.

    Training goes on unchanged, since it normalises by the mini-batch and never reads these averages.
    """
    layers = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # a plain average over the batches that follow
    with torch.no_grad(), autocast(device, config.precision):
        for views, _ in single_views(data.train, data, device):
            network(views)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum


def layer_responses(network: Network, data: Data, device: Device, config: Config) -> list[float]:
    """The standard deviation of every 3x3 layer's response on the test set, first layer first (Fig. 7).

    A response is what leaves the layer's BN, before ReLU or addition; where a block's design has no BN right after the
    layer, it is what leaves the layer.
    """
    layers = network.responses()
    batches = math.ceil(len(data.test) / device.eval_batch_size)
    # One buffer from the start: a small tensor kept between large ones that come and go would keep their memory as well.
    moments = torch.zeros(batches, len(layers), 2, device=device.torch_device)
    sizes: list[int] = []

    def note(module: nn.Module, inputs: Any, response: Tensor):
        values = response.float()
        row = moments[len(sizes), positions[module]]
        row[0], row[1] = values.mean(), values.square().mean()

    positions = {module: position for position, module in enumerate(layers)}
    hooks = [module.register_forward_hook(note) for module in layers]
    with evaluating(network, device, config):
        for views, _ in single_views(data.test, data, device):
            network(views)
            sizes.append(len(views))
    for hook in hooks:
        hook.remove()
    weights = torch.tensor(sizes, dtype=torch.float64) / sum(sizes)
    means, squares = moments.cpu().double().unbind(2)
    return (weights @ squares - (weights @ means) ** 2).clamp(min=0).sqrt().tolist()


# The loop -------------------------------------------------------------------------------------------------------------

Ending = Literal["finished", "diverged", "stopped"]


@dataclass
class History:
    """The scalars of a run so far, part of its checkpoint.

    loss, wrong: sums over the iterations since `evaluated`; window_wrong: wrong answers in the current warm-up window;
    seconds: all of the loop's; training_seconds: without evaluations and checkpoints.
    """

    iteration: int = 0
    evaluated: int = 0
    loss: float = 0.0
    wrong: int = 0
    warmup_ended: int | None = None
    window_wrong: int = 0
    seconds: float = 0.0
    training_seconds: float = 0.0

    def note(self, config: Config, losses: list[float], wrong: list[int]):
        """Takes in a chunk, and ends an error-triggered warm-up when its window closes on a low enough error."""
        for value in losses:  # one by one, so that the sum does not depend on how iterations fall into chunks
            self.loss += value
        self.wrong += sum(wrong)
        self.iteration += len(losses)
        if config.warmup == "error" and self.warmup_ended is None:
            self.window_wrong += sum(wrong)
            if self.iteration % WARMUP_WINDOW == 0:
                if 100 * self.window_wrong / (WARMUP_WINDOW * config.batch_size) < WARMUP_ERROR:
                    self.warmup_ended = self.iteration
                self.window_wrong = 0


def chunk_end(config: Config, machine: Machine, device: Device, history: History) -> int:
    """Where the next chunk ends: the device's length, cut at whatever the host has to do."""
    periods = [machine.eval_every, machine.checkpoint_every]
    if config.warmup == "error" and history.warmup_ended is None:
        periods.append(WARMUP_WINDOW)
    at = history.iteration
    return min(at + device.chunk, config.iterations, *(at - at % period + period for period in periods))


@contextmanager
def stop_requests(event: threading.Event) -> Iterator[None]:
    """SIGTERM and SIGINT set the event instead of ending the process."""
    before = {number: signal.signal(number, lambda *_: event.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def train(
    config: Config, machine: Machine, data: Data, device: Device, folder: Path, deadline: float, stop: threading.Event
) -> Turns[Ending]:
    """Trains from the folder's checkpoint, or from the start, until the end, the deadline (of time.monotonic) or stop.

    What it computes does not depend on what has its turns in between.

    Returns: "finished" or "diverged", then with result.json written, or "stopped", then with a checkpoint.

    Raises:
        UserError: the folder's checkpoints cannot be used.
        OSError: the folder cannot be written.
    """
    with ExitStack() as at_the_end:
        training, history = Training(config, data, device, machine.capture), History()
        identity = record.identify(config, data.fingerprint)
        checkpoint = record.load_checkpoint(folder, identity)
        if checkpoint is not None:
            training.restore(checkpoint)
            history = History(**checkpoint["history"])
            print(f"resuming {folder} at iteration {history.iteration} of {config.iterations}", flush=True)
        record.cut_metrics(folder, history.iteration)
        board = open_board(folder, history.iteration) if machine.tensorboard else None
        if board is not None:
            at_the_end.callback(board.close)
        saved = history.iteration if checkpoint is not None else None
        clock = time.monotonic()

        def save() -> int:
            nonlocal clock
            history.seconds, clock = history.seconds + time.monotonic() - clock, time.monotonic()
            record.save_checkpoint(folder, identity | {"history": asdict(history)} | training.state())
            return history.iteration

        with progress_bar(config, history) as bar:
            while history.iteration < config.iterations:
                if stop.is_set() or time.monotonic() >= deadline:
                    if saved != history.iteration:
                        save()
                    return "stopped"
                start, end = history.iteration, chunk_end(config, machine, device, history)
                rates = [learning_rate(config, i, history.warmup_ended) for i in range(start, end)]
                before = time.monotonic()
                losses, wrong = yield from training.chunk(start, end, rates)
                spent = time.monotonic() - before
                history.training_seconds += spent
                bad = [i for i, loss in enumerate(losses) if not math.isfinite(loss)]
                if bad:
                    record.write_result(folder, {"status": "diverged", "iteration": start + bad[0]})
                    return "diverged"
                history.note(config, losses, wrong)
                show_chunk(bar, config, losses, wrong, spent)
                last = end == config.iterations
                if last or end % machine.eval_every == 0:
                    history.seconds, clock = history.seconds + time.monotonic() - clock, time.monotonic()
                    row = measure(training, history, rates[-1])
                    record.append_metrics(folder, row)
                    if board is not None:
                        show_on_board(board, row)
                    show_row(bar, config, row, len(losses) * config.batch_size / spent)
                if last or end % machine.checkpoint_every == 0:
                    saved = save()
        responses = layer_responses(training.network, data, device, config)
        record.write_responses(folder, responses, len(data.test))
        record.write_result(folder, summarise(training, history, record.read_metrics(folder)))
        return "finished"


def measure(training: Training, history: History, rate: float) -> dict[str, Any]:
    """A row of metrics.jsonl; training loss and error are those of the batches since the row before."""
    config, data = training.config, training.data
    count = history.iteration - history.evaluated
    if config.bn_statistics == "population":
        take_population_statistics(training.network, data, training.device, config)
    row = {
        "iteration": history.iteration,
        "learning_rate": rate,
        "train_loss": history.loss / count,
        "train_error": 100 * history.wrong / (count * config.batch_size),
        "test_error": evaluate(training.network, data.test, data, training.device, config),
    }
    if data.held_out is not None:
        row["held_out_error"] = evaluate(training.network, data.held_out, data, training.device, config)
    history.loss, history.wrong, history.evaluated = 0.0, 0, history.iteration
    return row | {"seconds": round(history.seconds, 3)}


def summarise(training: Training, history: History, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """result.json: the final iterate's errors; the best only to show how much it would flatter."""
    config, last = training.config, rows[-1]
    tests = [row["test_error"] for row in rows]
    return {
        "status": "finished",
        "test_error": last["test_error"],
        "mean_of_last_five_test_error": sum(tests[-5:]) / len(tests[-5:]),
        "best_test_error": min(tests),
        **({"held_out_error": last["held_out_error"]} if "held_out_error" in last else {}),
        "train_error": last["train_error"],
        "train_loss": last["train_loss"],
        "parameters": sum(parameter.numel() for parameter in training.network.parameters()),
        "iterations": history.iteration,
        "warmup_ended": history.warmup_ended,
        "seconds": round(history.seconds, 3),
        "images_per_second": round(history.iteration * config.batch_size / history.training_seconds, 1),
        "peak_memory": peak_memory(training.device),
    }


# Showing it -----------------------------------------------------------------------------------------------------------


def open_board(folder: Path, iteration: int) -> Any:
    """TensorBoard's writer, which drops what an interrupted session wrote past the iteration."""
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder / "tensorboard"), purge_step=iteration + 1)


def show_on_board(board: Any, row: dict[str, Any]):
    for name, value in row.items():
        if name not in ("iteration", "seconds"):
            board.add_scalar(name, value, row["iteration"])
    board.flush()


def progress_bar(config: Config, history: History) -> tqdm:
    """A bar on a terminal, with the remaining time; nothing elsewhere."""
    on_terminal = sys.stderr.isatty()
    return tqdm(total=config.iterations, initial=history.iteration, desc=config.net, unit="it", disable=not on_terminal)


def show_chunk(bar: tqdm, config: Config, losses: list[float], wrong: list[int], seconds: float):
    images = len(losses) * config.batch_size
    loss, error, speed = sum(losses) / len(losses), 100 * sum(wrong) / images, images / seconds
    bar.set_postfix_str(f"loss {loss:.3f}, error {error:.1f}%, {speed:.0f} images/s", refresh=False)
    bar.update(len(losses))


def show_row(bar: tqdm, config: Config, row: dict[str, Any], images_per_second: float):
    if bar.disable:
        left = (config.iterations - row["iteration"]) * config.batch_size / images_per_second
        print(
            f"{config.net} seed {config.seed}  iteration {row['iteration']}/{config.iterations}  "
            f"learning rate {row['learning_rate']:g}  "
            f"training loss {row['train_loss']:.4f}  training error {row['train_error']:.2f}%  "
            f"test error {row['test_error']:.2f}%  {images_per_second:.0f} images/s  "
            f"{tqdm.format_interval(left)} left",
            flush=True,
        )
