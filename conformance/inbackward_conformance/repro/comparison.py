"""The last lines of a script, which call both loops and assert that they are equal."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inbackward_conformance.outcome import Compared
from inbackward_conformance.repro.stand_ins import assert_alike

if TYPE_CHECKING:
    from inbackward_conformance.repro.script import Script

REFUSED = """
except (RuntimeError, TypeError, ValueError) as error:
    print(f"refused, which passes as well: {type(error).__name__}: {error}")
    sys.exit()
"""

GO_ON = """
except (RuntimeError, TypeError, ValueError) as error:
    print(f"refused: {type(error).__name__}: {error}")
"""

ONLY_THE_STANDARD_LOOP_RAISES = """
try:
    standard_loop({arguments})
except Exception as error:
    expected = f"{{type(error).__name__}}: {{error}}"
try:
    in_backward({arguments})
except Exception as error:
    print(f"raises, as the standard loop does: {{type(error).__name__}}: {{error}}")
else:
    sys.exit(f"goes through, where the standard loop raises {{expected}}")
"""

REFUSED_OR_COMPARED = """
try:
    actual = in_backward({arguments})
except (RuntimeError, TypeError, ValueError) as error:
{reraise}
    print(f"refused, which passes as well: {{type(error).__name__}}: {{error}}")
else:
{compared}
"""

EQUAL = """
for name, value in expected.items():
    torch.testing.assert_close(actual[name], value, rtol=0, atol=0, equal_nan=True, msg=f"{name}: {{}}".format)
"""

CLOSE = """
for name, value in expected.items():
    atol = {tolerance} * value.abs().max().item()
    torch.testing.assert_close(actual[name], value, rtol=0, atol=atol, equal_nan=True, msg=f"{{name}}: {{{{}}}}".format)
"""

CLOSE_STATES = """
for name, states in expected.items():
    assert len(actual[name]) == len(states), f"{{name}}: there are {{len(actual[name])}} states, not {{len(states)}}"
    for state, other in zip(states, actual[name]):
        for key, value in state.items():
            atol, told = {tolerance} * torch.as_tensor(value).abs().max().item(), f"{{name}} {{key}}: ".__add__
            torch.testing.assert_close(other[key], value, rtol=0, atol=atol, equal_nan=True, msg=told)
"""

DEEP = """
for name, value in expected.items():
    assert_alike(actual[name], value, name, {tolerance})
"""

RANKS_APART = """
for name, value in actual.items():
    of_rank_0 = value.detach().clone()
    dist.broadcast(of_rank_0, 0)
    assert torch.equal(value, of_rank_0), f"{name} differs between this rank and rank 0"
"""


MAX_MESSAGE = 40


@dataclass(frozen=True)
class Comparison:
    """How two training functions are compared.

    Attributes:
        arguments: the arguments of both functions, which on ranks begin with `rank`.
        tolerance: the largest difference that passes, relative to the largest value.
        may_refuse: whether an error of the implementation passes.
        refusal: the message of an error that does not pass; empty if every refusal passes.
        in_stage: whether an error may be raised in the stage of a pipeline, so that torch raises another one from it.
        state: source of the state that `optimizer` has for `param`.
        own_states: whether that may be anything, unlike the tensors and numbers that the classes of torch keep.
    """

    compared: Compared
    arguments: str = ""
    tolerance: float = 0.0
    may_refuse: bool = False
    refusal: str = ""
    in_stage: bool = False
    state: str = "optimizer.state[param]"
    own_states: bool = False

    @property
    def needs(self) -> list[Any]:
        """The functions that the source calls, to be defined in the script."""
        return [assert_alike] if self._deep else []

    def returned(self, script: Script) -> str:
        """Return the expression that a training function returns: the compared tensors by name."""
        params = "for name, param in model.named_parameters()"
        local = script.local("param")
        match self.compared:
            case Compared.STANDARD_ERROR:
                return ""
            case Compared.STATES:
                of_each = f"[{self.state} for optimizer in {script.loop.optimizers()} if optimizer.state.get(param)]"
                return f"{{name: {of_each} {params}}}"
            case Compared.GRADIENTS:
                grad = script.local("param.grad")
                if local != "param":
                    grad = f"None if param.grad is None else {grad}"
                return f"{{name: {grad} {params}}}"
            case Compared.BUFFERS:
                return "dict(model.named_buffers())"
        return "dict(model.named_parameters())" if local == "param" else f"{{name: {local} {params}}}"

    def source(self) -> str:
        """Return the source that calls both functions and compares their results."""
        if self.compared is Compared.STANDARD_ERROR:
            return ONLY_THE_STANDARD_LOOP_RAISES.strip().format(arguments=self.arguments)
        if not self.may_refuse:
            return f"expected, actual = standard_loop({self.arguments}), in_backward({self.arguments})\n{self._equal()}"
        compared = textwrap.indent(self._equal(), "    ")
        reraise = _reraise(self.refusal, in_stage=self.in_stage)
        return f"expected = standard_loop({self.arguments})\n" + REFUSED_OR_COMPARED.strip("\n").format(
            arguments=self.arguments, reraise=reraise, compared=compared
        )

    def _equal(self) -> str:
        if self.compared is Compared.RANKS:
            return RANKS_APART.strip()
        if self._deep:
            return DEEP.strip().format(tolerance=self.tolerance)
        if self.tolerance and self.compared is Compared.STATES:
            return CLOSE_STATES.strip().format(tolerance=self.tolerance)
        if self.tolerance:
            return CLOSE.strip().format(tolerance=self.tolerance)
        return EQUAL.strip()

    @property
    def _deep(self) -> bool:
        """Whether `assert_close` alone will not do: for objects in states, or a tolerance where some may be None."""
        if self.compared is Compared.STATES:
            return self.own_states
        return self.compared in {Compared.BUFFERS, Compared.GRADIENTS} and bool(self.tolerance)


def exit_on_refusal(statements: str) -> str:
    """Return the statements in a `try` that exits with success on a refusal."""
    return f"try:\n{textwrap.indent(statements, '    ')}{REFUSED.rstrip()}"


def go_on_after_refusal(statements: str) -> str:
    """Return the statements in a `try` that prints a refusal."""
    return f"try:\n{textwrap.indent(statements, '    ')}{GO_ON.rstrip()}"


def _reraise(refusal: str, *, in_stage: bool) -> str:
    """Return the statements that raise an error again if it is a refusal with this message."""
    raised = "error.__cause__ or error" if in_stage else "error"
    return f"    if {refusal[:MAX_MESSAGE]!r} in str({raised}):\n        raise" if refusal else ""
