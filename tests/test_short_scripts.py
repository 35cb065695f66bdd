"""What is left out of a script, and what stays because leaving it out would change what the script does."""

from __future__ import annotations

import pytest

from inbackward_conformance.repro.layers import spell_out_layers
from inbackward_conformance.repro.unused import remove_unused

LAYERS = "class Net(nn.Sequential):\n\n    def __init__({}):\n        super().__init__(nn.Linear(4, 4))\nmodel = {}"
HELD = "made = weakref.WeakKeyDictionary()\n\ndef apply(optimizer):\n    {}\napply(1)"


def test_layers_stand_where_a_class_of_nothing_else_was_called() -> None:
    assert spell_out_layers(LAYERS.format("self", "Net()")) == "model = nn.Sequential(nn.Linear(4, 4))"
    nested = "class Two(nn.Sequential):\n\n    def __init__(self):\n        super().__init__(Net(), Net())\n"
    layers = "nn.Sequential(nn.Linear(4, 4))"
    assert spell_out_layers(nested + LAYERS.format("self", "Two()")) == f"model = nn.Sequential({layers}, {layers})"


@pytest.mark.parametrize(
    "source",
    [
        LAYERS.format("self, width=4", "Net()"),
        LAYERS.format("self, *, width=4", "Net()"),
        LAYERS.format("self, *sizes", "Net()"),
        LAYERS.format("self", "type('Other', (Net,), {})()"),
        "@registered\n" + LAYERS.format("self", "Net()"),
        LAYERS.format("self", "Net()").replace("model", "\n    def width(self):\n        return 4\nmodel"),
    ],
)
def test_other_classes_stay(source: str) -> None:
    assert spell_out_layers(source) == source


@pytest.mark.parametrize(
    ("statement", "left"),
    [
        ("made[optimizer] = None", "pass"),
        ("made[fused(optimizer)] = None", "fused(optimizer)"),
        ("made.update(dict.fromkeys(optimizer.values()))", "pass"),
        (
            "try:\n        hook()\n    finally:\n        made[optimizer] = None",
            "try:\n        hook()\n    finally:\n        pass",
        ),
    ],
)
def test_a_weak_dictionary_that_nothing_reads_is_left_out(statement: str, left: str) -> None:
    assert remove_unused(HELD.format(statement)) == f"def apply(optimizer):\n    {left}\napply(1)"


@pytest.mark.parametrize(
    "statement",
    [
        "made[optimizer] = 1",
        "made[(own := optimizer)] = None",
        "made[optimizer] = None\n    del made[optimizer]",
        "made.update({optimizer: None})",
        "made.update(dict.fromkeys(map(fused, optimizer)))",
        "made.update(((fused(each), None) for each in optimizer))",
        "remember(made, optimizer)",
    ],
)
def test_a_weak_dictionary_stays_where_that_has_an_effect(statement: str) -> None:
    assert remove_unused(HELD.format(statement)) == HELD.format(statement)


def test_a_function_stays_that_its_decorator_may_register() -> None:
    source = "steps = []\n\n@steps.append\ndef first(optimizer):\n    optimizer.step()\nsteps[0](1)"
    assert remove_unused(source) == source
