"""Does training in TF32 or bf16 change the test error? And how large is the error of bf16 gradients?"""

import pandas as pd

from analysis.estimates import MINIMUM, Estimate, combine, estimate
from analysis.markdown import format_estimates, format_net, format_net_name, format_number, format_table, join_words
from analysis.paper import find_number, published_std
from analysis.records import PRECISIONS, RECORDS, comparable_runs, finished_runs, select_runs
from experiments.devices import GradientNoiseRecord, load_measurements
from experiments.precision import NETS

COMPARISON = "tensorflow/models#5243"
"""Source of a published comparison."""
GRADIENT_NOISE = RECORDS / "gradient_noise"


def format_section(runs: pd.DataFrame, curves: pd.DataFrame) -> str:
    full = comparable_runs(runs)
    fp32, *others = PRECISIONS
    rows, missing = [], []
    for net in NETS:
        for precision in others:
            pair = [select_runs(full[full["precision"] == name], net) for name in (fp32, precision)]
            means = [estimate(finished_runs(group)["test_error"].astype(float)) for group in pair]
            if all(mean.n for mean in means):
                if any(mean.n < MINIMUM for mean in means):
                    means = [Estimate(mean.n, mean.mean, published_std(net), published=True) for mean in means]
                rows.append([format_net(net), precision, *map(format_estimates, pair), combine(means, [-1, 1])])
            else:
                missing.append(f"{format_net(net)} in {fp32} and {precision}")
    header = ["network", "precision", "test error, fp32", "test error", "difference"]
    command = "`python experiments/sweep.py precision`"
    parts = [
        "## Does lower precision change the test error?",
        describe_published(),
        format_table(header, rows) if rows else "",
        f"Comparisons not complete yet: {', '.join(missing)} ({command})." if missing else f"{command} trains these networks.",
        *map(format_gradient_noise, load_measurements(GRADIENT_NOISE, GradientNoiseRecord)),
    ]
    return "\n\n".join(filter(None, parts))


def describe_published() -> str:
    """Return the published comparison of fp16 with fp32."""
    numbers = [find_number(source=COMPARISON, quantity="test error", variant=variant) for variant in ("", "fp16")]
    fp32, fp16 = (format_number(number).removesuffix(" (n=5)") for number in numbers)
    return (
        f"A published comparison on ResNet-56 reports {fp32}% in fp32 and {fp16}% in fp16 (n=5 each, {COMPARISON}). We compare "
        "our networks with each other only within one precision."
    )


def describe_fp32() -> str:
    """Return by how much the test errors of the trained weights change if they are evaluated in fp32."""
    records = load_measurements(GRADIENT_NOISE, GradientNoiseRecord)
    errors = [(row.test_error_fp32, row.test_error_bf16) for record in records for row in record.rows]
    changes = [abs(fp32 - bf16) for fp32, bf16 in errors if fp32 is not None and bf16 is not None]
    if not changes:
        return ""
    return (
        f"Evaluating trained weights in fp32 instead of bf16 changes the test error by at most {max(changes):.2f} points "
        "([table](#does-lower-precision-change-the-test-error)). This does not exclude an effect of training in bf16."
    )


def format_gradient_noise(measurement: GradientNoiseRecord) -> str:
    """Return the table of one record."""
    rows, above = [], sum(abs(row.bias) > row.bias_by_chance for row in measurement.rows)
    for row in measurement.rows:
        shares = (row.relative_error, abs(row.bias), row.bias_by_chance, row.noise)
        errors = ["" if error is None else f"{error:.2f}" for error in (row.test_error_fp32, row.test_error_bf16)]
        names = [format_net_name(row.net), row.weights.removesuffix(".safetensors")]
        rows.append([*names, *(f"{100 * share:.1f}" for share in shares), *errors])
    header = ["network", "weights", "error", "bias", "bias by chance", "noise", "test error, fp32", "test error, bf16"]
    count, device = measurement.batches, measurement.device_name
    return f"""{describe_gradient_noise(measurement)} Gradients of {count} mini-batches in bf16 and in fp32 from the same
weights, and test errors of the trained weights evaluated in both ({device}):

{format_table(header, rows)}

In %. Error: mean of |bf16 - fp32| / |fp32| over the batches; at the trained weights, an error of 20% adds about 4% to the
variance of a batch's gradient. Bias: the systematic part of the error, relative to the mean gradient. Bias by chance: the
value that bias exceeds with probability 5% if there is no bias; it is exceeded in {above} of {len(rows)} rows. Noise:
standard deviation of the fp32 gradient over the batches, relative to the mean gradient. Gradients of zero mean would have
{100 * count**0.5:.0f}% (√{count}), so in rows near that value neither the mean gradient nor the bias relative to it is
resolved. `python experiments/devices/gradient_noise.py` measures this."""


def describe_gradient_noise(measurement: GradientNoiseRecord) -> str:
    """Return the relative error of bf16 gradients at the initial and at trained weights."""
    initial = [row for row in measurement.rows if row.weights == "initial"]
    trained = [row for row in measurement.rows if row.weights != "initial"]
    listed = join_words([f"{100 * row.relative_error:.0f}% ({format_net_name(row.net)})" for row in initial])
    text = f"At the initial weights, bf16 changes the gradient of a mini-batch by {listed}"
    if trained:
        low, high = (100 * choose(row.relative_error for row in trained) for choose in (min, max))
        is_residual = all(row.net.startswith("residual") for row in trained)
        nets = "trained residual networks (no plain one has been measured)" if is_residual else "trained networks"
        text += f"; in {nets}, by {low:.0f} to {high:.0f}%, much less than gradients differ between mini-batches"
    return f"{text}."
