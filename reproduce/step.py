"""One training step on buffers that stay where they are, given to the device chunk by chunk, as a graph where that works.

A chunk is the iterations between two meetings with the host, at most as many as the device's chunk_iterations.
Shapes: T iterations of a chunk, N images in a batch, C channels, H rows, W columns, K classes; 4 x N describe a batch (see
data.plan).
"""

import sys
from collections import deque
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm import tqdm

from reproduce.config import Config
from reproduce.device import Device, autocast, capture_graph, record_event
from reproduce.interleave import Task
from reproduce.model import build_network, freeze_layers
from reproduce.optimizer import make_optimizer
from reproduce.sampling import Data, gather_batch, sample_batches_cached

EAGER_ITERATIONS = 3
"""Iterations before a capture, in which libraries choose their kernels and the optimizer makes its state."""
BURST, BURSTS_AHEAD = 25, 2
"""Iterations given to the device in one turn, and how many such bursts it may have before it: enough for it not to wait
while others have their turns, and not so many that its queue is full and makes the host wait."""


class Training:
    """One network in training on a device: the buffers that a step reads and writes, and the step.

    A step takes everything from the device and leaves everything there (its batch's description, its learning rate, its
    loss and error), so that a graph of it can be replayed and the host is met once per chunk.
    """

    def __init__(self, config: Config, data: Data, device: Device, capture: bool, network: nn.Module | None = None):
        """network: of `build_network`, where it is built already."""
        self.config, self.data, self.device = config, data, device
        self.network = (network or build_network(config)).to(device.torch_device).to(memory_format=device.memory_format).train()
        freeze_layers(self.network, config.trainable)
        on_device: dict[str, Any] = {"device": device.torch_device}
        self.rows_T4N = torch.zeros(device.chunk_iterations, 4, config.batch_size, dtype=torch.int32, **on_device)
        self.rates_T = torch.zeros(device.chunk_iterations, **on_device)
        self.losses_T = torch.zeros(device.chunk_iterations, **on_device)
        self.wrong_T = torch.zeros(device.chunk_iterations, dtype=torch.int64, **on_device)
        self.cursor = torch.zeros(1, dtype=torch.int64, **on_device)
        self.rate = torch.zeros((), **on_device)
        self.optimizer = make_optimizer(config, self.network, self.rate, device)
        self.may_capture = capture and device.is_accelerator
        self.replay = None
        self.planned_T4N, self.planned_from = self.rows_T4N[:0].cpu(), 0

    def step(self):
        """One iteration: the batch at the cursor, forward, backward, update, loss and wrong answers noted, cursor moved."""
        row_4N = self.rows_T4N.index_select(0, self.cursor)[0]
        self.rate.copy_(self.rates_T.index_select(0, self.cursor)[0])
        images_NCHW, labels_N = gather_batch(self.data.train, self.data, row_4N)
        images_NCHW = images_NCHW.contiguous(memory_format=self.device.memory_format)
        with autocast(self.device, self.config.precision):
            parts = images_NCHW.chunk(2) if self.config.bn_batch == "halves" else [images_NCHW]
            logits_NK = torch.cat([self.network(part) for part in parts])
        loss = F.cross_entropy(logits_NK.float(), labels_N)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.losses_T.index_copy_(0, self.cursor, loss.detach()[None])
        self.wrong_T.index_copy_(0, self.cursor, (logits_NK.argmax(1) != labels_N).sum()[None])
        self.cursor.add_(1)

    def train_chunk(self, start: int, stop: int, rates: list[float]) -> Task[tuple[list[float], list[int]]]:
        """The iterations start <= i < stop, no more than the device's chunk_iterations, at their learning rates.

        Returns: each one's loss and number of wrong answers.
        """
        # Planned by the host and copied to the device: the batches of all iterations, and their learning rates.
        count = stop - start
        self.rows_T4N[:count].copy_(self.plan_batches(start, stop))
        self.rates_T[:count].copy_(torch.tensor(rates))
        self.cursor.zero_()
        # Captured, once: the step as a graph, after a few that run operator by operator.
        done, ahead = 0, deque(maxlen=BURSTS_AHEAD)
        if self.replay is None and self.may_capture:
            done = min(count, EAGER_ITERATIONS)
            for _ in range(done):
                self.step()
            self.capture_step()
        # Given to the device, burst by burst and only a few ahead of it, with a turn for others between them.
        for begin in range(done, count, BURST):
            while len(ahead) == BURSTS_AHEAD and not ahead[0]():
                yield
            self.train_burst(min(BURST, count - begin))
            ahead.append(record_event(self.device))
            yield
        # Planned, while the device is busy: the next chunk.
        if stop < self.config.iterations:
            self.plan_batches(stop, stop + 1)
        # Waited for, without blocking the others.
        while ahead and not ahead[-1]():
            yield
        # Read: whether the graph did anything, since one that replays without doing so has been seen in the field (nothing
        # is lost but time); then all losses and wrong answers, in two copies.
        if self.replay is not None and int(self.cursor) != count:
            self.give_up_capture("its replay does nothing")
            self.train_burst(count - int(self.cursor))
        return self.losses_T[:count].tolist(), self.wrong_T[:count].tolist()

    def train_burst(self, count: int):
        for _ in range(count):
            (self.replay or self.step)()

    def plan_batches(self, start: int, stop: int) -> Tensor:
        """The batches of a chunk's iterations, from a plan made for as many as a chunk can have."""
        first, last = start - self.planned_from, stop - self.planned_from
        if first < 0 or last > len(self.planned_T4N):
            enough = start + self.device.chunk_iterations
            self.planned_T4N, self.planned_from = sample_batches_cached(self.config, len(self.data.train), start, enough), start
            first, last = 0, stop - start
        return self.planned_T4N[first:last]

    def capture_step(self):
        replay = capture_graph(self.device, self.step)
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
            own = self.optimizer.state[parameter]
            for name, tensor in saved.items():
                layout = parameter if tensor.shape == parameter.shape else tensor
                # What is there already may be a view of a larger tensor.
                own.setdefault(name, torch.empty_like(layout, device=parameter.device)).copy_(tensor)
