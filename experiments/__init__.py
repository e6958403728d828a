"""One module per question put to the paper, each a docstring and its list of configs, and the sweep that trains
them."""
