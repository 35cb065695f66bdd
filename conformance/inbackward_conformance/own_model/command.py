"""The command `check` of `python -m inbackward_conformance`."""

from __future__ import annotations

import argparse
import ast
import json
import sys
from typing import TYPE_CHECKING, Any

from inbackward_conformance.own_model.unusable import UnusableModel

if TYPE_CHECKING:
    from collections.abc import Callable

DESCRIPTION = """\
Train a model of your own by the standard loop and by implementations of
optimizer in backward, and compare parameters, buffers, gradients and optimizer
states after each step, bit by bit.

MODULE:FUNCTION, such as my_module:build, returns (model, compute_loss), on each
call with a new model. compute_loss(model, step) returns the loss of a step;
steps are counted from 0. A third value, if there is one, is the parameters or
groups for the optimizer; without it, they are model.parameters(). The module is
found in the current folder too."""

EPILOG = """\
exit status:
  0  every implementation is equal to the standard loop
  1  one is not equal, refuses, or was not compared
  2  wrong arguments, or the model cannot be checked: the standard loop raises
     too, trains nothing, or trains differently each time

example:
  python -m inbackward_conformance check my_module:build \\
      --implementation reference-handed --optimizer SGD --option lr=0.01"""


def add_check(commands: Any) -> None:
    """Add the command to the commands of a parser."""
    parser: argparse.ArgumentParser = commands.add_parser(
        "check",
        help="check whether implementations are exact on a model of your own",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("build", metavar="MODULE:FUNCTION", help="returns (model, compute_loss)")
    parser.add_argument(
        "--implementation",
        action="append",
        required=True,
        metavar="NAME",
        help="a registered name, package.module:attribute or package.module; repeatable",
    )
    parser.add_argument(
        "--optimizer", default="AdamW", metavar="NAME", help="of torch.optim, or package.module:Class; default: AdamW"
    )
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        type=_option,
        metavar="NAME=VALUE",
        help="an option of the optimizer, as lr=0.01 or betas=(0.9,0.95); repeatable",
    )
    parser.add_argument("--steps", type=_at_least(1), default=5, metavar="N", help="steps to train; default: 5")
    parser.add_argument("--seed", type=_at_least(0), default=0, metavar="N", help="seed of random numbers; default: 0")
    parser.add_argument(
        "--device", default="", metavar="DEVICE", help="where to move the model; default: where it was built"
    )
    parser.add_argument("--json", action="store_true", help="print a line of JSON for each implementation")
    parser.set_defaults(run=lambda args: _run(parser, args))


def _run(parser: argparse.ArgumentParser, args: argparse.Namespace) -> int:
    """Check, print one result for each implementation, and return the exit status."""
    # The other commands need neither torch nor implementations.
    from inbackward_conformance.adapters.find import UnusableImplementation, find_implementation  # noqa: PLC0415
    from inbackward_conformance.own_model.check import check_task  # noqa: PLC0415
    from inbackward_conformance.own_model.find import NotFound, find_build, find_optimizer  # noqa: PLC0415
    from inbackward_conformance.own_model.task import Task  # noqa: PLC0415

    try:
        implementations = {name: find_implementation(name) for name in args.implementation}
        build, optimizer_class = find_build(args.build), find_optimizer(args.optimizer)
        task = Task(build, optimizer_class, dict(args.option), args.steps, args.seed, args.device)
        results = check_task(task, implementations)
    except (UnusableImplementation, NotFound) as error:
        parser.error(str(error))
    except UnusableModel as error:
        print(f"{args.build} cannot be checked: {error}", file=sys.stderr)
        return 2
    if not args.json:
        print(f"{args.build}: {task.steps} steps of {task.optimizer}, seed {task.seed}")
    for result in results:
        print(json.dumps(result.as_json()) if args.json else result)
    return 0 if all(result.equal for result in results) else 1


def _option(text: str) -> tuple[str, Any]:
    """Return the name and the value of an option; a value that is no Python literal is a text."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r}: expected NAME=VALUE, as lr=0.01")
    if value in {"true", "false", "none"}:
        raise argparse.ArgumentTypeError(f"{text!r}: in Python this is {name}={value.capitalize()}")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def _at_least(least: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) < 2**32:
            raise argparse.ArgumentTypeError(f"{text!r}: expected a number of at least {least}")
        return int(text)

    return number
