"""Which optimizer class, with which options, is given to which parameters."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from inbackward_conformance.plan.literals import Printable

ALL = "model.parameters()"
"""The parameters of the whole model, given as the generator that `model.parameters()` is."""


@dataclass(frozen=True, repr=False)
class TensorOption(Printable):
    """An option whose value is a 0-dim float32 tensor, as in `lr=torch.tensor(0.01)`."""

    value: float


@dataclass(frozen=True, repr=False)
class Group(Printable):
    """A parameter group with options of its own."""

    params: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, repr=False)
class Assignment(Printable):
    """One optimizer class with its options, given to some of the parameters.

    Attributes:
        optimizer: name of a class in `torch.optim`, or `package.module:Class`.
        options: keyword arguments of the class.
        params: `ALL`, or names of parameters in the order in which they are listed (a name may stand twice, and
            every name of a shared parameter may be used), or groups.
        hook: whether the optimizer steps inside backward; else it is stepped by hand.
        named: whether the parameters are given as `(name, parameter)` pairs.
    """

    optimizer: str
    options: dict[str, Any] = field(default_factory=dict)
    params: str | tuple[str, ...] | tuple[Group, ...] = ALL
    hook: bool = True
    named: bool = False

    def __post_init__(self) -> None:
        """Refuse a bare name, which would be read as the whole model or as its letters."""
        if isinstance(self.params, str) and self.params != ALL:
            msg = f"params={self.params!r}: expected ALL or a tuple of parameter names; write ({self.params!r},)"
            raise TypeError(msg)
        if self.named and self.params != ALL:
            raise ValueError("named=True goes with params=ALL: the pairs are those of model.named_parameters()")
