"""One module per question, in the order of RESULTS.md: its section, then its claims and their rules."""

from analysis.questions import (
    ambiguity,
    block_design,
    bn_placement,
    deep,
    degradation,
    layer_responses,
    lenet,
    length,
    mistakes,
    optimizer,
    precision,
    transfer,
    warmup,
    wide,
)

QUESTIONS = (
    *(degradation, warmup, deep, bn_placement, block_design, optimizer, layer_responses),
    *(length, mistakes, precision, wide, lenet, transfer, ambiguity),
)
"""Each has format_section(runs, curves), which returns Markdown from all runs and their curves."""
