"""Train one network: the loop with its evaluations, checkpoints and result (section 4.2)."""

import math
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from msgspec import convert, to_builtins

from reproduce import checkpoints, record
from reproduce.config import Config, RunOptions
from reproduce.dataset import find_data_folder
from reproduce.device import peak_memory
from reproduce.errors import UserError
from reproduce.evaluation import (
    Evaluation,
    evaluate_test_set,
    measure_error,
    measure_small_scales,
    update_population_statistics,
)
from reproduce.interleave import Task
from reproduce.model import Network, count_parameters
from reproduce.optimizer import WARMUP_ERROR, WARMUP_WINDOW, learning_rate, make_example_state
from reproduce.progress import Progress, log_to_tensorboard, open_tensorboard, print_header
from reproduce.schema import Amount, Count, Diverged, Finished, Responses, Row
from reproduce.step import EAGER_ITERATIONS, Training

CHUNK_SECONDS = 5.0
"""Target duration of a chunk in seconds; progress and stop signals are handled between chunks."""


@dataclass
class History:
    """The scalars of a run so far; part of its checkpoint.

    loss, wrong: sums over the iterations since the evaluation at `evaluated`. window_wrong: misclassified images
    in the current warm-up window. seconds: of all sessions. training_seconds: without evaluations and checkpoints.
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
        """Add a chunk. End an error-triggered warm-up after a window with a low error, or at the first milestone."""
        for value in losses:  # one by one, so that the sum does not depend on the chunks
            self.loss += value
        self.wrong += sum(wrong)
        self.iteration += len(losses)
        if config.warmup == "error" and self.warmup_ended is None:
            self.window_wrong += sum(wrong)
            if self.iteration % WARMUP_WINDOW == 0:
                is_low = 100 * self.window_wrong / (WARMUP_WINDOW * config.batch_size) < WARMUP_ERROR
                milestone = config.iterations // 2
                if is_low or self.iteration >= milestone:
                    self.warmup_ended = min(self.iteration, milestone)
                self.window_wrong = 0


def train(training: Training, options: RunOptions, folder: Path, deadline: float, stop_signals: Sequence[int]) -> Task[None]:
    """Train a run from its newest checkpoint, or from the start, until its end, the deadline, or a stop signal.

    At its end result.json is written, else a checkpoint. The result does not depend on other tasks on the same device.

    deadline: the value of time.monotonic() at which to stop. stop_signals: signals received (see signals.py).

    Raises:
        UserError: no checkpoint of the folder is usable.
        OSError: the folder cannot be written.
    """
    config = training.config
    history, rows = resume_run(training, folder, options)
    start_time = time.monotonic() - history.seconds
    progress = Progress(config, history.iteration, rows)
    final: Evaluation | None = None
    max_chunk = EAGER_ITERATIONS  # until the throughput is known

    def save(is_best: bool = False):
        history.seconds = time.monotonic() - start_time
        save_checkpoint(folder, training, history, rows, options, is_best)

    tensorboard = open_tensorboard(folder, history.iteration) if options.tensorboard else nullcontext()
    with progress.bar, tensorboard as board:
        while history.iteration < config.iterations:
            if stop_signals or time.monotonic() >= deadline:
                save()
                return
            start = history.iteration
            end = next_chunk_end(config, options, history, min(training.device.chunk_iterations, max_chunk))
            rates = [learning_rate(config, i, history.warmup_ended) for i in range(start, end)]
            chunk_start = time.monotonic()
            losses, wrong = yield from training.train_chunk(start, end, rates)
            elapsed = time.monotonic() - chunk_start
            history.training_seconds += elapsed
            for iteration, loss in enumerate(losses, start):
                if not math.isfinite(loss):
                    record.write_json(folder / record.RESULT, Diverged(iteration=iteration))
                    return
            history.update(config, losses, wrong)
            progress.show_chunk(losses, wrong, elapsed)
            max_chunk = max(1, int(CHUNK_SECONDS * len(losses) / elapsed))
            is_last, is_best = end == config.iterations, False
            if is_last or end % options.eval_every == 0:
                history.seconds = time.monotonic() - start_time
                progress.show_state("evaluating")
                row, final = evaluate(training, history, rates[-1], is_last)
                rows.append(row)
                record.write_metrics(folder, rows)
                if board is not None:
                    log_to_tensorboard(board, row)
                progress.show_row(row)
                is_best = options.keep_best and is_best_evaluation(config, rows)
            if is_last or is_best or end % options.checkpoint_every == 0:
                save(is_best)
    write_record(folder, training, history, rows, final)


def next_chunk_end(config: Config, options: RunOptions, history: History, max_chunk: int) -> int:
    """Return the end of the next chunk, no later than the next evaluation, checkpoint or end of a warm-up window."""
    periods = [options.eval_every, options.checkpoint_every]
    if config.warmup == "error" and history.warmup_ended is None:
        periods.append(WARMUP_WINDOW)
    start = history.iteration
    return min(start + max_chunk, config.iterations, *(start - start % period + period for period in periods))


# Checkpoints ------------------------------------------------------------------------------------------------------------


def resume_run(training: Training, folder: Path, options: RunOptions) -> tuple[History, list[Row]]:
    """Restore the newest checkpoint, if there is one, and print the header.

    Raises:
        UserError: no checkpoint is usable, or all checkpoints of a run have been lost.
    """
    identity = checkpoints.checkpoint_identity(training.config, training.data.fingerprint)
    loaded = checkpoints.load_checkpoint(folder, identity, partial(restore_checkpoint, training))
    if loaded is None:
        rows = record.read_metrics(folder)
        if rows and rows[-1].iteration > options.checkpoint_every:
            raise UserError(
                f"{folder / record.METRICS} reaches iteration {rows[-1].iteration}, but there is no checkpoint to resume from: "
                f"restore {checkpoints.NEWEST} or remove {folder} to start over"
            )
    history, rows = loaded or (History(), [])
    record.write_metrics(folder, rows)  # drop the rows after the checkpoint: they are computed again
    print_header(training, options, folder, f"resuming at iteration {history.iteration:,}" if loaded else "new run")
    return history, rows


def restore_checkpoint(training: Training, checkpoint: dict[str, Any]) -> tuple[History, list[Row]]:
    """Restore network and optimizer from a checkpoint of the same run; return its history and rows.

    Raises:
        LookupError, ValueError, msgspec.ValidationError: the checkpoint does not match; the training state is unchanged.
    """
    history, rows = convert(checkpoint["history"], History), convert(checkpoint["rows"], list[Row])
    if checkpoint["history"].keys() != asdict(history).keys():
        raise ValueError("its history has other fields")
    if not history.evaluated <= history.iteration <= training.config.iterations:
        raise ValueError(f"it is at iteration {history.iteration} of {training.config.iterations}")
    if (rows[-1].iteration if rows else 0) != history.evaluated:
        raise ValueError(f"it lacks the row of iteration {history.evaluated}")
    examples = make_example_state(training.config, training.network)
    for found, expected in [
        (checkpoint["network"], training.network.state_dict()),
        *zip(checkpoint["optimizer"], examples if history.iteration else [{}] * len(examples), strict=True),
    ]:
        for name, tensor in expected.items():
            if (found[name].shape, found[name].dtype) != (tensor.shape, tensor.dtype):
                raise ValueError(f"{name} has another shape or type")
    training.restore(checkpoint)
    return history, rows


def save_checkpoint(folder: Path, training: Training, history: History, rows: list[Row], options: RunOptions, is_best: bool):
    """Save the state of the run, with the normalization and the data folder for the commands that use the network."""
    config, data = training.config, training.data
    state = checkpoints.checkpoint_identity(config, data.fingerprint) | training.state()
    state |= {"history": asdict(history), "rows": to_builtins(rows), "mean": data.mean.cpu(), "std": data.std.cpu()}
    state |= {"data_folder": str(find_data_folder(config.dataset, options.data).absolute())}
    checkpoints.save_checkpoint(folder, state, is_best)


def is_best_evaluation(config: Config, rows: list[Row]) -> bool:
    """Whether the last evaluation is better than all before it."""
    errors = [getattr(row, checkpoints.BEST_BY[config.split]) for row in rows]
    return errors.index(min(errors)) == len(errors) - 1


# Evaluation and result --------------------------------------------------------------------------------------------------


def evaluate(training: Training, history: History, rate: float, is_last: bool) -> tuple[Row, Evaluation | None]:
    """Return a row of the metrics and, for the last one, the evaluation on the test set. Reset the training loss and error."""
    config, data, network, device = training.config, training.data, training.network, training.device
    if config.bn_statistics == "population":
        update_population_statistics(network, data, device, config)
    final = evaluate_test_set(network, data, device, config) if is_last else None
    validation = data.validation
    count = history.iteration - history.evaluated
    row = Row(
        iteration=history.iteration,
        learning_rate=rate,
        train_loss=history.loss / count,
        train_error=100 * history.wrong / (count * config.batch_size),
        test_error=measure_error(network, data.test, data, device, config) if final is None else final.error,
        held_out_error=None if validation is None else measure_error(network, validation, data, device, config),
        seconds=round(history.seconds, 3),
    )
    history.loss, history.wrong, history.evaluated = 0.0, 0, history.iteration
    return row, final


def write_record(folder: Path, training: Training, history: History, rows: list[Row], final: Evaluation | None):
    """Write the final files of a run. final: None if a previous session wrote the last checkpoint but not the result."""
    config, data, device = training.config, training.data, training.device
    if final is None:
        final = evaluate_test_set(training.network, data, device, config)
        rows[-1].test_error = final.error  # on another device it may differ
        record.write_metrics(folder, rows)
    if not all(map(math.isfinite, final.responses)):  # the last update diverged: no loss is computed after it
        record.write_json(folder / record.RESULT, Diverged(iteration=history.iteration))
        return
    if isinstance(training.network, Network):
        scales = measure_small_scales(training.network)
        responses = Responses(images=len(data.test), std=final.responses, small_scales=scales)
        record.write_json(folder / record.RESPONSES, responses)
    record.write_predictions(folder, final.predicted, final.labels, len(config.dataset_info.class_names))
    result = Finished(
        **record.summarize_rows(rows),
        parameters=count_parameters(training.network),
        iterations=history.iteration,
        warmup_ended=history.warmup_ended,
        seconds=round(history.seconds, 3),
        images_per_second=round(history.iteration * config.batch_size / history.training_seconds, 1),
        peak_memory=peak_memory(device),
    )
    record.write_json(folder / record.RESULT, result)
