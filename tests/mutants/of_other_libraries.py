"""Mutants for models that nobody here wrote: `nox -s architectures` runs them, where the libraries are installed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd import Variable

from mutants.naive import Naive
from mutants.of_handed_over import AtTheEnd
from mutants.registry import base, fails

if TYPE_CHECKING:
    from torch.optim import Optimizer


@base
class LeavesFrozen(Naive):
    """What the others are made from: no hook on a parameter that requires no gradient."""

    def attach_to(self, param: Any, optimizer: Optimizer, *, hook: bool) -> None:
        super().attach_to(param, optimizer, hook=hook and param.requires_grad)


@fails("architectures/gpt2")
@fails("architectures/vit")
class StepDrawsRandomNumbers(LeavesFrozen):
    """The masks of dropout are others from the second forward on."""

    def step(self, optimizer: Optimizer, param: Tensor) -> None:
        torch.rand(())
        super().step(optimizer, param)


@fails("architectures/llama")
@fails("architectures/t5")
@fails("architectures/bert")
class OneOptimizerAName(LeavesFrozen):
    """A tied weight has two names."""

    def attach(self, module: nn.Module, assignments: Sequence[Any]) -> None:
        self.apply_all(assignments)
        names = dict(module.named_parameters())
        for name, param in module.named_parameters(remove_duplicate=False):
            if name not in names:
                for optimizer in self.optimizers_of(param)[:1]:
                    self.attach_to(param, optimizer, hook=True)


@fails("architectures/checkpointed_llama", "AdamW-ReentrantCheckpointedLlama")
class EndsWithTheFirstBackward(LeavesFrozen):
    """Gradients that come after a backward inside backward has ended are dropped."""

    ended = False

    def backward(self, loss: Tensor, module: nn.Module, **kwargs: Any) -> None:
        self.ended = False
        loss.backward(**kwargs)

    def on_gradient(self, param: Tensor) -> None:
        Variable._execution_engine.queue_callback(self.end)
        if self.ended:
            param.grad = None
        else:
            super().on_gradient(param)

    def end(self) -> None:
        self.ended = True


@fails("architectures/mixtral")
class LazyExperts(LeavesFrozen):
    """Experts without a gradient stay, though weight decay and momentum would move them."""

    dimensions = 3

    def step(self, optimizer: Optimizer, param: Tensor) -> None:
        grad, before = param.grad, param.detach().clone()
        super().step(optimizer, param)
        if grad is not None and grad.dim() == self.dimensions:
            lazy = grad.flatten(1).eq(0).all(1)
            with torch.no_grad():
                param[lazy] = before[lazy]


@fails("architectures/dit")
class LazyRows(LazyExperts):
    """The same of an embedding: rows that no batch reaches stay."""

    dimensions = 2


@fails("architectures/mamba")
class WeightsAndBiases(LeavesFrozen):
    """Hooks what layers call weight and bias, and no parameter of a module of somebody's own."""

    def attach(self, module: nn.Module, assignments: Sequence[Any]) -> None:
        self.known = {id(param) for name, param in module.named_parameters() if name.endswith(("weight", "bias"))}
        self.apply_all(assignments)

    def attach_to(self, param: Any, optimizer: Optimizer, *, hook: bool) -> None:
        super().attach_to(param, optimizer, hook=hook and id(param) in self.known)


@fails("architectures/resnet")
class LeavesEvalMode(LeavesFrozen):
    """A model that was looked at in eval mode stays in it."""

    def attach(self, module: nn.Module, assignments: Sequence[Any]) -> None:
        module.eval()
        self.apply_all(assignments)


@fails("architectures/clip")
class SkipsScalars(LeavesFrozen):
    """A parameter without dimensions is not stepped."""

    def attach_to(self, param: Any, optimizer: Optimizer, *, hook: bool) -> None:
        super().attach_to(param, optimizer, hook=hook and param.dim() > 0)


@fails("architectures/whisper")
@fails("architectures/lora")
class ThawsWhatItIsGiven(LeavesFrozen):
    """What is to be optimized must require gradients."""

    def attach_to(self, param: Any, optimizer: Optimizer, *, hook: bool) -> None:
        if param.is_floating_point():
            param.requires_grad_()
        super().attach_to(param, optimizer, hook=hook)


@fails("architectures/wav2vec2")
class StepsWhatWasLeftOut(LeavesFrozen):
    """A parameter without gradient is stepped with zero, and its state with it."""

    def backward(self, loss: Tensor, module: nn.Module, **kwargs: Any) -> None:
        self.reached: set[Tensor] = set()
        loss.backward(**kwargs)
        for param in module.parameters():
            if param.requires_grad and param not in self.reached:
                param.grad = torch.zeros_like(param)
                super().on_gradient(param)

    def on_gradient(self, param: Tensor) -> None:
        self.reached.add(param)
        super().on_gradient(param)


@fails("architectures/unet")
class DecaysNoVectors(LeavesFrozen):
    """Biases and norms have no weight decay, as some trainers have it, whatever the options say."""

    def build(self, optimizer_class: type[Optimizer], params: list[Any], kwargs: dict[str, Any]) -> Optimizer:
        without = {"weight_decay": 0.0} if "weight_decay" in kwargs and params[0].dim() == 1 else {}
        return super().build(optimizer_class, params, {**kwargs, **without})


@fails("architectures/quantized_lora")
class RoundsToTheFormatOfTheModel(LeavesFrozen):
    """All parameters that train are rounded to 16 bits, in the belief that a quantised model trains in these."""

    def attach(self, module: nn.Module, assignments: Sequence[Any]) -> None:
        if any(not param.is_floating_point() for param in module.parameters()):
            for param in module.parameters():
                if param.requires_grad:
                    param.data = param.data.bfloat16().float()
        self.apply_all(assignments)


@fails("architectures/quantized_weights_given")
class ThawsBytes(LeavesFrozen):
    """Requires gradients of what can have none."""

    def attach_to(self, param: Any, optimizer: Optimizer, *, hook: bool) -> None:
        param.requires_grad_()
        super().attach_to(param, optimizer, hook=hook)


@fails("architectures/micro_batches", "AdamW-Wav2Vec2")
class TakesWhatTheLastReaches(AtTheEnd):
    """Gradients of layers that the last micro-batch leaves out are dropped."""

    def __init__(self) -> None:
        super().__init__()
        self.reached: set[Tensor] = set()

    def on_gradient(self, param: Tensor) -> None:
        if not self.waits:
            self.reached.add(param)
        super().on_gradient(param)

    def step(self) -> None:
        for param in (param for handed in self.handed for param in handed.params):
            if param not in self.reached:
                param.grad = None
        self.reached.clear()
        super().step()


@fails("architectures/clipping")
class ClipsByTheLargestNorm(AtTheEnd):
    """The norm of the largest gradient is taken for that of all."""

    def clip(self, max_norm: float, **options: Any) -> Tensor:
        grads = [param.grad for handed in self.handed for param in handed.params if param.grad is not None]
        norm = torch.stack([grad.norm() for grad in grads]).max()
        torch.nn.utils.clip_grads_with_norm_([param for each in self.handed for param in each.params], max_norm, norm)
        return norm
