"""The sections of RESULTS.md, a function each: from the frame of runs to Markdown. Errors are in percent."""

from collections.abc import Sequence
from dataclasses import replace

import pandas as pd

from analysis.estimates import (
    NEUTRAL_ON,
    NEUTRAL_WITHIN,
    estimate,
    is_neutral,
    mean_effect,
    pair,
    precision_effects,
    signed,
)
from analysis.records import (
    HE,
    IDENTITY,
    PRECISIONS,
    command,
    comparable,
    configs,
    finished,
    label,
    load_paper,
    optimizer_settings,
    published,
    select,
    with_mean_response,
)
from analysis.verdicts import Verdict
from analysis.wording import (
    describe_commit,
    write_difference,
    write_estimates,
    write_failures,
    write_folders,
    write_number,
    write_runs,
    write_table,
)
from reproduce.config import PAPER_ITERATIONS, Block, Config

DEPTHS = (20, 32, 44, 56, 110)
RESIDUAL = [Config(depth=depth) for depth in (*DEPTHS, 1202)]
PLAIN = [Config(depth=depth, residual=False) for depth in DEPTHS]
AFTER = [Config(depth=depth, block="bn-after-add") for depth in DEPTHS]
BLOCKS: tuple[Block, ...] = (
    "original",
    "bn-after-add",
    "relu-before-add",
    "relu-only-preactivation",
    "full-preactivation",
)
BLOCK_DEPTHS = (32, 56, 110)
WARMUPS = [Config(depth=110), Config(depth=110, warmup="iterations"), Config(depth=110, warmup="none"), RESIDUAL[-1]]
LEDGER = {
    "split": ("training images", "50,000", "45,000", Config(depth=56, split="val")),
    "channel_mean": ("mean subtracted", "per pixel", "per channel", Config(depth=56, normalization="channel-mean")),
    "channel_std": ("std divided by", "none", "per channel", Config(depth=56, normalization="channel-mean-std")),
    "initialization": ("He initialisation", "fan-in", "fan-out", Config(depth=56, initialization="fan-out")),
    "last_layer": ("last layer", "as convolutions", "torch's default", Config(depth=56, last_layer="uniform")),
    "decay": ("weight decay", "every parameter", "weights only", Config(depth=56, decay="weights")),
    "bn_statistics": ("BN tests with", "moving", "population", Config(depth=56, bn_statistics="population")),
    "bn_batch": ("BN trains on", "mini-batch of 128", "halves of 64", Config(depth=56, bn_batch="halves")),
    "last_batch": ("last partial batch", "filled up", "dropped", Config(depth=56, last_batch="drop")),
    "warmup": ("warm-up of 110", "training error", "400 iterations", Config(depth=110, warmup="iterations")),
}
"""What is open, our choice, the alternative, and the alternative's config."""


def describe_sessions(runs: pd.DataFrame) -> str:
    """Hardware, versions and hours. A run counts for the machine of its last session."""
    rows = []
    for _, run in runs.iterrows():
        session = run["sessions"][-1] if run["sessions"] else {}
        versions = session.get("versions", {})
        rows.append(
            {
                "device": session.get("device_name", "-"),
                "software": ", ".join(f"{name} {version}" for name, version in versions.items() if version) or "-",
                "precision": run["precision"],
                "commit": describe_commit(session.get("git")),
                "seconds": run["seconds"],
                "speed": run["images_per_second"],
                "finished": run["status"] == "finished",
            }
        )
    if not rows:
        return "No run is recorded yet."
    table = []
    for machine, group in pd.DataFrame(rows).groupby(["device", "software", "precision"]):
        speed = group["speed"].dropna().astype(float)
        runs_of = f"{group['finished'].sum()} of {len(group)}"
        numbers = [f"{group['seconds'].sum() / 3600:.2f}", f"{speed.median():,.0f}" if len(speed) else "-"]
        table.append([*machine, runs_of, *numbers, ", ".join(sorted(set(group["commit"])))])
    header = ["device", "software", "precision", "runs finished", "hours", "images/s", "commits"]
    return write_table(header, table) + (
        "\n\nHours are summed over the runs, evaluations included; runs that share a device share its hours, too. "
        "Images/s is the median over the runs, in training alone. A commit with * had uncommitted changes."
    )


def compare_precisions(runs: pd.DataFrame) -> str:
    """Every lower precision against fp32, net by net and averaged over the nets, and whether it is neutral."""
    rows = []
    for precision in PRECISIONS[1:]:
        effects = precision_effects(runs, precision)
        for net, effect in zip(NEUTRAL_ON, effects, strict=True):
            errors = [write_estimates(select(runs, net), precision=which) for which in (PRECISIONS[0], precision)]
            rows.append([precision, label(net), *errors, signed(estimate(effect)), "-"])
        verdict = {True: "neutral", False: "not neutral", None: "not shown to be neutral"}[is_neutral(runs, precision)]
        rows.append([precision, "both", "-", "-", signed(estimate(mean_effect(effects))), f"**{verdict}**"])
    header = ["precision", "net", "test error, fp32", "test error", "difference", f"within {NEUTRAL_WITHIN:g} points"]
    return write_table(header, rows)


