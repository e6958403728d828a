"""Training one network: the loop with its history, its checkpoints, its rows of metrics and its result (section 4.2)."""

import math
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from msgspec import to_builtins
from torch import Tensor, nn

from reproduce import record
from reproduce.config import Config, RunOptions
from reproduce.device import Device, count_threads, format_device, peak_memory
from reproduce.errors import UserError
from reproduce.evaluation import measure_error, measure_layer_responses, predict_classes, update_population_statistics
from reproduce.interleave import Task
from reproduce.optimizer import WARMUP_ERROR, WARMUP_WINDOW, learning_rate
from reproduce.progress import Progress, format_header, log_to_tensorboard, open_tensorboard, print_line
from reproduce.sampling import Data
from reproduce.schema import Amount, Count, Diverged, Finished, Row, convert
from reproduce.step import EAGER_ITERATIONS, Training

Ending = Literal["finished", "diverged", "stopped"]
ADAM_STATE = {"step", "exp_avg", "exp_avg_sq"}
OPTIMIZER_STATE = {"sgd": {"momentum_buffer"}, "adam": ADAM_STATE, "adamw": ADAM_STATE}
"""What each keeps of a parameter, from the first iteration on."""
CHUNK_SECONDS = 5.0
"""What a chunk may take, where one iteration takes less: until its end nothing is shown and no request to stop is seen."""


@dataclass
class History:
    """The scalars of a run so far, part of its checkpoint beside the rows of metrics that its result is made from.

    loss, wrong: sums over the iterations since `evaluated`; window_wrong: wrong answers in the current warm-up window;
    seconds: all of the loop's; training_seconds: without evaluations and checkpoints.
    """

    iteration: Count = 0
    evaluated: Count = 0
    loss: Amount = 0.0
    wrong: Count = 0
    warmup_ended: Count | None = None
    window_wrong: Count = 0
    seconds: Amount = 0.0
    training_seconds: Amount = 0.0

    def update(self, config: Config, losses: list[float], wrong: list[int]):
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


def parse_checkpoint(training: Training, checkpoint: dict[str, Any]) -> tuple[History, list[Row]]:
    """Restore the network and the optimizer from a checkpoint of the same run and return its history and rows.

    Raises:
        ValueError: it does not fit.
    """
    if not isinstance(checkpoint.get("history"), dict) or checkpoint["history"].keys() != asdict(History()).keys():
        raise ValueError("its history has other fields")
    history, rows = convert(checkpoint["history"], History), convert(checkpoint.get("rows"), list[Row])
    if not history.evaluated <= history.iteration <= training.config.iterations:
        raise ValueError(f"iteration {history.iteration} in a run of {training.config.iterations}")
    if (rows[-1].iteration if rows else 0) != history.evaluated:
        raise ValueError(f"it lacks the row of iteration {history.evaluated}")
    problem = validate_tensors(training, checkpoint, begun=history.iteration > 0)
    if problem is not None:
        raise ValueError(problem)
    training.restore(checkpoint)
    return history, rows


def validate_tensors(training: Training, checkpoint: dict[str, Any], begun: bool) -> str | None:
    """As `validate_checkpoint`, of the network and the optimizer alone."""
    config, network, expected = training.config, checkpoint.get("network"), training.network.state_dict()
    if not isinstance(network, dict) or network.keys() != expected.keys():
        return "its network has other tensors"
    bad = [name for name, tensor in expected.items() if not is_like(network[name], tensor)]
    if bad:
        return f"{bad[0]} of its network has another shape or type"
    parameters, states = list(training.network.parameters()), checkpoint.get("optimizer")
    has_state = begun and (config.optimizer != "sgd" or config.momentum)
    if not isinstance(states, list) or len(states) != len(parameters):
        return "its optimizer has other parameters"
    for parameter, state in zip(parameters, states, strict=True):
        needed = OPTIMIZER_STATE[config.optimizer] if has_state and parameter.requires_grad else set()
        if not isinstance(state, dict) or not needed <= state.keys():
            return "its optimizer has other tensors"
        bad = [name for name, tensor in state.items() if not is_like(tensor, parameter) and not is_scalar(tensor)]
        if bad:
            return f"{bad[0]} of its optimizer has another shape or type"
    return None


