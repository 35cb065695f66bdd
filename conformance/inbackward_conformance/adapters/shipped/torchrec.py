"""Adapter of torchrec: `apply_optimizer_in_backward`, and `in_backward_optimizer_filter` for what it is attached to.

The package loads fbgemm, which is built for one version of torch. The files of these two functions need torch alone.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inbackward_conformance import NotOffered

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import nn
    from torch.optim import Optimizer

distribution = "torchrec"
spelling = "source"


def file_of(name: str) -> Any:
    """Return the module `torchrec.optim.NAME`, loaded without the package."""
    package: Any = importlib.util.find_spec("torchrec")
    spec: Any = importlib.util.spec_from_file_location(name, Path(package.origin).parent / "optim" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def apply(
    optimizer_class: type[Optimizer],
    params: Iterable[Any],
    optimizer_kwargs: dict[str, Any],
    register_hook: bool = True,
) -> None:
    if not register_hook:
        raise NotOffered("apply_optimizer_in_backward always hooks")
    file_of("apply_optimizer_in_backward").apply_optimizer_in_backward(optimizer_class, params, optimizer_kwargs)


def optimizers(module: nn.Module) -> list[Optimizer]:
    own = file_of("optimizers").in_backward_optimizer_filter(module.named_parameters(), include=True)
    return [optimizer for _, param in own for optimizer in param._in_backward_optimizers]  # noqa: SLF001
