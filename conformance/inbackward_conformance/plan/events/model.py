"""Events that change the model during training: casts, new data, freezing, copies, new parameters."""

from __future__ import annotations

from dataclasses import dataclass

from inbackward_conformance.plan.events.event import Event


@dataclass(frozen=True, repr=False)
class Cast(Event):
    """Cast the model, `model.to(dtype)`, and all later batches."""

    dtype: str


@dataclass(frozen=True, repr=False)
class SetData(Event):
    """Set the data of a parameter to a new tensor of half its values.

    Attributes:
        param: name of the parameter.
        by: `data` for `param.data = …`, or `set_` for `param.set_(…)`.
    """

    param: str
    by: str = "data"


@dataclass(frozen=True, repr=False)
class Freeze(Event):
    """Call `requires_grad_(False)` on some parameters."""

    params: tuple[str, ...]


@dataclass(frozen=True, repr=False)
class Thaw(Event):
    """Call `requires_grad_(True)` on some parameters."""

    params: tuple[str, ...]


@dataclass(frozen=True, repr=False)
class LoadWeights(Event):
    """Load the model's own state dict, with half of its values: `model.load_state_dict(…)`.

    Attributes:
        assign: as in `load_state_dict`; if True, there are new Parameter objects.
    """

    assign: bool = False


@dataclass(frozen=True, repr=False)
class ReplaceParameter(Event):
    """Replace a parameter by a new Parameter of the same values."""

    param: str


@dataclass(frozen=True, repr=False)
class SwapParameters(Event):
    """Swap two parameters of the same shape."""

    first: str
    second: str


@dataclass(frozen=True, repr=False)
class ReplaceByCopy(Event):
    """Replace a submodule, or the whole model, by a deepcopy.

    Attributes:
        submodule: name of the submodule; empty for the whole model.
    """

    submodule: str = ""


@dataclass(frozen=True, repr=False)
class Detach(Event):
    """Detach all optimizers from the model; `Attach` may follow."""
