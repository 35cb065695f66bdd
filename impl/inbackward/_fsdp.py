"""Fully sharded data parallel by FSDP2, `fully_shard`.

It makes new Parameter objects, which know nothing of what was attached to the old, and calls their
post-accumulate-grad hooks itself when it has reduced a gradient. So attachments are moved over here, and an attachment
to a sharded parameter steps right in its hook.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from inbackward._attachment import attachment_of

if TYPE_CHECKING:
    import torch
    from torch import nn


def fully_shard(module: nn.Module, **kwargs: Any) -> Any:
    """Shards a module as `torch.distributed.fsdp.fully_shard` does, and what is attached to its parameters with it.

    Optimizers attached before are those of the sharded parameters afterwards, as if attached then: the same objects,
    to which schedulers may refer already. To attach after sharding needs nothing of this: torch's own call does.

    Args:
        module: The module.
        **kwargs: As for torch's call.

    Returns:
        What torch's call returns.

    Raises:
        ValueError: An optimizer has state already, of the unsharded parameter. Nothing is sharded then.
    """
    from torch.distributed.fsdp import fully_shard as shard  # noqa: PLC0415 -- slow, and not for everybody

    before = {name: param for name, param in module.named_parameters(remove_duplicate=False) if attachment_of(param)}
    for name, param in before.items():
        _refuse_state(name, param)
    result = shard(module, **kwargs)
    for name, param in module.named_parameters(remove_duplicate=False):
        attachment = attachment_of(before.get(name, param))
        if attachment is not None and attachment.param is not param and attachment_of(param) is None:
            attachment.move_to(param)
    return result


def _refuse_state(name: str, param: torch.Tensor) -> None:
    attachment = attachment_of(param)
    if attachment is not None and any(optimizer.state for optimizer in attachment.optimizers.values()):
        msg = (
            f"An optimizer of {name} has state already, of the unsharded parameter: it has stepped, or, like Adagrad, "
            f"is made with it. Attach optimizers after sharding, and load state with torch.distributed.checkpoint."
        )
        raise ValueError(msg)
