"""The ways of training that are compared. Each is set up on a model, and returns a step of training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.distributed.optim.apply_optimizer_in_backward import (
    _apply_optimizer_in_backward,
    _get_in_backward_optimizers,
)

import inbackward

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from torch import Tensor, nn
    from torch.optim import Optimizer

    Step = Callable[[Tensor], None]
    SetUp = Callable[[nn.Module, type[Optimizer], dict[str, Any]], tuple[Step, Iterable[Optimizer]]]

OPTIMIZERS: dict[str, tuple[type[Optimizer], dict[str, Any]]] = {
    # The learning rate is small, so that values stay as they are; the time of a step does not depend on it.
    "AdamW": (torch.optim.AdamW, {"lr": 1e-6}),
    "SGD": (torch.optim.SGD, {"lr": 1e-6, "momentum": 0.9}),
    "Adafactor": (torch.optim.Adafactor, {"lr": 1e-6}),
}
WITHOUT_FUSED = {"Adafactor"}
BUCKETS = {"0": 0, "256K": 256 << 10, "1M": 1 << 20, "4M": 4 << 20, "16M": 16 << 20}


@dataclass(frozen=True)
class Variant:
    """One way of training.

    Attributes:
        name: Its name on the command line.
        label: What it is, in a few words.
        set_up: Sets it up, and returns a step of training and the optimizers.
        options: Options of the optimizer.
        bucket_bytes: Of `step_in_backward`; None for the others.
    """

    name: str
    label: str
    set_up: SetUp
    options: dict[str, Any]
    bucket_bytes: int | None = None

    @property
    def is_fused(self) -> bool:
        """Whether the optimizer is fused."""
        return "fused" in self.options


def backward_alone(model: nn.Module, _: type[Optimizer], __: dict[str, Any]) -> tuple[Step, Iterable[Optimizer]]:
    """Run forward and backward, and no optimizer."""

    def step(batch: Tensor) -> None:
        model(batch).backward()
        model.zero_grad()

    return step, []


def standard_loop(
    model: nn.Module, optimizer_class: type[Optimizer], options: dict[str, Any]
) -> tuple[Step, Iterable[Optimizer]]:
    """Step after backward."""
    optimizer = optimizer_class(model.parameters(), **options)

    def step(batch: Tensor) -> None:
        model(batch).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step, [optimizer]


def in_backward(model: nn.Module) -> Step:
    """Return a step where backward does everything."""

    def step(batch: Tensor) -> None:
        model(batch).backward()

    return step


def torchs_own(
    model: nn.Module, optimizer_class: type[Optimizer], options: dict[str, Any]
) -> tuple[Step, Iterable[Optimizer]]:
    """Call the function of `torch.distributed.optim`."""
    _apply_optimizer_in_backward(optimizer_class, model.parameters(), options)
    return in_backward(model), _get_in_backward_optimizers(model)


def tutorial(
    model: nn.Module, optimizer_class: type[Optimizer], options: dict[str, Any]
) -> tuple[Step, Iterable[Optimizer]]:
    """Follow PyTorch's tutorial on fusing the optimizer step into the backward pass."""
    optimizer_dict: dict[Tensor, Optimizer] = {
        param: optimizer_class([param], **options) for param in model.parameters()
    }

    def optimizer_hook(param: Tensor) -> None:
        optimizer_dict[param].step()
        optimizer_dict[param].zero_grad()

    for param in model.parameters():
        param.register_post_accumulate_grad_hook(optimizer_hook)
    return in_backward(model), optimizer_dict.values()


def one_each(
    model: nn.Module, optimizer_class: type[Optimizer], options: dict[str, Any]
) -> tuple[Step, Iterable[Optimizer]]:
    """Give each parameter an optimizer of its own."""
    inbackward.apply_optimizer_in_backward(optimizer_class, model.parameters(), options)
    return in_backward(model), inbackward.get_in_backward_optimizers(model)


def handed_over(bucket_bytes: int) -> SetUp:
    """Hand the ordinary optimizer over."""

    def set_up(
        model: nn.Module, optimizer_class: type[Optimizer], options: dict[str, Any]
    ) -> tuple[Step, Iterable[Optimizer]]:
        optimizer = optimizer_class(model.parameters(), **options)
        inbackward.step_in_backward(optimizer, bucket_bytes)
        return in_backward(model), [optimizer]

    return set_up


def in_words(bucket: str) -> str:
    """Write out the unit of a bucket's name."""
    return bucket.replace("K", " KiB").replace("M", " MiB")


def _variants() -> Iterable[Variant]:
    yield Variant("backward", "forward and backward alone", backward_alone, {})
    yield Variant("loop", "standard loop", standard_loop, {})
    yield Variant("loop-foreach", "standard loop, foreach", standard_loop, {"foreach": True})
    yield Variant("loop-fused", "standard loop, fused", standard_loop, {"fused": True})
    fused: dict[str, Any]
    for suffix, comma, fused in (("", "", {}), ("-fused", ", fused", {"fused": True})):
        yield Variant(f"torch{suffix}", f"torch's own{comma}", torchs_own, fused)
        yield Variant(f"tutorial{suffix}", f"the tutorial's recipe{comma}", tutorial, fused)
        yield Variant(f"apply{suffix}", f"`apply_optimizer_in_backward`{comma}", one_each, fused)
        for name, size in BUCKETS.items():
            label = f"`step_in_backward`, bucket {in_words(name)}{comma}"
            yield Variant(f"handed-{name}{suffix}", label, handed_over(size), fused, size)


VARIANTS = {variant.name: variant for variant in _variants()}


def baseline_of(optimizer: str) -> str:
    """Name the variant that the others are compared with: the fused standard loop, where the class has it."""
    return "loop" if optimizer in WITHOUT_FUSED else "loop-fused"


def groups_of(optimizer: str, names: Iterable[str]) -> list[list[Variant]]:
    """Give the variants that take turns with each other: those that are not fused, and those that are.

    The baseline takes turns with both. They are two groups because all copies of a model together need much memory.
    """
    baseline = VARIANTS[baseline_of(optimizer)]
    chosen = [VARIANTS[name] for name in VARIANTS if name in {*names, baseline.name}]
    groups = []
    for is_fused in (False, True) if optimizer not in WITHOUT_FUSED else (False,):
        group = [variant for variant in chosen if variant.is_fused is is_fused]
        if group:
            groups.append(group if baseline in group else [baseline, *group])
    return groups
