"""Events of tensor parallelism, over the dimension `tensor` of the mesh. Every rank runs the same events."""

from __future__ import annotations

from dataclasses import dataclass, field

from inbackward_conformance.plan.events.event import Event
from inbackward_conformance.plan.literals import Printable


@dataclass(frozen=True, repr=False)
class Style(Printable):
    """How `parallelize_module` treats a layer.

    Attributes:
        name: name of a class in `torch.distributed.tensor.parallel`.
        layouts: its keyword arguments, such as `{"input_layouts": "Shard(1)"}`.
    """

    name: str
    layouts: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, repr=False)
class Parallelize(Event):
    """Shard or replicate layers over the ranks of the dimension `tensor`, by `parallelize_module`.

    It makes new Parameter objects. An optimizer that was built before does not train them.

    Attributes:
        styles: the style of each layer, by name.
    """

    styles: dict[str, Style]


@dataclass(frozen=True, repr=False)
class AverageByHand(Event):
    """Average gradients between backward and step from now on: all parameters, over the dimension `data`."""


@dataclass(frozen=True, repr=False)
class DeclareLocal(Event):
    """Say that each rank is to step parameters with the gradients that it has, by the implementation's own call.

    The standard loop does nothing, and neither does an implementation that needs no such call.

    Attributes:
        params: names of parameters; empty for all.
    """

    params: tuple[str, ...] = ()
