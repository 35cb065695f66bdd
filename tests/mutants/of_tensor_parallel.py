"""Mutants of tensor parallelism: what goes wrong between a rank's part of a tensor and the others'."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.tensor import DTensor

from mutants import of_ddp
from mutants.of_ddp import AfterBackward
from mutants.of_fsdp import OnShards
from mutants.registry import base, fails

if TYPE_CHECKING:
    from collections.abc import Sequence


class WithOtherGradients(OnShards):
    """Steps with other gradients than those that it finds."""

    def step(self, module: nn.Module) -> None:
        for param in module.parameters():
            if param.grad is not None:
                param.grad = self.changed(param, param.grad)
        super().step(module)

    def changed(self, param: Tensor, grad: Tensor) -> Tensor:
        raise NotImplementedError


@fails("tensor_parallel/linear_layers")
@fails("tensor_parallel/stepped_together")
@fails("mesh/fully_shard", "over-tensor-parallelism-whole")
@fails("mesh/sequence_parallel")
class TakesAllDTensorsForThoseOfFSDP(WithOtherGradients):
    """Has them averaged over all ranks, though those with another part of the tensor have no part in its gradient."""

    def changed(self, param: Tensor, grad: Tensor) -> Tensor:
        names = (param.device_mesh.mesh_dim_names or ()) if isinstance(param, DTensor) else ()
        return grad / param.device_mesh["tensor"].size() if "tensor" in names else grad  # type: ignore[attr-defined]


@fails("tensor_parallel/embedding")
class StepsTheRowsOfTheBatch(OnShards):
    """Takes the rows of an embedding without a gradient for untouched, where weight decay and states move them."""

    def step(self, module: nn.Module) -> None:
        embeddings: list[Any] = [layer.weight for layer in module.modules() if isinstance(layer, nn.Embedding)]
        kept = []
        for weight in embeddings:
            rows = _local(weight.grad.redistribute(placements=weight.placements)).any(1, keepdim=True)
            kept.append((_local(weight), _local(weight).clone(), rows))
        super().step(module)
        for value, before, rows in kept:
            value.copy_(torch.where(rows, value, before))


@fails("tensor_parallel/sequence_parallel")
class StepsWithPartialGradients(WithOtherGradients):
    """Takes what a rank holds of a partial gradient for all of it."""

    def changed(self, param: Tensor, grad: Tensor) -> Tensor:
        if not isinstance(grad, DTensor) or not isinstance(param, DTensor):
            return grad
        whole = [
            there if part.is_partial() else part for part, there in zip(grad.placements, param.placements, strict=True)
        ]
        shape, stride = grad.shape, grad.stride()
        return DTensor.from_local(grad.to_local(), grad.device_mesh, whole, shape=shape, stride=stride)


@fails("tensor_parallel/beside_plain_parameters")
@fails("mesh/beside_one_dimension")
class AddsUpOverTheOtherRanks(WithOtherGradients):
    """Takes ranks outside of a parameter's mesh for data parallel, and adds up their gradients, which are the same."""

    def changed(self, param: Tensor, grad: Tensor) -> Tensor:
        inside = param.device_mesh.size() if isinstance(param, DTensor) else 1
        return grad * (distributed.get_world_size() / inside)


@fails("tensor_parallel/attached_before")
class FollowsTheNames(OnShards):
    """Trains what now has the name of a parameter, as no optimizer does."""

    def step(self, module: nn.Module) -> None:
        for optimizer in self.attached:
            optimizer.param_groups[0]["params"] = list(module.parameters())
        super().step(module)


@fails("tensor_parallel/two_optimizers")
class LastComeFirstServedOnDTensors(of_ddp.LastComeFirstServed, OnShards):
    """Steps in the reverse order of attachment."""


@fails("tensor_parallel/micro_batches")
@fails("mesh/micro_batches")
@fails("offload/micro_batches")
class AccumulatesTheLastMicroBatch(of_ddp.AccumulatesTheLastAlone, OnShards):
    """Frees gradients after every micro-batch."""


@fails("tensor_parallel/clipping")
@fails("offload/clipping")
class ClipsByTheNormOfItsPart(OnShards):
    """Each rank takes the norm of its own parts."""

    def backward_clipped(self, loss: Tensor, module: nn.Module, max_norm: float | None, scaler: Any) -> Tensor:
        loss.backward()
        grads = [_local(param.grad) for param in module.parameters() if param.grad is not None]
        norm = torch.nn.utils.get_total_norm(grads)
        for grad in grads:
            grad.mul_(min(1.0, (max_norm or 0.0) / (norm.item() + 1e-6)))
        self.step(module)
        self.free()
        return norm


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


def _local(tensor: Any) -> Tensor:
    return (tensor.to_local() if isinstance(tensor, DTensor) else tensor).detach()
