"""Mutants of DistributedDataParallel: what goes wrong between a hook and an all-reduce."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

from mutants.naive import Naive
from mutants.registry import base, fails

if TYPE_CHECKING:
    from torch._C._distributed_c10d import GradBucket
    from torch.optim import Optimizer


@fails("ddp/early_step")
@base
class AfterBackward:
    """What the others are made from: an ordinary optimizer for each call, equal, but stepped when all is over."""

    def __init__(self) -> None:
        self.attached: list[Optimizer] = []
        self.backwards = 0

    def apply(self, optimizer_class: Any, params: Any, optimizer_kwargs: Any, register_hook: bool = True) -> None:
        self.attached.append(optimizer_class(params, **optimizer_kwargs))

    def optimizers(self, module: nn.Module) -> list[Optimizer]:
        return list(self.attached)

    def backward(self, loss: Tensor, module: nn.Module) -> None:
        loss.backward()
        self.backwards += 1
        self.step(module)
        self.free()

    def step(self, module: nn.Module) -> None:
        _step(self.attached)

    def free(self) -> None:
        for optimizer in self.attached:
            optimizer.zero_grad()


class Reducing(AfterBackward):
    """Brings gradients together by itself, bucket by bucket."""

    def wrap_ddp(self, module: nn.Module, **options: Any) -> nn.Module:
        ddp = DistributedDataParallel(module, **options)
        ddp.register_comm_hook(None, lambda _, bucket: self.reduce(bucket))
        return ddp

    def reduce(self, bucket: GradBucket) -> Future[Tensor]:
        return allreduce_hook(bucket=bucket, process_group=None)  # type: ignore[arg-type]  # that of all ranks


@fails("ddp/micro_batches", "no_sync")
class AccumulatesTheLastAlone(AfterBackward):
    """Frees gradients after every micro-batch."""

    @contextmanager
    def accumulate(self, module: nn.Module) -> Iterator[None]:
        yield
        self.free()


@fails("ddp/equality", "after-2")
class StepsBeforeTheAllReduce(Naive):
    """Its hooks are on parameters, whose gradients are still those of one rank."""


@fails("ddp/equality", "first-forward-2")
class LooksAtTheFirstForward(AfterBackward):
    """Takes over in the first forward what is attached by then; what comes later trains nothing."""

    def wrap_ddp(self, module: nn.Module, **options: Any) -> nn.Module:
        self.taken: list[Optimizer] | None = None
        ddp = DistributedDataParallel(module, **options)
        ddp.register_forward_pre_hook(self.take_over)
        return ddp

    def take_over(self, *_: object) -> None:
        if self.taken is None:
            self.taken = list(self.attached)

    def step(self, module: nn.Module) -> None:
        _step(self.taken or [])


@fails("ddp/same_on_all_ranks")
class SumsFromItsOwnRank(Reducing):
    """Gathers gradients and adds them up, each rank from its own on: they are not rounded alike."""

    def reduce(self, bucket: GradBucket) -> Future[Tensor]:
        rank, size = distributed.get_rank(), distributed.get_world_size()
        gathered = [torch.empty_like(bucket.buffer()) for _ in range(size)]
        distributed.all_gather(gathered, bucket.buffer())
        return _done(torch.stack(gathered[rank:] + gathered[:rank]).sum(0) / size)


@fails("ddp/gradients_are_freed")
class ZeroesGradients(AfterBackward):
    def free(self) -> None:
        for optimizer in self.attached:
            optimizer.zero_grad(set_to_none=False)


@fails("ddp/many_buckets")
class KeepsTheFirstBuckets(AfterBackward):
    """Looks gradients up once, and goes on with that memory when buckets are rebuilt."""

    def step(self, module: nn.Module) -> None:
        if self.backwards == 1:
            self.grads = {param: param.grad for param in module.parameters()}
        for param, grad in self.grads.items():
            param.grad = grad
        super().step(module)


@fails("ddp/static_graph")
class MissesTheFirstBackward(AfterBackward):
    """Waits for bucket hooks, which a static graph calls from the second backward on."""

    def step(self, module: nn.Module) -> None:
        if self.backwards > 1:
            super().step(module)


@fails("ddp/unused_parameters", "all-ranks-one-bucket-no-views")
@fails("ddp/frozen_parameters")
@fails("ddp/frozen_in_training")
class TakesNoGradientForZeros(AfterBackward):
    """Steps whatever was attached, with zeros too: weight decay moves what nobody has used, or trains."""

    def step(self, module: nn.Module) -> None:
        for param in module.parameters():
            if param.grad is None:
                param.grad = torch.zeros_like(param)
        super().step(module)


@fails("ddp/no_sync")
class ForgetsWhatHasAccumulated(AfterBackward):
    def backward(self, loss: Tensor, module: nn.Module) -> None:
        self.free()
        super().backward(loss, module)


@fails("ddp/shared_parameter")
class StepsForEachName(AfterBackward):
    def step(self, module: nn.Module) -> None:
        super().step(module)
        names = Counter(param for _, param in module.named_parameters(remove_duplicate=False))
        for param in names:
            if names[param] == 1:
                param.grad = None
        super().step(module)


@fails("ddp/two_optimizers")
class LastComeFirstServed(AfterBackward):
    def step(self, module: nn.Module) -> None:
        _step(reversed(self.attached))


@fails("ddp/different_optimizers")
class KeepsTheLastCall(AfterBackward):
    def step(self, module: nn.Module) -> None:
        self.attached[-1].step()


@fails("ddp/ignored_parameters")
class AveragesWhatIsIgnored(AfterBackward):
    """Averages all gradients of the model once more: a second time changes nothing where DDP has done it."""

    def step(self, module: nn.Module) -> None:
        for param in module.parameters():
            assert param.grad is not None
            distributed.all_reduce(param.grad.div_(distributed.get_world_size()))
        super().step(module)


@fails("ddp/thawed_in_training")
class LooksAtRequiresGradOnce(AfterBackward):
    def apply(self, optimizer_class: Any, params: Any, optimizer_kwargs: Any, register_hook: bool = True) -> None:
        training = [param for param in params if param.requires_grad]
        super().apply(optimizer_class, training, optimizer_kwargs, register_hook)


@fails("ddp/complex_parameters")
class TakesTheViewsOfABucket(Reducing):
    """Steps by `bucket.gradients()`, which are no gradients of complex parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.grads: dict[Tensor, Tensor] = {}

    def reduce(self, bucket: GradBucket) -> Future[Tensor]:
        self.grads |= dict(zip(bucket.parameters(), bucket.gradients(), strict=True))
        return super().reduce(bucket)

    def step(self, module: nn.Module) -> None:
        for param, grad in self.grads.items():
            param.grad = grad.to(param.dtype)
        super().step(module)


