"""What a parameter is called in an error message."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

from torch import nn
from torch.nn.parallel import DistributedDataParallel

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch
    from torch.optim import Optimizer


def name_of(param: torch.Tensor, optimizers: Iterable[Optimizer] = ()) -> str:
    """Gives the parameter's name, as far as it has one, and its shape.

    The name is the one that an optimizer was given with it, else that in the outermost module that is alive. To find
    that takes some milliseconds: it is for errors only.
    """
    name = _given(param, optimizers) or _qualified(param)
    described = f"parameter {name!r}" if name else "a parameter"
    return f"{described} of shape {tuple(param.shape)}"


def _given(param: torch.Tensor, optimizers: Iterable[Optimizer]) -> str:
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            for name, each in zip(group.get("param_names") or (), group["params"], strict=False):
                if each is param:
                    return str(name)
    return ""


def _qualified(param: torch.Tensor) -> str:
    found = [each for each in gc.get_objects() if issubclass(type(each), nn.Module)]
    # A wrapper only adds a prefix; that of the composable replicate() holds a list of parameters without names.
    modules = [module for module in found if not isinstance(module, DistributedDataParallel)]
    names = [name for module in modules for name, each in _named_parameters(module) if each is param]
    return max(names, key=lambda name: name.count("."), default="")


def _named_parameters(module: nn.Module) -> list[tuple[str, torch.Tensor]]:
    try:
        return [*nn.Module.named_parameters(module, remove_duplicate=False)]
    except Exception:  # noqa: BLE001 -- somebody's module, half constructed perhaps; the error to be raised is another
        return []