def side_by_side(runs: pd.DataFrame, nets: Sequence[Config]) -> str:
    """The paper, ours and the peers, a column per net."""
    paper = published(load_paper(), kind="residual" if nets[0].residual else "plain", variant="")
    rows = []
    for (source, quantity), group in paper.groupby(["source", "quantity"], sort=False):
        if quantity in ("test error", "best test error"):
            by_depth = {int(row["depth"]): write_number(row) for _, row in group.iterrows()}
            name = f"{source}{', best' if quantity == 'best test error' else ''}"
            rows.append([name, *(by_depth.get(net.depth, "-") for net in nets), group["protocol"].iloc[0]])
    found = pd.concat([select(runs, net) for net in nets])["precision"]
    ours = []
    for precision in [p for p in PRECISIONS if (found == p).any()] or [Config().precision]:
        errors = [write_estimates(select(runs, net), precision=precision) for net in nets]
        protocol = f"50k images; {PAPER_ITERATIONS // 1000}k iterations; final"
        protocol += "" if is_neutral(runs, precision) else f"; {precision} is not shown to be neutral"
        ours.append([f"**ours, {precision}**", *errors, protocol])
    if nets[0].residual:
        rows += parameter_rows(runs, nets)
    return write_table(["", *(str(net.depth) for net in nets), "protocol"], [rows[0], *ours, *rows[1:]])


def parameter_rows(runs: pd.DataFrame, nets: Sequence[Config]) -> list[list[str]]:
    """Parameters as the paper rounds them, as derived, and as counted in the trained nets; and the cost of an image."""
    paper = published(load_paper(), quantity="million parameters").set_index("depth")["value"]
    derived = published(load_paper(), quantity="parameters").set_index("depth")["value"]
    cost = published(load_paper(), quantity="forward million multiply-adds").set_index("depth")["value"]
    counted = [finished(select(runs, net))["parameters"].unique() for net in nets]
    return [
        [f"parameters, {HE}", *(f"{paper[net.depth]:g}M" for net in nets), "rounded"],
        ["parameters, derived", *(f"{derived[net.depth]:,.0f}" for net in nets), "from the definition"],
        ["parameters, ours", *(", ".join(f"{count:,.0f}" for count in counts) or "-" for counts in counted), "counted"],
        ["multiply-adds, derived", *(f"{cost[net.depth]:g}M" for net in nets), "one image, forward"],
    ]


def compare_bn_placement(runs: pd.DataFrame) -> str:
    numbers = published(load_paper(), quantity="test error")
    numbers = numbers[numbers["variant"].isin(["original", "bn-after-add"])]
    rows = []
    for before, after in zip(RESIDUAL, AFTER, strict=False):
        others = []
        for source, group in numbers[numbers["depth"] == before.depth].groupby("source"):
            errors = group.set_index("variant")["value"]
            if len(errors) == 2:
                both = f"{errors['original']:.2f} / {errors['bn-after-add']:.2f}"
                others.append(f"{both} ({source}: {group['protocol'].iloc[0]})")
        ours = [write_estimates(select(runs, before)), write_estimates(select(runs, after))]
        rows.append([before.depth, *ours, write_difference(runs, after, before), "; ".join(others) or "-"])
    return write_table(["depth", "before", "after", "after - before", "others, before / after"], rows)


def compare_block_designs(runs: pd.DataFrame) -> str:
    theirs = {row["variant"]: write_number(row) for _, row in published(load_paper(), source=IDENTITY).iterrows()}
    rows = []
    for block in BLOCKS:
        ours = []
        for depth in BLOCK_DEPTHS:
            net = Config(depth=depth, block=block)
            difference = write_difference(runs, net, Config(depth=depth)) if block != "original" else "-"
            ours.append(write_estimates(select(runs, net)) + (f" [{difference}]" if difference != "-" else ""))
        rows.append([block, *ours, theirs[block]])
    depths = [f"ours, {depth}" for depth in BLOCK_DEPTHS]
    return write_table(["block", *depths, "Identity Mappings, 110, median of five"], rows)


def compare_optimizers(runs: pd.DataFrame, link: str) -> str:
    """Every recorded setting of Adam and AdamW beside SGD on the same net, and the runs behind it."""
    found = optimizer_settings(runs)
    rows = []
    for net, settings in found.items():
        for config in settings:
            setting = [label(net), config.optimizer, f"{config.lr:g}", f"{config.weight_decay:g}"]
            difference = "" if config == net else write_difference(runs, config, net)
            rows.append([*setting, write_estimates(select(runs, config)), difference])
    header = ["net", "optimizer", "learning rate", "weight decay", "test error", "difference from SGD"]
    missing = [Config(optimizer="adam"), Config(depth=32, optimizer="adam", augment=False)]
    behind = list(dict.fromkeys(config for settings in found.values() for config in settings)) or missing
    return write_table(header, rows or [["-"] * len(header)]) + "\n\n" + write_runs(runs, behind, link)


