"""What an adapter declares in attributes: optimizer classes of its own, rounding, and the device that it requires."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

FEATURES = {
    "groups": "parameter groups",
    "tensor_lr": "a tensor as learning rate",
    "sparse": "sparse gradients",
    "complex": "complex parameters",
    "low_precision": "parameters in 16 bits",
    "zero_dim": "0-dim parameters",
}
"""What an optimizer class may lack, in words."""

DEVICES = ("", "cpu", "cuda", "mps", "xpu")
"""The kinds of device that the suite runs on; empty for any."""


@dataclass(frozen=True, eq=False)
class OwnOptimizer:
    """One optimizer class that a library brings along.

    Say only what a run cannot find out. A plan on which the class itself raises in the standard loop is `not offered`
    without a word here.

    Attributes:
        name: `package.module:Class`; it is imported only when it is needed. A function that returns an optimizer will
            do, and so will the name of a class in `torch.optim`.
        options: keyword arguments to construct it with.
        variants: further keyword arguments, each added to `options`.
        keeps_state: whether it keeps a state for a parameter; None to find out.
        lr: the option that is its learning rate; empty if it has none.
        lacks: what it does not support, of `FEATURES`.
        draws_random_numbers: whether a step draws random numbers; what it trains is not compared then, since parameters
            step in another order inside backward.

    Raises:
        ValueError: a value cannot be used; the message says which, and the remedy.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    variants: Sequence[Mapping[str, Any]] = ()
    keeps_state: bool | None = None
    lr: str = "lr"
    lacks: Collection[str] = ()
    draws_random_numbers: bool = False

    def __post_init__(self) -> None:
        """Reject what cannot be used."""
        given: dict[str, Any] = vars(self)
        name, options, variants, lacks = (given[key] for key in ("name", "options", "variants", "lacks"))
        if not isinstance(name, str) or not name.rpartition(":")[2].isidentifier():
            raise ValueError(f"OwnOptimizer({name!r}): expected the name of a class, as 'package.module:Class'")
        expected = {
            "options": (_is_dict(options), "a dict"),
            "variants": (_are_listed(variants) and all(map(_is_dict, variants)), "a list of dicts"),
            "keeps_state": (given["keeps_state"] in (True, False, None), "True, False, or None to find out"),
            "lr": (isinstance(given["lr"], str), "the name of an option, or '' if there is none"),
            "lacks": (_are_listed(lacks) and all(map(_is_feature, lacks)), f"a list, of {', '.join(FEATURES)}"),
            "draws_random_numbers": (isinstance(given["draws_random_numbers"], bool), "True or False"),
        }
        for field_name, (fits, what) in expected.items():
            if not fits:
                raise ValueError(f"OwnOptimizer({name!r}): {field_name}={given[field_name]!r}: expected {what}")

    @property
    def label(self) -> str:
        """The name of the class without its module."""
        return self.name.rpartition(":")[2]

    @property
    def configurations(self) -> list[dict[str, Any]]:
        """The options, then those of each variant."""
        return [dict(self.options), *({**self.options, **variant} for variant in self.variants)]


@dataclass(frozen=True)
class Rounding:
    """How much an implementation may differ from the standard loop, because its sums have another order.

    Attributes:
        size: the largest difference that passes, relative to the largest value of a tensor.
        reason: the reason.
    """

    size: float
    reason: str


EXACT = Rounding(0.0, "")


@dataclass(frozen=True)
class Declarations:
    """What an adapter declares.

    Attributes:
        own_optimizers: the optimizer classes that the library brings along; empty if it takes any class.
        rounding: how much it may differ from the standard loop; 0 by default.
        requires_device: the kind of device without which it cannot run, such as `cuda`; empty for any.
    """

    own_optimizers: tuple[OwnOptimizer, ...] = ()
    rounding: Rounding = EXACT
    requires_device: str = ""

    @staticmethod
    def of(target: Any) -> Declarations:
        """Return what an adapter declares in its attributes of these names.

        Raises:
            ValueError: an attribute cannot be used; the message says which, and what is expected.
        """
        own = getattr(target, "own_optimizers", ())
        if not _are_listed(own) or not all(isinstance(entry, OwnOptimizer) for entry in own):
            raise ValueError(f"own_optimizers = {own!r}: expected a list of OwnOptimizer")
        if hasattr(target, "own_optimizers") and not own:
            raise ValueError("own_optimizers is empty: declare a class, or remove it if any optimizer class is taken")
        names = [entry.name for entry in own]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"own_optimizers has {', '.join(twice)} twice: declare other options as its `variants`")
        device = getattr(target, "requires_device", "")
        if device not in DEVICES:
            raise ValueError(f"requires_device = {device!r}: expected one of {', '.join(map(repr, DEVICES))}")
        return Declarations(tuple(own), _rounding(getattr(target, "rounding", None)), device)


def _is_dict(value: Any) -> bool:
    return isinstance(value, Mapping)


def _is_feature(value: Any) -> bool:
    return value in tuple(FEATURES)


def _are_listed(values: Any) -> bool:
    return isinstance(values, Collection) and not isinstance(values, str | Mapping)


def _rounding(declared: Any) -> Rounding:
    match declared:
        case None:
            return EXACT
        case (int() | float() as size, str() as reason) if 0 < size < 1 and reason.strip():
            return Rounding(float(size), reason.strip())
    raise ValueError(
        f"rounding = {declared!r}: expected a relative size and the reason, "
        f"as (1e-6, 'gradients are summed in another order')"
    )