def is_like(found: Any, expected: Tensor) -> bool:
    return isinstance(found, Tensor) and found.shape == expected.shape and found.dtype == expected.dtype


def is_scalar(found: Any) -> bool:
    return isinstance(found, Tensor) and found.dim() == 0


def next_chunk_end(config: Config, options: RunOptions, device: Device, history: History, most: int) -> int:
    """Where the next chunk ends: after the device's length, or `most` iterations, cut at whatever the host has to do."""
    periods = [options.eval_every, options.checkpoint_every]
    if config.warmup == "error" and history.warmup_ended is None:
        periods.append(WARMUP_WINDOW)
    at = history.iteration
    return min(at + min(device.chunk_iterations, most), config.iterations, *(at - at % period + period for period in periods))


def train(
    config: Config,
    options: RunOptions,
    data: Data,
    device: Device,
    folder: Path,
    deadline: float,
    requests: Sequence[int],
    network: nn.Module | None = None,
) -> Task[Ending]:
    """Trains from the folder's checkpoint, or from the start, until the end, the deadline (of time.monotonic) or a request.

    requests: those to stop, as they come in (see stop.py). network: of `build_network`, where it is built already.
    What it computes does not depend on what has its turns in between.

    Returns: "finished" or "diverged", then with result.json written, or "stopped", then with a checkpoint.

    Raises:
        UserError: the folder's checkpoints cannot be used.
        OSError: the folder cannot be written.
    """
    with ExitStack() as at_the_end:
        training = Training(config, data, device, options.capture, network)
        identity = record.checkpoint_identity(config, data.fingerprint)
        checkpoint = record.load_checkpoint(folder, identity, partial(parse_checkpoint, training))
        if checkpoint is None:
            require_no_later_rows(folder, options.checkpoint_every)
        history, rows = (History(), []) if checkpoint is None else checkpoint
        record.write_metrics(folder, rows)
        at = None if checkpoint is None else history.iteration
        print_line(
            format_header(config, options, folder, format_device(device), count_parameters(training), count_images(data), at)
        )
        board = open_tensorboard(folder, history.iteration) if options.tensorboard else None
        if board is not None:
            at_the_end.callback(board.close)
        saved = history.iteration if checkpoint is not None else None
        clock = time.monotonic()

        def add_seconds():
            nonlocal clock
            now = time.monotonic()
            history.seconds, clock = history.seconds + now - clock, now

        def save_progress(best: bool = False) -> int:
            add_seconds()
            state = identity | {"history": asdict(history), "rows": to_builtins(rows)} | training.state()
            if config.initial:  # the file's scale, by which the network goes on
                state |= {"mean": data.mean.cpu(), "std": data.std.cpu()}
            record.save_checkpoint(folder, state, best)
            return history.iteration

        if options.keep_best and is_best_evaluation(config, rows) and history.evaluated == history.iteration:
            save_progress(best=True)  # the process may have died before it wrote best.pt
        progress = Progress(config, history.iteration, rows, count_threads(device))
        most = EAGER_ITERATIONS  # how fast it is, nobody knows yet
        with progress.bar:
            while history.iteration < config.iterations:
                if requests or time.monotonic() >= deadline:
                    if saved != history.iteration:
                        save_progress()
                    return "stopped"
                start, end = history.iteration, next_chunk_end(config, options, device, history, most)
                rates = [learning_rate(config, i, history.warmup_ended) for i in range(start, end)]
                before = time.monotonic()
                losses, wrong = yield from training.train_chunk(start, end, rates)
                elapsed = time.monotonic() - before
                history.training_seconds += elapsed
                bad = [i for i, loss in enumerate(losses) if not math.isfinite(loss)]
                if bad:
                    record.write_result(folder, Diverged(iteration=start + bad[0]))
                    return "diverged"
                history.update(config, losses, wrong)
                progress.show_chunk(losses, wrong, elapsed)
                most = max(1, int(CHUNK_SECONDS * len(losses) / elapsed))
                last, best = end == config.iterations, False
                if last or end % options.eval_every == 0:
                    add_seconds()
                    row = measure_row(training, history, rates[-1])
                    rows.append(row)
                    record.append_metrics(folder, row)
                    if board is not None:
                        log_to_tensorboard(board, row)
                    progress.show_row(row)
                    best = options.keep_best and is_best_evaluation(config, rows)
                if last or best or end % options.checkpoint_every == 0:
                    saved = save_progress(best)
        responses = measure_layer_responses(training.network, data, device, config)
        if not all(map(math.isfinite, responses)):  # by the last update of all, which no loss has shown
            record.write_result(folder, Diverged(iteration=history.iteration))
            return "diverged"
        if config.family == "6n+2":
            record.write_responses(folder, responses, len(data.test))
        predicted, labels = predict_classes(training.network, data, device, config)
        classes = len(config.dataset_info.class_names)
        record.write_predictions(folder, predicted, labels, classes)
        record.write_result(folder, summarize_run(training, history, rows))
        return "finished"


