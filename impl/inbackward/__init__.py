"""Optimizer in backward for PyTorch.

Parameters are stepped inside `backward()`, as soon as their gradients are complete, and the gradients are freed. The
result is, bit for bit, that of the standard loop: `loss.backward()`, `optimizer.step()`,
`optimizer.zero_grad(set_to_none=True)`. Where that cannot be had, there is an error that names the remedy.

    import inbackward

    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    inbackward.step_in_backward(optimizer)
    for batch in batches:
        model(batch).sum().backward()  # the optimizer steps in here; no step(), no zero_grad()

With several ranks, gradients are averaged before the step. So the module is wrapped by a function of this package:
`wrap_ddp` for DistributedDataParallel, `fully_shard` for FSDP2, `wrap_fsdp` for FSDP1; hand over before or after.
"""

from inbackward._api import (
    apply_optimizer_in_backward,
    declare_local,
    detach,
    get_in_backward_optimizers,
    optimizers_of,
)
from inbackward._clip import backward
from inbackward._ddp import attach_to_ddp, wrap_ddp
from inbackward._fsdp import fully_shard
from inbackward._fsdp1 import wrap_fsdp
from inbackward._functional import FunctionalOptimizer
from inbackward._functional_forms import functional_optimizer, register_functional_optimizer
from inbackward._hand_over import Handle, handle_of, step_in_backward
from inbackward._hook_then_optimizer import hook_then_optimizer

__all__ = [
    "FunctionalOptimizer",
    "Handle",
    "apply_optimizer_in_backward",
    "attach_to_ddp",
    "backward",
    "declare_local",
    "detach",
    "fully_shard",
    "functional_optimizer",
    "get_in_backward_optimizers",
    "handle_of",
    "hook_then_optimizer",
    "optimizers_of",
    "register_functional_optimizer",
    "step_in_backward",
    "wrap_ddp",
    "wrap_fsdp",
]

__version__ = "0.2.0"
