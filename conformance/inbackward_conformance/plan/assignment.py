"""Assignments of optimizer classes, with their options, to parameters."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from inbackward_conformance.plan.literals import Printable
from inbackward_conformance.plan.need import ANY, Need

ALL = "model.parameters()"
"""All parameters of the model, passed as the generator that `model.parameters()` returns."""

TRAINED = "[param for param in model.parameters() if param.requires_grad]"
"""The parameters that require gradients."""

MATRICES = "[param for param in model.parameters() if param.requires_grad and param.dim() == 2]"
"""Of these the matrices, for an optimizer that takes nothing else."""

OTHERS = "[param for param in model.parameters() if param.requires_grad and param.dim() != 2]"
"""The others that require gradients."""

SELECTIONS = frozenset({ALL, TRAINED, MATRICES, OTHERS})
"""What may stand in the place of parameter names: the source of an expression."""


WITHOUT_FOREACH = frozenset({"LBFGS", "Muon", "SparseAdam"})
"""The classes of `torch.optim` without the option `foreach`."""


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
    """One optimizer class with its options, for some of the parameters.

    Attributes:
        optimizer: name of a class in `torch.optim`, or `package.module:Class`.
        options: keyword arguments of the class.
        params: one of `SELECTIONS`, parameter groups, or an ordered list of parameter names. A name may be repeated,
            and a shared parameter may have any of its names.
        hook: whether the optimizer steps inside backward; if not, it is stepped by hand.
        named: whether the parameters are passed as `(name, parameter)` pairs.
        need: what the plan needs of an optimizer. `optimizer` and `options` meet it; an implementation with optimizer
            classes of its own gets one of these in their place.
    """

    optimizer: str
    options: dict[str, Any] = field(default_factory=dict)
    params: str | tuple[str, ...] | tuple[Group, ...] = ALL
    hook: bool = True
    named: bool = False
    need: Need = ANY

    def parameter_by_parameter(self) -> Assignment:
        """Return the assignment with `foreach` off, and without `fused`, for parameters that overlap or are repeated.

        On an accelerator a kernel that steps several parameters writes them in any order, and where none of the two is
        given, torch chooses such a kernel. Classes that have neither option stay as they are.
        """
        if ":" in self.optimizer or self.optimizer in WITHOUT_FOREACH:
            return self
        options = {name: value for name, value in self.options.items() if name != "fused"}
        return replace(self, options={**options, "foreach": False})

    def __post_init__(self) -> None:
        """Reject a bare name, which would be read as the whole model or as its letters."""
        if isinstance(self.params, str) and self.params not in SELECTIONS:
            msg = f"params={self.params!r}: expected ALL or a tuple of parameter names; write ({self.params!r},)"
            raise TypeError(msg)
        if self.named and self.params != ALL:
            raise ValueError("named=True goes with params=ALL: the pairs are those of model.named_parameters()")
