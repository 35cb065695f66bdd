"""Adapter of torch: `_apply_optimizer_in_backward`, functional optimizers, and their hook for DDP."""

from __future__ import annotations

import inspect
import warnings
from typing import TYPE_CHECKING, Any, ClassVar

from torch.distributed.algorithms.ddp_comm_hooks import optimizer_overlap_hooks as overlap
from torch.distributed.optim.apply_optimizer_in_backward import (
    _apply_optimizer_in_backward,
    _get_in_backward_optimizers,
)
from torch.distributed.optim.utils import functional_optim_map

from inbackward_conformance.outcome import NotOffered

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor, nn
    from torch.nn.parallel import DistributedDataParallel
    from torch.optim import Optimizer


class TorchCore:
    """Calls torch's private functions."""

    apply = staticmethod(_apply_optimizer_in_backward)
    distribution = "torch"
    spelling: ClassVar = {
        "import": """
            from torch.distributed.algorithms.ddp_comm_hooks import optimizer_overlap_hooks as overlap
            from torch.distributed.optim import _apply_optimizer_in_backward, _get_in_backward_optimizers
            from torch.distributed.optim.utils import functional_optim_map
        """,
        "apply": "_apply_optimizer_in_backward("
        "{optimizer_class}, {params}, {optimizer_kwargs}, register_hook={register_hook})",
        "optimizers": "_get_in_backward_optimizers({module})",
        "functional_optimizer": "functional_optim_map[{optimizer_class}]({params}, {options})",
        "param_groups": "[{functional_optimizer}.defaults]",
        "hook_then_optimizer": "{ddp}.register_comm_hook({state}, overlap._hook_then_optimizer("
        "{comm_hook}, overlap._OptimizerHookState({functional_optimizer}, {params})))",
    }

    def optimizers(self, module: nn.Module) -> list[Optimizer]:
        return list(_get_in_backward_optimizers(module))

    def functional_optimizer(
        self, optimizer_class: type[Optimizer], params: Iterable[Tensor], **options: Any
    ) -> TorchFunctional:
        functional_class = functional_optim_map.get(optimizer_class)
        if functional_class is None:
            raise NotOffered(f"no functional {optimizer_class.__name__}")
        for option in sorted(options.keys() - inspect.signature(functional_class).parameters.keys()):
            raise NotOffered(f"{functional_class.__name__} has no option {option}")
        with warnings.catch_warnings(record=True):  # the class warns about TorchScript, past every filter
            return TorchFunctional(functional_class(list(params), **options))

    def hook_then_optimizer(
        self,
        ddp: DistributedDataParallel,
        comm_hook: Any,
        state: Any,
        functional: Any,
        params: Iterable[Tensor] | None = None,
    ) -> None:
        optimizer_state = overlap._OptimizerHookState(functional, params)  # noqa: SLF001
        ddp.register_comm_hook(state, overlap._hook_then_optimizer(comm_hook, optimizer_state))  # noqa: SLF001


class TorchFunctional:
    """A functional optimizer of torch, with `param_groups` to change the learning rate in."""

    def __init__(self, functional: Any) -> None:
        self.param_groups = [functional.defaults]
        self.state = functional.state
        self.step = functional.step
        if hasattr(functional, "step_param"):
            self.step_param = functional.step_param
