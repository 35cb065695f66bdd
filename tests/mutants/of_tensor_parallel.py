"""Mutants of tensor parallelism."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, distributed, nn
from torch.distributed.tensor import DTensor

from mutants.of_ddp import AfterBackward
from mutants.registry import base, fails

if TYPE_CHECKING:
    from collections.abc import Sequence


@base
class RefusesSeveralRanks(AfterBackward):
    """Refuses parameters that nobody is known to average."""

    def backward(self, loss: Tensor, module: nn.Module) -> None:
        if distributed.get_world_size() > 1 and self.unaveraged([*module.parameters()]):
            raise RuntimeError("nobody averages the gradients over the ranks: average them in a hook, and say so")
        super().backward(loss, module)

    def unaveraged(self, params: Sequence[Tensor]) -> Sequence[Tensor]:
        return params


@fails("tensor_parallel/averaged_by_hand")
class TakesDTensorsForAveraged(RefusesSeveralRanks):
    """As those of FSDP2 are; that their mesh has other ranks beside it is not asked."""

    def unaveraged(self, params: Sequence[Tensor]) -> Sequence[Tensor]:
        return [param for param in params if not isinstance(param, DTensor)]


@fails("tensor_parallel/averaged_by_hand")
class TakesOneRankForAll(RefusesSeveralRanks):
    def unaveraged(self, params: Sequence[Tensor]) -> Sequence[Tensor]:
        return []
