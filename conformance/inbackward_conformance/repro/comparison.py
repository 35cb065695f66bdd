"""What is compared, and the last lines of a script, which call both loops and assert that they are equal."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING

from inbackward_conformance.repro.failure import Kind

if TYPE_CHECKING:
    from inbackward_conformance.repro.script import Script

REFUSED = """
except (RuntimeError, TypeError, ValueError) as error:
{raised}
    print(f"refused, which passes as well: {{type(error).__name__}}: {{error}}")
    sys.exit()
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

EQUAL = """
for name, value in expected.items():
    assert_close(actual[name], value, rtol=0, atol=0, equal_nan=True, msg=lambda text: f"{name}: {text}")
"""

CLOSE = """
for name, value in expected.items():
    atol = {tolerance} * value.abs().max().item()
    assert_close(actual[name], value, rtol=0, atol=atol, msg=lambda text: f"{{name}}: {{text}}")
"""

RANKS_APART = """
for name, value in actual.items():
    of_rank_0 = value.detach().clone()
    dist.broadcast(of_rank_0, 0)
    assert torch.equal(value, of_rank_0), f"{name} differs between this rank and rank 0"
"""


@dataclass(frozen=True)
class Comparison:
    """How two trainings are compared.

    Attributes:
        arguments: of both: nothing, or, on ranks, `rank` and what else they need.
        tolerance: the largest difference that passes, relative to the largest value.
        may_refuse: whether an error of the implementation passes.
        raised: how the error begins that does not pass.
        state: the state that `optimizer` holds for `param`, as source.
    """

    kind: Kind
    arguments: str = ""
    tolerance: float = 0.0
    may_refuse: bool = False
    raised: str = ""
    state: str = "optimizer.state[param]"

    def returned(self, script: Script) -> str:
        """Return what a training returns: an expression for what is compared, by name."""
        params = "for name, param in model.named_parameters()"
        match self.kind:
            case Kind.THE_STANDARD_LOOP_ALONE_RAISED:
                return ""
            case Kind.STATES:
                found = script.loop.optimizers()
                of_each = f"[{self.state} for optimizer in {found} if optimizer.state.get(param)]"
                return f"{{name: {of_each} {params}}}"
            case Kind.GRADIENTS if script.plain:
                return f"{{name: None if param.grad is None else param.grad{script.plain} {params}}}"
            case Kind.GRADIENTS:
                return f"{{name: param.grad {params}}}"
            case Kind.BUFFERS:
                return "dict(model.named_buffers())"
        return f"{{name: param{script.plain} {params}}}" if script.plain else "dict(model.named_parameters())"

    def source(self) -> str:
        """Return the lines that call both and compare."""
        if self.kind is Kind.THE_STANDARD_LOOP_ALONE_RAISED:
            return ONLY_THE_STANDARD_LOOP_RAISES.strip().format(arguments=self.arguments)
        call = f"actual = in_backward({self.arguments})"
        calls = [
            f"expected = standard_loop({self.arguments})",
            let_refusals_through(call, self.raised) if self.may_refuse else call,
        ]
        return "\n".join([*calls, self._equal()])

    def _equal(self) -> str:
        if self.kind is Kind.RANKS_APART:
            return RANKS_APART.strip()
        if self.tolerance and self.kind is Kind.PARAMETERS:
            return CLOSE.strip().format(tolerance=self.tolerance)
        return EQUAL.strip()


def let_refusals_through(statements: str, raised: str = "") -> str:
    """Return the statements in a `try` that ends the script well on what a refusal may be; `raised` is none."""
    again = f"    if {raised!r} in str(error):\n        raise" if raised else ""
    return f"try:\n{textwrap.indent(statements, '    ')}{REFUSED.rstrip().format(raised=again)}"
