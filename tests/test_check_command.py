"""`python -m inbackward_conformance check`: arguments, what is printed, and the exit status."""

from __future__ import annotations

import json
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest
from expecttest import assert_expected_inline

from inbackward_conformance.__main__ import main

MODELS = """
import torch
from torch import nn
from mutants.naive import Naive

BATCHES = torch.linspace(-1, 1, 5 * 4 * 8).view(5, 4, 8)

def build():
    model = nn.Sequential(nn.Linear(8, 16), nn.Dropout(0.5), nn.Linear(16, 8))
    return model, lambda model, step: model(BATCHES[step % 5]).square().mean()

def weights_alone():
    model, compute_loss = build()
    return model, compute_loss, [param for param in model.parameters() if param.dim() > 1]

def draws():
    model, _ = build()
    return model, lambda model, step: model(next(DRAWN)).square().mean()

DRAWN = iter(torch.arange(10.0 * 8).view(10, 1, 8))

BUILT = []

def counted():
    BUILT.append(build())
    return BUILT[-1]

def no_data():
    raise FileNotFoundError("data.csv")

def no_tuple():
    return nn.Linear(8, 8)

number = 3

class Steps(Naive):
    def step(self, optimizer, param):
        if param.dim() > 1:
            super().step(optimizer, param)

class HasOwnLoop(Naive):
    def standard_optimizer(self, optimizer_class, params, options):
        return optimizer_class(params, **options)

class Refuses(Naive):
    def apply(self, optimizer_class, params, optimizer_kwargs, register_hook=True):
        raise ValueError(f"{optimizer_class.__name__}({optimizer_kwargs}) is not supported")
"""
SOUND = ("--implementation", "mutants.naive:Naive")


def wrapped(text: str) -> str:
    return "\n".join(textwrap.fill(line, 112, subsequent_indent="        ") for line in text.splitlines())


@pytest.fixture(autouse=True)
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The current folder has modules; those of another test are forgotten."""
    (tmp_path / "models.py").write_text(MODELS, encoding="utf-8")
    (tmp_path / "broken.py").write_text("import torch\ntorch.no_such_thing()\n", encoding="utf-8")
    (tmp_path / "lacks.py").write_text("import no_such_package\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    yield
    sys.modules.pop("models", None)


def test_one_line_for_each_implementation(capsys: pytest.CaptureFixture[str]) -> None:
    names = ("mutants.naive:Naive", "models:Steps", "models:Refuses")
    options = [argument for name in names for argument in ("--implementation", name)]
    assert main(["check", "models:build", *options, "--option", "lr=0.01", "--option", "betas=(0.5, 0.9)"]) == 1
    assert_expected_inline(
        wrapped(capsys.readouterr().out),
        """\
models:build: 5 steps of AdamW(lr=0.01, betas=(0.5, 0.9)), seed 0
mutants.naive:Naive: conforms: equal to the standard loop, bit by bit, after each of 5 steps
    gradients: at most 576 bytes at a time, 0.51 of the standard loop's 1,120
models:Steps: diverges: parameter '0.bias' differs from the standard loop after step 0: largest difference 0.01
    gradients: at most 576 bytes at a time, 0.51 of the standard loop's 1,120
models:Refuses: refuses: attaching AdamW(lr=0.01, betas=(0.5, 0.9)) raises ValueError: AdamW({'lr': 0.01,
        'betas': (0.5, 0.9)}) is not supported""",
    )


@pytest.mark.parametrize(
    ("implementation", "status"),
    [("mutants.naive:Naive", 0), ("reference-handed", 0), ("models:Steps", 1), ("models:Refuses", 1)],
)
def test_exit_status(implementation: str, status: int) -> None:
    assert main(["check", "models:build", "--implementation", implementation]) == status


def test_the_standard_loop_is_run_once_for_all_that_have_none_of_their_own() -> None:
    """Twice to compare and once to count; then each implementation once to compare and once to count."""
    sound = ("mutants.naive:Naive", "reference", "models:HasOwnLoop")
    options = [argument for name in sound for argument in ("--implementation", name)]
    assert main(["check", "models:counted", *options]) == 0
    assert len(sys.modules["models"].BUILT) == 2 * 3 + len(sound) * 2


def test_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--optimizer", "torch.optim:SGD", "--option", "lr=0.5", "--steps", "7", "--seed", "3", "--device", "cpu")
    assert main(["check", "models:weights_alone", *SOUND, *options]) == 0
    assert_expected_inline(
        wrapped(capsys.readouterr().out),
        """\
