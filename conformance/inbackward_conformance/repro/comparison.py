"""The last lines of a script: they call both loops, and assert what does not hold."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass

from inbackward_conformance.repro.failure import Kind

REFUSED = """
except (NotImplementedError, RuntimeError, TypeError, ValueError) as error:
    print(f"refused, which passes as well: {type(error).__name__}: {error}")
    sys.exit()
"""

STATES_OF = """
def states_of(model, optimizers):
    return {
        (name, key, number): value
        for name, param in model.named_parameters()
        for number, optimizer in enumerate(each for each in optimizers if each.state.get(param))
        for key, value in optimizer.state[param].items()
    }
"""


@dataclass(frozen=True)
class Comparison:
    """How two trainings are compared.

    Attributes:
        rank: the argument of both: `rank`, or nothing.
        tolerance: the largest difference that passes, relative to the largest value.
        plain: the call that gives a plain tensor, where parameters are sharded or nested.
        may_refuse: whether an error of the implementation passes.
    """

    kind: Kind
    rank: str = ""
    tolerance: float = 0.0
    plain: str = ""
    may_refuse: bool = False

    def source(self) -> str:
        """Return the lines."""
        match self.kind:
            case Kind.STATES:
                return self._of_states()
            case Kind.THE_STANDARD_LOOP_ALONE_RAISED:
                return self._of_errors()
            case Kind.RANKS_APART:
                return self._of_ranks()
            case Kind.GRADIENTS:
                each = [
                    "actual, expected = actual.grad, expected.grad",
                    'left = "None" if actual is None else "left over"',
                    'assert (actual is None) == (expected is None), f"{name}.grad is {left}"',
                    "if expected is not None:",
                    *_indented(self._equal("{name}.grad")),
                ]
            case Kind.BUFFERS:
                return self._of_values("buffer", self._equal("buffer {name!r}"))
            case _:
                each = self._equal("parameter {name!r}")
        return self._of_values("parameter", each)

    def _of_values(self, kind: str, each: list[str]) -> str:
        lines = [
            f"expected_model = standard_loop({self.rank})",
            self._trained("model"),
            f"named = zip(model.named_{kind}s(), expected_model.{kind}s(), strict=True)",
            "for (name, actual), expected in named:",
            *_indented(each),
        ]
        return "\n".join(lines)

    def _of_states(self) -> str:
        lines = [
            f"expected_states = states_of(*standard_loop({self.rank}))",
            self._trained("trained"),
            "states = states_of(*trained)",
            "count, expected_count = len(states), len(expected_states)",
            'assert count == expected_count, f"{count} values in optimizer states, expected {expected_count}"',
            "for name, value in expected_states.items():",
            "    actual, expected = torch.as_tensor(states[name]), torch.as_tensor(value)",
            *_indented(self._equal("state {name}")),
        ]
        return "\n".join(lines)

    def _of_ranks(self) -> str:
        lines = [
            f"standard_loop({self.rank})",
            self._trained("model"),
            "for name, actual in model.named_parameters():",
            f"    expected = actual{self.plain}.detach().clone()",
            "    dist.broadcast(expected, 0)",
            *_indented(self._equal("parameter {name!r} on this rank and on rank 0", plain=False)),
        ]
        return "\n".join(lines)

    def _of_errors(self) -> str:
        lines = [
            "try:",
            f"    standard_loop({self.rank})",
            "except Exception as error:",
            '    expected = f"{type(error).__name__}: {error}"',
            "try:",
            f"    in_backward({self.rank})",
            "except Exception as error:",
            '    print(f"raises, as the standard loop does: {type(error).__name__}: {error}")',
            "    sys.exit()",
            'sys.exit(f"goes through, where the standard loop raises {expected}")',
        ]
        return "\n".join(lines)

    def _equal(self, what: str, *, plain: bool = True) -> list[str]:
        atol = f"{self.tolerance} * expected.abs().max().item()" if self.tolerance else "0"
        return [
            *[f"actual, expected = actual{self.plain}, expected{self.plain}"] * bool(plain and self.plain),
            "difference = (actual - expected).abs()",
            f"same = torch.allclose(actual, expected, rtol=0, atol={atol}, equal_nan=True)",
            f'assert same, f"{what}: largest difference {{difference.max().item():.3g}}"',
        ]

    def _trained(self, name: str) -> str:
        line = f"{name} = in_backward({self.rank})"
        return let_refusals_through(line) if self.may_refuse else line


def let_refusals_through(statements: str) -> str:
    """Return the statements in a `try` that ends the script well when they raise what a refusal may be."""
    return f"try:\n{textwrap.indent(statements, '    ')}{REFUSED.rstrip()}"


def _indented(lines: list[str]) -> list[str]:
    return [f"    {line}" for line in lines]
