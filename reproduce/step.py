"""The training step on preallocated buffers, launched in chunks, as a captured graph where the device supports it.

The host and the device synchronize once per chunk (at most the device's chunk_iterations).
Shapes: T iterations of a chunk, N images in a batch, C channels, H rows, W columns, K classes. A batch is described by its
crops, 4 x N (see `sample_batches`).
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
from reproduce.sampling import Data, gather_batch, sample_batches

EAGER_ITERATIONS = 3
"""Iterations before capture, in which libraries select kernels and the optimizer creates its state."""
BURST, BURSTS_AHEAD = 25, 2
"""Iterations launched between two yields, and the maximum number of such bursts queued on the device.

Enough to keep the device busy while other tasks run, and few enough that a full queue does not block the host.
"""


class Training:
    """A network being trained on a device, with the buffers that a step reads and writes.

    A step reads its crops and learning rate from the device and writes its loss and error there. So it can be captured and
    replayed without the host.

    network: from `build_network`, if it is already built.
    """

    def __init__(self, config: Config, data: Data, device: Device, capture: bool, network: nn.Module | None = None):
        self.config, self.data, self.device = config, data, device
        self.network = (network or build_network(config)).to(device.torch_device).to(memory_format=device.memory_format).train()
        freeze_layers(self.network, config.trainable)
        on_device: dict[str, Any] = {"device": device.torch_device}
        self.crops_T4N = torch.zeros(device.chunk_iterations, 4, config.batch_size, dtype=torch.int32, **on_device)
        self.rates_T = torch.zeros(device.chunk_iterations, **on_device)
        self.losses_T = torch.zeros(device.chunk_iterations, **on_device)
        self.wrong_T = torch.zeros(device.chunk_iterations, dtype=torch.int64, **on_device)
        self.cursor = torch.zeros(1, dtype=torch.int64, **on_device)
        self.rate = torch.zeros((), **on_device)
        self.optimizer = make_optimizer(config, self.network, self.rate, device)
        self.may_capture = capture and device.is_accelerator
        self.replay = None
        self.sampled_T4N, self.sampled_start = self.crops_T4N[:0].cpu(), 0

    def step(self):
        """Train on the batch at the cursor, store its loss and number of misclassified images, and advance the cursor."""
        crops_4N = self.crops_T4N.index_select(0, self.cursor)[0]
        self.rate.copy_(self.rates_T.index_select(0, self.cursor)[0])
        images_NCHW, labels_N = gather_batch(self.data.train, self.data, crops_4N)
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
        """Train the iterations start <= i < stop, at most the device's chunk_iterations, with their learning rates.

        Returns: the loss and the number of misclassified images of each iteration.
        """
        # Copy the crops and learning rates of the whole chunk to the device.
        count = stop - start
        self.crops_T4N[:count].copy_(self.get_crops(start, stop))
        self.rates_T[:count].copy_(torch.tensor(rates))
        self.cursor.zero_()
        # Capture the step once, after a few eager iterations.
        done, ahead = 0, deque(maxlen=BURSTS_AHEAD)
        if self.replay is None and self.may_capture:
            done = min(count, EAGER_ITERATIONS)
            for _ in range(done):
                self.step()
            self.capture_step()
        # Launch bursts, a few ahead of the device, and let other tasks run in between.
        for begin in range(done, count, BURST):
            while len(ahead) == BURSTS_AHEAD and not ahead[0]():
                yield
            for _ in range(min(BURST, count - begin)):
                (self.replay or self.step)()
            ahead.append(record_event(self.device))
            yield
        # Sample the next chunk while the device is busy.
        if stop < self.config.iterations:
            self.get_crops(stop, stop + 1)
        # Wait without blocking other tasks.
        while ahead and not ahead[-1]():
            yield
        # A replay may silently do nothing (seen in practice): check the cursor, and repeat the chunk without a graph.
        if self.replay is not None and int(self.cursor) != count:
            self.disable_capture("its replay does nothing")
            for _ in range(count - int(self.cursor)):
                self.step()
        return self.losses_T[:count].tolist(), self.wrong_T[:count].tolist()

    def get_crops(self, start: int, stop: int) -> Tensor:
        """Return the crops of the iterations; sample a whole chunk ahead and cache it."""
        first, last = start - self.sampled_start, stop - self.sampled_start
        if first < 0 or last > len(self.sampled_T4N):
            end = start + self.device.chunk_iterations
            self.sampled_T4N, self.sampled_start = sample_batches(self.config, len(self.data.train), start, end), start
            first, last = 0, stop - start
        return self.sampled_T4N[first:last]

    def capture_step(self):
        replay = capture_graph(self.device, self.step)
        if isinstance(replay, str):
            self.disable_capture(replay)
        else:
            self.replay = replay

    def disable_capture(self, reason: str):
        self.may_capture, self.replay = False, None
        tqdm.write(f"graph capture failed, training without it: {reason}", file=sys.stderr)

    def state(self) -> dict[str, Any]:
        """Return the state of the network and the optimizer for a checkpoint, on the CPU in contiguous memory."""
        states = [self.optimizer.state[parameter] for parameter in self.network.parameters()]
        return {
            "network": {name: tensor.cpu().contiguous() for name, tensor in self.network.state_dict().items()},
            "optimizer": [{name: tensor.cpu().contiguous() for name, tensor in state.items()} for state in states],
        }

    def restore(self, state: dict[str, Any]):
        """Load a state returned by `state`, in the memory layout of this device."""
        self.network.load_state_dict(state["network"])
        for parameter, saved in zip(self.network.parameters(), state["optimizer"], strict=True):
            current = self.optimizer.state[parameter]
            for name, tensor in saved.items():
                layout = parameter if tensor.shape == parameter.shape else tensor
                # Copy into existing tensors: they may be views of a larger one.
                current.setdefault(name, torch.empty_like(layout, device=parameter.device)).copy_(tensor)