models:weights_alone: 7 steps of SGD(lr=0.5), seed 3
mutants.naive:Naive: conforms: equal to the standard loop, bit by bit, after each of 7 steps
    gradients: at most 672 bytes at a time, 0.57 of the standard loop's 1,184""",
    )


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "models:build", *SOUND, "--implementation", "models:Refuses", "--json", "--steps", "1"]) == 1
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first == {
        "implementation": "mutants.naive:Naive",
        "outcome": "conforms",
        "detail": "equal to the standard loop, bit by bit, after one step",
        "gradient_bytes": 576,
        "standard_gradient_bytes": 1120,
    }
    assert (second["outcome"], second["gradient_bytes"]) == ("refuses", None)


def test_what_cannot_be_checked(capsys: pytest.CaptureFixture[str]) -> None:
    for build in ("draws", "no_data", "no_tuple"):
        assert main(["check", f"models:{build}", *SOUND]) == 2
    assert main(["check", "models:build", *SOUND, "--option", "learning_rate=1"]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    shortened = re.sub(r"same seed, .*", "same seed, [...]", printed.err)
    assert_expected_inline(
        wrapped(shortened),
        """\
models:draws cannot be checked: the model is not deterministic, so nothing can be compared. In two runs of the
        standard loop with the same seed, [...]
models:no_data cannot be checked: build raises FileNotFoundError: data.csv (models.py:29); nothing was compared
models:no_tuple cannot be checked: build returned a Linear: expected (model, compute_loss), or (model,
        compute_loss, parameters or groups for the optimizer)
models:build cannot be checked: the standard loop itself raises, so nothing can be compared: attaching
        AdamW(learning_rate=1) raises TypeError: AdamW.__init__() got an unexpected keyword argument
        'learning_rate'""",
    )


def test_wrong_usage(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Each message is one line, which says what was expected."""
    told = []
    for arguments in (
        ["models:build"],
        ["models:build", "--implementation", "no.such:Thing"],
        ["models", *SOUND],
        ["models.py:build", *SOUND],
        ["modles:build", *SOUND],
        ["models:biuld", *SOUND],
        ["models:number", *SOUND],
        ["broken:build", *SOUND],
        ["lacks:build", *SOUND],
        ["models:build", *SOUND, "--optimizer", "AdmaW"],
        ["models:build", *SOUND, "--optimizer", "no_such:AdamW"],
        ["models:build", *SOUND, "--option", "0.1"],
        ["models:build", *SOUND, "--option", "fused=true"],
        ["models:build", *SOUND, "--steps", "0"],
        ["models:build", *SOUND, "--seed", "-1"],
    ):
        with pytest.raises(SystemExit) as ended:
            main(["check", *arguments])
        assert ended.value.code == 2
        (line,) = (line for line in capsys.readouterr().err.splitlines() if "error: " in line)
        told.append(line.partition("error: ")[2].replace(str(tmp_path), "/here"))
    assert_expected_inline(
        wrapped("\n".join(told)),
        """\
the following arguments are required: --implementation
implementation 'no.such:Thing' cannot be imported from 'no.such:Thing': ModuleNotFoundError: No module named
        'no'. Check the spelling, and that the module can be imported from here
'models': expected a module and a function in it, as my_module:build
'models.py:build': expected a module and a function in it, as my_module:build; name the module, not its file
'modles:build': there is no module 'modles', in /here or installed
'models:biuld': models has no 'biuld'; its functions: build, weights_alone, draws, counted, no_data, no_tuple
'models:number' is of type int: expected a function that returns (model, compute_loss)
'broken:build': importing broken raises AttributeError: module 'torch' has no attribute 'no_such_thing'
        (broken.py:2)
'lacks:build': importing lacks raises ModuleNotFoundError: No module named 'no_such_package' (lacks.py:1)
no optimizer class 'AdmaW': expected one of torch.optim, as AdamW, or package.module:Class
'no_such:AdamW': there is no module 'no_such', in /here or installed
argument --option: '0.1': expected NAME=VALUE, as lr=0.01
argument --option: 'fused=true': in Python this is fused=True
argument --steps: '0': expected a number of at least 1
argument --seed: '-1': expected a number of at least 0""",
    )


def test_help_says_what_build_returns_and_what_the_exit_status_means(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["check", "--help"])
    assert ended.value.code == 0
    printed = " ".join(capsys.readouterr().out.split())
    for words in ("(model, compute_loss)", "exit status: 0 every", "default: AdamW", "--option NAME=VALUE", "--json"):
        assert words in printed