def list_published_optimizers() -> str:
    numbers = load_paper()
    numbers = numbers[numbers["variant"].str.match("sgd|adam|rmsprop|ada")]
    rows = [
        [row["source"], row["depth"] and f"{row['depth']:.0f}", row["variant"], row["quantity"], write_number(row)]
        + [row["protocol"]]
        for _, row in numbers.iterrows()
    ]
    return write_table(["source", "depth", "optimizer", "quantity", "%", "protocol"], rows)


def compare_warmups(runs: pd.DataFrame, link: str) -> str:
    names = {"error": "until the training error is below 80%", "iterations": "400 iterations", "none": "none"}
    rows = []
    for config in WARMUPS:
        cell = finished(select(runs, config))
        ended = sorted(f"{value:.0f}" for value in cell["warmup_ended"].dropna())
        difference = "" if config == WARMUPS[0] else write_difference(runs, config, WARMUPS[0])
        rows.append([config.depth, names[config.warmup], write_estimates(cell), difference, ", ".join(ended) or "-"])
    header = ["depth", "warm-up", "test error", "difference from the first row", "warm-up ended at iteration"]
    return write_table(header, rows) + "\n\n" + write_runs(runs, WARMUPS, link)


def compare_layer_responses(runs: pd.DataFrame) -> str:
    rows = []
    for config in [*PLAIN, *RESIDUAL]:
        cell = with_mean_response(finished(select(runs, config)))
        rows.append([label(config), write_estimates(cell, "mean_response")])
    return write_table(["net", "mean std of the responses"], rows)


def measure_effects(runs: pd.DataFrame) -> dict[str, str]:
    """The effect of every alternative of the ledger and of the lower precisions, as alternative - ours."""
    effects = {name: write_difference(runs, config, Config(depth=config.depth)) for name, (*_, config) in LEDGER.items()}
    default = finished(select(runs, Config()))
    for precision in PRECISIONS[1:]:
        lower, full = (default[default["precision"] == which] for which in (precision, Config().precision))
        effects[precision] = signed(pair(lower, full))
    return {f"effect_{name}": "not measured" if effect == "-" else effect for name, effect in effects.items()}


def write_ledger(runs: pd.DataFrame, link: str) -> str:
    effects = measure_effects(runs)
    rows = [[*choice, effects[f"effect_{name}"]] for name, (*choice, _) in LEDGER.items()]
    behind = write_runs(runs, [config for *_, config in LEDGER.values()], link)
    return write_table(["open in the paper", "ours", "alternative", "effect"], rows) + "\n\n" + behind


def list_claims(verdicts: Sequence[Verdict]) -> str:
    table = write_table(["", "claim", "verdict"], [[v.name, v.claim, f"**{v.verdict}**"] for v in verdicts])
    details = "\n".join(f"- **{v.name}**: {v.numbers}.\n  Rule: {v.rule}" for v in verdicts)
    return f"{table}\n\nThe numbers behind each verdict, and its rule:\n\n{details}"


def list_shortened(runs: pd.DataFrame, link: str) -> str:
    """All runs that are not comparable with the paper, a row per config and precision."""
    others = runs.drop(comparable(runs).index)
    rows = []
    default = Config()
    shown = {
        "iterations": default.iterations,
        "dataset": default.dataset,
        "split": default.split,
    }  # in their own columns
    every = dict.fromkeys(replace(config, seed=default.seed) for config in configs(others))
    for config in sorted(every, key=lambda config: (config.residual, config.depth, config.iterations)):
        cell = select(others, config)
        cell = cell[cell["precision"] == config.precision]
        errors = [write_estimates(cell, column, config.precision) for column in ("test_error", "held_out_error")]
        made_by = [write_failures(cell), f"`{command(config)}`", write_folders(cell, link)]
        kind = [label(replace(config, **shown)), config.iterations, config.dataset, config.split, config.precision]
        rows.append([*kind, *errors, *made_by])
    header = ["net", "iterations", "data", "split", "precision", "test error", "held-out error", "without result"]
    return write_table([*header, "command", "records"], rows) if rows else "None."


def list_without_result(runs: pd.DataFrame) -> str:
    """Diverged and unfinished runs of any kind, and where they stopped."""
    rows = runs[runs["status"] != "finished"]
    lines = []
    for (_, row), config in zip(rows.iterrows(), configs(rows), strict=True):
        reached = f"{row['iteration']:.0f} of {row['iterations']}"
        lines.append([row["folder"], row["status"], reached, f"`{command(config)} --seed {config.seed}`"])
    return write_table(["run", "state", "iteration", "command"], lines) if lines else "None."