def require_no_later_rows(folder: Path, checkpoint_every: int):
    """Refuse to start over a run without a checkpoint whose rows show that it had one.

    Raises:
        UserError: there are such rows, or they are damaged.
    """
    rows = record.read_metrics(folder)
    if rows and rows[-1].iteration > checkpoint_every:
        raise UserError(
            f"{folder / record.METRICS} reaches iteration {rows[-1].iteration}, and there is no checkpoint to resume from: "
            f"restore {record.NEWEST} or remove {folder} to start over"
        )


def is_best_evaluation(config: Config, rows: list[Row]) -> bool:
    """Whether the last evaluation is better than all before it."""
    errors = [getattr(row, record.BEST_BY[config.split]) for row in rows]
    return bool(errors) and errors.index(min(errors)) == len(errors) - 1


def count_parameters(training: Training) -> int:
    return sum(parameter.numel() for parameter in training.network.parameters())


def count_images(data: Data) -> dict[str, int]:
    """How many images there are of each kind."""
    kinds = {"training": data.train, "held-out": data.validation, "test": data.test}
    return {kind: len(images) for kind, images in kinds.items() if images is not None}


def measure_row(training: Training, history: History, rate: float) -> Row:
    """A row of metrics.jsonl; training loss and error are those of the batches since the row before."""
    config, data = training.config, training.data
    count = history.iteration - history.evaluated
    if config.bn_statistics == "population":
        update_population_statistics(training.network, data, training.device, config)
    validation_error = None
    if data.validation is not None:
        validation_error = measure_error(training.network, data.validation, data, training.device, config)
    row = Row(
        iteration=history.iteration,
        learning_rate=rate,
        train_loss=history.loss / count,
        train_error=100 * history.wrong / (count * config.batch_size),
        test_error=measure_error(training.network, data.test, data, training.device, config),
        held_out_error=validation_error,
        seconds=round(history.seconds, 3),
    )
    history.loss, history.wrong, history.evaluated = 0.0, 0, history.iteration
    return row


def summarize_run(training: Training, history: History, rows: list[Row]) -> Finished:
    """result.json: the final iterate's errors; the best only to show how much it would flatter."""
    config, last = training.config, rows[-1]
    tests = [row.test_error for row in rows]
    return Finished(
        test_error=last.test_error,
        mean_of_last_five_test_error=sum(tests[-5:]) / len(tests[-5:]),
        best_test_error=min(tests),
        held_out_error=last.held_out_error,
        train_error=last.train_error,
        train_loss=last.train_loss,
        parameters=count_parameters(training),
        iterations=history.iteration,
        warmup_ended=history.warmup_ended,
        seconds=round(history.seconds, 3),
        images_per_second=round(history.iteration * config.batch_size / history.training_seconds, 1),
        peak_memory=peak_memory(training.device),
    )
