"""Caught by the chapters equivalence and models."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from mutants.naive import Naive, Remembering
from mutants.registry import fails

if TYPE_CHECKING:
    from torch.optim import Optimizer


@fails("equivalence/every_configuration", "SGD-loop-momentum=0.9")
class OptionsBeyondLrDropped(Naive):
    def build(self, optimizer_class: type[Optimizer], params: list[Any], kwargs: dict[str, Any]) -> Optimizer:
        return super().build(optimizer_class, params, {"lr": kwargs["lr"]} if "lr" in kwargs else {})


@fails("equivalence/closure")
class ClosureReplacedByAPlainStep(Naive):
    def apply(self, optimizer_class: type[Optimizer], params: Iterable[Any], *args: Any, **kwargs: Any) -> None:
        if optimizer_class is torch.optim.LBFGS:
            optimizer_class, args = torch.optim.SGD, ({"lr": 0.1}, *args[1:])
        super().apply(optimizer_class, params, *args, **kwargs)


@fails("equivalence/weights_and_biases", "SGD-SGD")
class OptionsOfTheLastCallForAll(Remembering):
    def build(self, optimizer_class: type[Optimizer], params: list[Any], kwargs: dict[str, Any]) -> Optimizer:
        last = super().build(optimizer_class, params, kwargs)
        for optimizer in self.built:
            optimizer.param_groups[0].update(kwargs)
        return last


@fails("equivalence/part_of_the_model")
class WholeModelAttached(Naive):
    def attach(self, module: nn.Module, assignments: Sequence[Any]) -> None:
        for optimizer_class, _, kwargs, hook in assignments:
            self.apply(optimizer_class, module.parameters(), kwargs, hook)


@fails("equivalence/long_run")
class StateRebuiltAfterAHundredSteps(Naive):
    def step(self, optimizer: Optimizer, param: Tensor) -> None:
        optimizer.__dict__["steps"] = optimizer.__dict__.get("steps", 0) + 1
        if optimizer.__dict__["steps"] == 100:
            optimizer.state.clear()
        super().step(optimizer, param)


@fails("models/batch_norm")
class BuffersPutBack(Naive):
    def backward(self, loss: Tensor, module: nn.Module) -> None:
        loss.backward()
        for buffer in module.buffers():
            buffer.zero_()


@fails("models/channels_last")
class GradientFlattenedByView(Naive):
    def on_gradient(self, param: Tensor) -> None:
        if param.grad is not None:
            param.grad.view(-1)
        super().on_gradient(param)


@fails("models/dense_embedding")
class RowsWithoutGradientLeftOut(Naive):
    def step(self, optimizer: Optimizer, param: Tensor) -> None:
        before = param.detach().clone()
        super().step(optimizer, param)
        if param.dim() == 2 and param.grad is not None and not param.grad.is_sparse:
            with torch.no_grad():
                untouched = (param.grad == 0).all(dim=1)
                param[untouched] = before[untouched]


@fails("models/sparse_embedding", "SparseAdam")
class Densified(Naive):
    def step(self, optimizer: Optimizer, param: Tensor) -> None:
        if param.grad is not None:
            param.grad = param.grad.to_dense()
        super().step(optimizer, param)


@fails("models/sparse_gradient_rejected")
class ErrorsOfTheStepSwallowed(Naive):
    def step(self, optimizer: Optimizer, param: Tensor) -> None:
        try:
            super().step(optimizer, param)
        except RuntimeError:
            return


@fails("models/tied_transformer")
class RandomNumbersDrawnInTheHook(Naive):
    def step(self, optimizer: Optimizer, param: Tensor) -> None:
        torch.rand(())
        super().step(optimizer, param)


@fails("gradients/unused_parameter")
@fails("models/skipped_branches")
class UnusedParametersSteppedWithZeros(Naive):
    def backward(self, loss: Tensor, module: nn.Module) -> None:
        reached: set[int] = set()
        params = module.parameters()
        handles = [param.register_post_accumulate_grad_hook(lambda param: reached.add(id(param))) for param in params]
        loss.backward()
        for handle in handles:
            handle.remove()
        for param in module.parameters():
            if id(param) not in reached:
                param.grad = torch.zeros_like(param)
                self.on_gradient(param)


@fails("models/frozen_parameters")
class FrozenParametersThawed(Naive):
    def attach(self, module: nn.Module, assignments: Sequence[Any]) -> None:
        self.apply_all(assignments)
        for param in module.parameters():
            if not param.requires_grad:
                self.attach_to(param.requires_grad_(), torch.optim.SGD([param], lr=0.1), hook=True)


@fails("models/odd_shapes")
class ScalarsLeftOut(Naive):
    def attach_to(self, param: Any, optimizer: Optimizer, *, hook: bool) -> None:
        if param.dim():
            super().attach_to(param, optimizer, hook=hook)


@fails("models/complex")
class GradientConjugated(Naive):
    def step(self, optimizer: Optimizer, param: Tensor) -> None:
        if param.grad is not None:
            param.grad = param.grad.conj().resolve_conj()
        super().step(optimizer, param)


@fails("models/dtype", "SGD-bfloat16")
class StepInSinglePrecision(Naive):
    def step(self, optimizer: Optimizer, param: Tensor) -> None:
        dtype = param.dtype
        if param.grad is None or dtype.is_complex:
            super().step(optimizer, param)
            return
        grad, param.grad = param.grad.float(), None
        param.data = param.data.float()
        param.grad = grad
        super().step(optimizer, param)
        param.grad = None
        param.data = param.data.to(dtype)


@fails("models/parametrized_layer")
@fails("models/recurrent")
class OnlyWeightsAndBiasesFound(Naive):
    def attach(self, module: nn.Module, assignments: Sequence[Any]) -> None:
        named = module.named_parameters()
        params = [param for name, param in named if name.rpartition(".")[2] in {"weight", "bias"}]
        for optimizer_class, _, kwargs, hook in assignments:
            self.apply(optimizer_class, params, kwargs, hook)