@fails("ddp/sparse_gradients")
class ReducesDenseAlone(Reducing):
    def reduce(self, bucket: GradBucket) -> Future[Tensor]:
        return _done(bucket.buffer()) if bucket.buffer().is_sparse else super().reduce(bucket)


@fails("ddp/buffers", "no-broadcast")
@fails("ddp/mixed_precision")
class ForgetsOptions(AfterBackward):
    def wrap_ddp(self, module: nn.Module, **options: Any) -> nn.Module:
        return DistributedDataParallel(module)


@fails("ddp/checkpoint")
class TakesRecomputationForAccumulation(AfterBackward):
    """Counts forwards: where a layer had two since the last step, gradients are still to accumulate."""

    def wrap_ddp(self, module: nn.Module, **options: Any) -> nn.Module:
        self.forwards: Counter[nn.Module] = Counter()
        for layer in module.modules():
            layer.register_forward_pre_hook(lambda layer, _: self.forwards.update([layer]))
        return DistributedDataParallel(module, **options)

    def step(self, module: nn.Module) -> None:
        if max(self.forwards.values()) == 1:
            super().step(module)
        self.forwards.clear()


@fails("ddp/checkpoint_in_a_static_graph", "ReentrantCheckpointedTwice")
class StepsForEachPart(AfterBackward):
    def apply(self, optimizer_class: Any, params: Any, optimizer_kwargs: Any, register_hook: bool = True) -> None:
        listed = list(params)
        self.parts: Counter[Tensor] = Counter()
        for param in listed:
            param.register_post_accumulate_grad_hook(lambda param: self.parts.update([param]))
        super().apply(optimizer_class, listed, optimizer_kwargs, register_hook)

    def step(self, module: nn.Module) -> None:
        super().step(module)
        for param, parts in self.parts.items():
            if parts == 1:
                param.grad = None
        super().step(module)
        self.parts.clear()


@fails("ddp/comm_hook")
class DeafToHooks(AfterBackward):
    def wrap_ddp(self, module: nn.Module, **options: Any) -> nn.Module:
        ddp = DistributedDataParallel(module, **options)
        ddp.register_comm_hook = lambda *_: None  # type: ignore[method-assign]
        return ddp


@fails("ddp/plain_ddp")
class StepsLocallyUnlessTold(AfterBackward):
    """Steps averaged gradients under a wrapper of its own making, and those that its hooks see under any other."""

    told = False

    def wrap_ddp(self, module: nn.Module, **options: Any) -> nn.Module:
        self.told = True
        return DistributedDataParallel(module, **options)

    def apply(self, optimizer_class: Any, params: Any, optimizer_kwargs: Any, register_hook: bool = True) -> None:
        listed = list(params)
        self.local: dict[Tensor, Tensor] = {}
        for param in listed:
            param.register_post_accumulate_grad_hook(self.on_gradient)
        super().apply(optimizer_class, listed, optimizer_kwargs, register_hook)

    def on_gradient(self, param: Tensor) -> None:
        assert param.grad is not None
        self.local[param] = param.grad.clone()

    def step(self, module: nn.Module) -> None:
        if not self.told:
            for param, grad in self.local.items():
                param.grad = grad
        super().step(module)


@fails("ddp/current_stream")
class StepsBesideTheStream(AfterBackward):
    def step(self, module: nn.Module) -> None:
        own = torch.Stream()
        own.wait_stream(torch.accelerator.current_stream())
        with own:
            super().step(module)


@fails("ddp/rank_that_raises", "hook")
class KeepsErrorsToItself(AfterBackward):
    def backward(self, loss: Tensor, module: nn.Module) -> None:
        with suppress(Exception):
            super().backward(loss, module)


@fails("ddp/join", "active-ranks-2")
class DividesByAllRanks(AfterBackward):
    def wrap_ddp(self, module: nn.Module, **options: Any) -> nn.Module:
        return _OneDivisor(module, **options)


class _OneDivisor(DistributedDataParallel):
    def join(self, **options: Any) -> AbstractContextManager[None]:  # type: ignore[override]
        joining: AbstractContextManager[None] = super().join(**options | {"divide_by_initial_world_size": True})
        return joining


def _step(optimizers: Iterable[Optimizer]) -> None:
    for optimizer in optimizers:
        optimizer.step()


def _done(value: Tensor) -> Future[Tensor]:
    future: Future[Tensor] = Future()
    future.set_result(value)
    return future
