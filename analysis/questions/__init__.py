"""One module per question, in the order of RESULTS.md: its section, and its claims beside their rules."""

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
    wide,
)

QUESTIONS = (
    precision,
    degradation,
    bn_placement,
    block_design,
    optimizer,
    deep,
    layer_responses,
    ambiguity,
    mistakes,
    length,
    wide,
    lenet,
    transfer,
)
"""Each has write_section(runs, link): Markdown from all runs; link is where the run folders are, seen from RESULTS.md."""
