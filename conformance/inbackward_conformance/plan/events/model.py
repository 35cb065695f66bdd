"""Events that change the model during training: casts, new data, freezing, copies, new parameters."""

from __future__ import annotations

from dataclasses import dataclass

from inbackward_conformance.plan.events.event import Event


@dataclass(frozen=True, repr=False)
class Cast(Event):
    """Cast the model, `model.to(dtype)`, and all later batches.

    Attributes:
        dtype: name of the dtype.
        swap: whether the conversion swaps tensors, `torch.__future__.set_swap_module_params_on_conversion(True)`.
    """

    dtype: str
    swap: bool = False


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
        swap: whether loading swaps tensors, as in `Cast`; there are no new Parameter objects then.
    """

    assign: bool = False
    swap: bool = False


@dataclass(frozen=True, repr=False)
class ToEmpty(Event):
    """Move the model to new memory, `model.to_empty(device=...)`, and fill it with new values.

    Attributes:
        device: empty for the device of the run, or `meta`, where there are no values.
    """

    device: str = ""


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
