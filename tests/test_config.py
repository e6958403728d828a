"""Config: keys, resolved defaults, invalid values, and the command line that gives a configuration."""

from dataclasses import asdict, dataclass
from typing import Any

import pytest

from reproduce.config import Config, format_recipe
from reproduce.errors import UserError

KEYS = {
    "dece074e": Config(),
    "29f33bb5": Config(depth=44),
    "843053a6": Config(depth=56, residual=False),
    "33634f61": Config(depth=110),
    "27aafb12": Config(precision="bf16"),
    "fc7e84bc": Config(residual=False, precision="bf16"),
    "65b9c68a": Config(depth=32, block="bn-after-add", precision="bf16"),
    "7389fd68": Config(depth=56, optimizer="adamw", weight_decay=0.01),
    "4b079079": Config(split="val", bn_batch="halves", dataset="synthetic", iterations=100),
}


def test_keys_never_change():
    assert {config.key: config for config in KEYS.values()} == KEYS, "existing records would no longer be found"


@dataclass(frozen=True)
class ExtendedConfig(Config):
    label_smoothing: float = 0.0


def test_a_new_field_changes_the_key_only_if_it_is_used():
    for key, config in KEYS.items():
        assert ExtendedConfig(**asdict(config)).key == key
        assert ExtendedConfig(**asdict(config), label_smoothing=0.1).key not in KEYS


def test_the_key_covers_every_field_except_the_seed():
    default = Config()
    assert default.key == Config(seed=5, lr=0.1, warmup="none").key
    folder: dict[str, Any] = {"dataset": "pictures", "classes": "a/b"}
    others = [
        Config(depth=32), Config(residual=False), Config(shortcut="B"), Config(block="bn-after-add"),
        Config(optimizer="adam"), Config(lr=0.2), Config(momentum=0.8), Config(weight_decay=0), Config(batch_size=64),
        Config(iterations=100), Config(warmup="error"), Config(augment=False), Config(split="val"),
        Config(precision="bf16"), Config(normalization="channel-mean"), Config(initialization="fan-out"),
        Config(last_layer="uniform"), Config(decay="weights"), Config(bn_statistics="population"),
        Config(bn_batch="halves"), Config(last_batch="drop"), Config(dataset="synthetic"),
        Config(family="resnet18"), Config(schedule="cosine"), Config(trainable="head"), Config(initial="00"),
        Config(**folder, pictures="1"), Config(**folder, pictures="2"),
    ]  # fmt: skip
    assert len({config.key for config in (default, *others)}) == 1 + len(others) == len(asdict(default))


def test_defaults_that_depend_on_other_fields():
    assert [Config(optimizer=name).lr for name in ("sgd", "adam", "adamw")] == [0.1, 0.001, 0.001]
    assert [Config(depth=depth).warmup for depth in (104, 110, 1202)] == ["none", "error", "error"]
    assert Config(depth=110, schedule="cosine").warmup == "none"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"depth": 21}, r"^depth must be 6n\+2 \(8, 14, 20, \.\.\.\), got 21$"),
        ({"depth": "20"}, "int.*depth"),
        ({"lr": float("nan")}, "lr"),
        ({"momentum": 1.0}, "momentum"),
        ({"batch_size": 33, "bn_batch": "halves"}, "even"),
        ({"optimizer": "lion"}, "lion.*optimizer"),
        ({"residual": False, "shortcut": "B"}, "no shortcuts"),
        ({"family": "resnet18", "depth": 44}, "--depth"),
        ({"seed": -1}, "seed"),
    ],
)
def test_invalid_values_are_refused(values: dict[str, Any], message: str):
    with pytest.raises(UserError, match=message):
        Config(**values)


def test_the_recipe_lists_the_differences_from_the_papers():
    assert format_recipe(Config(depth=56, residual=False, seed=3)) == "the paper's"
    changed = format_recipe(Config(lr=0.05, precision="bf16"))
    assert changed == "the paper's except lr=0.05 (paper: 0.1), precision=bf16 (paper: not stated)"
