"""What happens to a model while it is in training: casts, new data, freezing, copies and surgery."""

from __future__ import annotations

from dataclasses import dataclass

from inbackward_conformance.plan.events.event import Event


@dataclass(frozen=True, repr=False)
class Cast(Event):
    """Cast the model, and the batches from here on: `model.to(dtype)`."""

    dtype: str


@dataclass(frozen=True, repr=False)
class SetData(Event):
    """Give a parameter other data, half of its values in other memory.

    Attributes:
        param: its name.
        by: `data` for `param.data = …`, or `set_` for `param.set_(…)`.
    """

    param: str
    by: str = "data"


@dataclass(frozen=True, repr=False)
class Freeze(Event):
    """`requires_grad_(False)` for some parameters."""

    params: tuple[str, ...]


@dataclass(frozen=True, repr=False)
class Thaw(Event):
    """`requires_grad_(True)` for some parameters."""

    params: tuple[str, ...]


@dataclass(frozen=True, repr=False)
class LoadWeights(Event):
    """Load half of the model's values into it: `model.load_state_dict(…)`.

    Attributes:
        assign: whether that makes new Parameter objects.
    """

    assign: bool = False


@dataclass(frozen=True, repr=False)
class ReplaceParameter(Event):
    """Put a new Parameter of the same values in the place of one."""

    param: str


@dataclass(frozen=True, repr=False)
class SwapParameters(Event):
    """Let two parameters of one shape change places."""

    first: str
    second: str


@dataclass(frozen=True, repr=False)
class ReplaceByCopy(Event):
    """Put a deepcopy in the place of a submodule, or of the whole model.

    Attributes:
        submodule: its name; empty: the whole model, whose copy the run goes on with.
    """

    submodule: str = ""


@dataclass(frozen=True, repr=False)
class Detach(Event):
    """Make an ordinary model of it again; `Attach` may follow."""
