"""A plan: one scenario of training as plain data.

A plan can be printed (its `repr` is the expression that builds it), pickled, compared and drawn. It holds
names, numbers and nothing that lives; `inbackward_conformance.run` carries it out. Importing this module
imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from inbackward_conformance.printable import Printable

if TYPE_CHECKING:
    from inbackward_conformance.events import Event

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


@dataclass(frozen=True, repr=False)
class Ranks(Printable):
    """The processes that carry a plan out together; batches depend on the rank, all else is the same for all.

    Attributes:
        world_size: how many there are.
        tolerance: the largest difference from the standard loop that passes, relative to the largest value of the
            tensor. 0: none, to the bit. Sums over three or more ranks depend on their order, and a third is rounded:
            an implementation that reduces gradients by another way than the reducer need not hit the same bits.
    """

    world_size: int
    tolerance: float = 0.0


@dataclass(frozen=True, repr=False)
class Plan(Printable):
    """One scenario.

    Attributes:
        model: name of a model of the catalogue (`inbackward_conformance.models`).
        assignments: attached in this order.
        events: what happens after attachment, in this order.
        before: what happens before attachment.
        shared: `(name, source)` pairs: the parameter called name is replaced by the one called source.
        frozen: parameters that do not require gradients from the start.
        dtype: name of the floating dtype that the model and its batches are cast to; empty: as the model is built.
        arguments: what the class of the model is called with.
        seed: of the initial values, the batches and what the model draws.
        ranks: the processes that run it; None: this one alone.
    """

    model: str
    assignments: tuple[Assignment, ...]
    events: tuple[Event, ...]
    before: tuple[Event, ...] = ()
    shared: tuple[tuple[str, str], ...] = ()
    frozen: tuple[str, ...] = ()
    dtype: str = ""
    arguments: tuple[Any, ...] = ()
    seed: int = 0
    ranks: Ranks | None = None
