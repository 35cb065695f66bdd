"""What is needed of DistributedDataParallel and torch offers no public name for; no other module touches it.

Asked for are: the features by which gradients go another way than through buckets, and by how many ranks an uneven
end of the inputs has DDP divide. `tests/test_impl_ddp.py` and its neighbours pin the behaviour relied on.
"""

# ruff: noqa: SLF001 -- this is the module that may
from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.nn.parallel import DistributedDataParallel


def unsupported(ddp: DistributedDataParallel) -> str | None:
    """Why optimizers cannot step in this DDP's backward; None if they can."""
    if ddp.mixed_precision is not None:
        return "its mixed precision casts gradients on their way. Use torch.autocast, or an ordinary optimizer"
    if ddp._comm_hooks:
        return (
            "it has a communication hook already, and a DDP takes one. Do without inbackward.attach_to_ddp, or without "
            "that hook"
        )
    if ddp._delay_all_reduce_params:
        return "it was made with delay_all_reduce_named_params, which go past its buckets. Do without them"
    if ddp._use_python_reducer:
        return (
            'torch._dynamo.config.optimize_ddp is "python_reducer", which knows no buckets. Set it to "ddp_optimizer" '
            "before wrapping"
        )
    return None


def counts_active_ranks(ddp: DistributedDataParallel) -> bool:
    """Whether DDP divides by the number of ranks that still have inputs, and not by that of all ranks.

    Behind another in one `Join`, the reducer never learns of a rank that has run out of them.
    """
    join = ddp._join_config
    return bool(join.enable and join.is_first_joinable and not ddp._divide_by_initial_world_size)
