"""Caught by the chapters schedule, state, memory and lifetime."""

from __future__ import annotations

import copy
import weakref
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.autograd import Variable

from mutants.naive import Naive, Remembering
from mutants.registry import fails

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

fails("schedule/tensor_lr", "ExponentialLR")(Naive)
fails("state/saved_parameter")(Naive)
fails("state/saved_module")(Naive)


def options_of(optimizer: Optimizer) -> dict[str, Any]:
    return {key: value for key, value in optimizer.param_groups[0].items() if key != "params"}


@fails("schedule/set_by_hand")
class OptionsOfAttachmentForEver(Naive):
    def build(self, optimizer_class: type[Optimizer], params: list[Any], kwargs: dict[str, Any]) -> Optimizer:
        optimizer = super().build(optimizer_class, params, kwargs)
        optimizer.__dict__["at_attachment"] = options_of(optimizer)
        return optimizer

    def step(self, optimizer: Optimizer, param: Tensor) -> None:
        now = options_of(optimizer)
        optimizer.param_groups[0].update(optimizer.__dict__.get("at_attachment", now))
        super().step(optimizer, param)
        optimizer.param_groups[0].update(now)


@fails("gradients/modes_and_random_state")
class DeterministicFromThenOn(Naive):
    def build(self, optimizer_class: type[Optimizer], params: list[Any], kwargs: dict[str, Any]) -> Optimizer:
        torch.use_deterministic_algorithms(True)
        return super().build(optimizer_class, params, kwargs)


@fails("schedule/set_by_hand_for_some")
class OneLearningRateForAll(Remembering):
    def step(self, optimizer: Optimizer, param: Tensor) -> None:
        optimizer.param_groups[0]["lr"] = self.built[-1].param_groups[0]["lr"]
        super().step(optimizer, param)


@fails("schedule/every_scheduler")
class FirstParameterScheduled(Naive):
    def schedule(self, module: nn.Module, scheduler_class: type[LRScheduler], **kwargs: Any) -> list[LRScheduler]:
        return [scheduler_class(self.optimizers(module)[0], **kwargs)]


@fails("schedule/momentum_and_betas", "SGD-OneCycleLR-momentum")
class OnlyTheLearningRateRead(OptionsOfAttachmentForEver):
    def step(self, optimizer: Optimizer, param: Tensor) -> None:
        optimizer.__dict__["at_attachment"]["lr"] = optimizer.param_groups[0]["lr"]
        super().step(optimizer, param)


@fails("schedule/optimizers_that_step")
class OthersThanThoseListedStep(Naive):
    def build(self, optimizer_class: type[Optimizer], params: list[Any], kwargs: dict[str, Any]) -> Optimizer:
        optimizer = super().build(optimizer_class, params, kwargs)
        optimizer.__dict__["steps"] = copy.copy(optimizer)
        optimizer.__dict__["steps"].param_groups = [dict(group) for group in optimizer.param_groups]
        return optimizer

    def step(self, optimizer: Optimizer, param: Tensor) -> None:
        optimizer.__dict__["steps"].step()


@fails("multiple_optimizers/one_step_each")
class AnInnerOptimizerSteps(Naive):
    def step(self, optimizer: Optimizer, param: Tensor) -> None:
        optimizer_class: Any = type(optimizer)
        inner = optimizer_class([param], lr=optimizer.param_groups[0]["lr"])
        inner.state = optimizer.state
        inner.param_groups[0].update(options_of(optimizer))
        inner.step()


@fails("schedule/started_in_training", "MLP")
class OptionsOfTheFirstStepForEver(OptionsOfAttachmentForEver):
    def step(self, optimizer: Optimizer, param: Tensor) -> None:
        if not optimizer.state:
            optimizer.__dict__["at_attachment"] = options_of(optimizer)
        super().step(optimizer, param)


@fails("schedule/different_schedules")
class WholeModelScheduled(Remembering):
    def schedule(self, module: nn.Module, scheduler_class: type[LRScheduler], **kwargs: Any) -> list[LRScheduler]:
        return [scheduler_class(optimizer, **kwargs) for optimizer in self.built]


@fails("schedule/two_optimizers", "SGD-AdamW")
class FirstOptimizerOfAParameterScheduled(Naive):
    def schedule(self, module: nn.Module, scheduler_class: type[LRScheduler], **kwargs: Any) -> list[LRScheduler]:
        return [scheduler_class(self.optimizers_of(param)[0], **kwargs) for param in module.parameters()]


class SavesStates(Naive):
    """Saves the states of optimizers in the order of the listing; a mutant replaces one of the methods."""

    def state_dict(self, module: nn.Module) -> Any:
        return [optimizer.state_dict() for optimizer in self.saved_optimizers(module)]

    def load_state_dict(self, module: nn.Module, state: Any) -> None:
        for optimizer, saved in zip(self.saved_optimizers(module), state, strict=True):
            self.load(optimizer, saved)

    def saved_optimizers(self, module: nn.Module) -> list[Optimizer]:
        return self.optimizers(module)

    def load(self, optimizer: Optimizer, saved: Any) -> None:
        optimizer.load_state_dict(saved)


@fails("state/resume", "Adam")
class OptionsLoadedWithoutStates(SavesStates):
    def load(self, optimizer: Optimizer, saved: Any) -> None:
        optimizer.load_state_dict({**saved, "state": {}})


@fails("state/resume_several_optimizers", "SGD-Adam")
class OneStateAParameter(Naive):
    def state_dict(self, module: nn.Module) -> Any:
        named = module.named_parameters()
        return {name: optimizer.state_dict() for name, param in named for optimizer in self.optimizers_of(param)}

    def load_state_dict(self, module: nn.Module, state: Any) -> None:
        for name, param in module.named_parameters():
            self.optimizers_of(param)[-1].load_state_dict(state[name])


@fails("state/resume_shared_parameter")
class SharedParametersNotSaved(SavesStates):
    def saved_optimizers(self, module: nn.Module) -> list[Optimizer]:
        names = Counter(param for _, param in module.named_parameters(remove_duplicate=False))
        return [optimizer for param in names if names[param] == 1 for optimizer in self.optimizers_of(param)]


@fails("state/resume_options", "number")
class StatesLoadedWithoutOptions(SavesStates):
    def load(self, optimizer: Optimizer, saved: Any) -> None:
        optimizer.load_state_dict({**saved, "param_groups": optimizer.state_dict()["param_groups"]})


@fails("state/resume_options", "number")
class OptionsOfTheCheckpointForEver(OptionsOfAttachmentForEver):
    def build(self, optimizer_class: type[Optimizer], params: list[Any], kwargs: dict[str, Any]) -> Optimizer:
        return optimizer_class(params, **kwargs)

    def load_state_dict(self, module: nn.Module, state: Any) -> None:
        for optimizer, saved in zip(self.optimizers(module), state, strict=True):
            optimizer.load_state_dict(saved)
            optimizer.__dict__["at_attachment"] = options_of(optimizer)


@fails("state/roll_back")
class LoadedOnlyWhereThereIsNoState(SavesStates):
    def load(self, optimizer: Optimizer, saved: Any) -> None:
        if not optimizer.state:
            optimizer.load_state_dict(saved)


@fails("state/from_standard", "Adam")
class BuiltAtTheFirstGradient(Naive):
    def apply(self, optimizer_class: Any, params: Any, optimizer_kwargs: Any, register_hook: bool = True) -> None:
        for param in params:
            param.register_post_accumulate_grad_hook(self.on_gradient)
            param.to_build = (optimizer_class, optimizer_kwargs)

    def on_gradient(self, param: Tensor) -> None:
        if not self.optimizers_of(param):
            optimizer_class, kwargs = param.__dict__["to_build"]
            param.__dict__["optimizers"] = [self.build(optimizer_class, [param], kwargs)]
        super().on_gradient(param)


@fails("state/to_standard", "Adam")
class ListedWithoutTheirStates(Naive):
    def optimizers(self, module: nn.Module) -> list[Optimizer]:
        listed = [copy.copy(optimizer) for optimizer in super().optimizers(module)]
        for optimizer in listed:
            optimizer.state = defaultdict(dict)
        return listed


@fails("state/saved_states")
class SavedWithTheirClass(Naive):
    def state_dict(self, module: nn.Module) -> Any:
        return [{"class": type(optimizer), **optimizer.state_dict()} for optimizer in self.optimizers(module)]

    def load_state_dict(self, module: nn.Module, state: Any) -> None:
        for optimizer, saved in zip(self.optimizers(module), state, strict=True):
            optimizer.load_state_dict({key: value for key, value in saved.items() if key != "class"})


@fails("state/saved_state_dict")
class StepsCountedInABuffer(Naive):
    def attach(self, module: nn.Module, assignments: Sequence[Any]) -> None:
        self.apply_all(assignments)
        module.register_buffer("optimizer_steps", torch.zeros(()))


@fails("memory/peak_of_gradients")
@fails("memory/peak_of_compiled_layers")
class GradientsFreedAtTheEnd(Naive):
    def on_gradient(self, param: Tensor) -> None:
        self.step_all(param)
        Variable._execution_engine.queue_callback(lambda: setattr(param, "grad", None))


@fails("memory/peak_of_gradients")
class CopiesOfGradientsKeptToTheEnd(Naive):
    def on_gradient(self, param: Tensor) -> None:
        kept = [param.grad.clone()] if param.grad is not None else []
        Variable._execution_engine.queue_callback(kept.clear)
        super().on_gradient(param)


@fails("memory/gradients_freed")
class LastGradientKept(Naive):
    def on_gradient(self, param: Tensor) -> None:
        param.__dict__["last"] = param.grad
        super().on_gradient(param)


@fails("memory/stepped_while_backward_runs")
class SteppedAtTheEnd(Naive):
    def on_gradient(self, param: Tensor) -> None:
        Variable._execution_engine.queue_callback(lambda: Naive.on_gradient(self, param))


@fails("lifetime/loaded_weights")
@fails("memory/no_second_copy")
class MasterCopyWins(Naive):
    def attach_to(self, param: Any, optimizer: Optimizer, *, hook: bool) -> None:
        super().attach_to(param, optimizer, hook=hook)
        param.master = param.detach().clone()

    def step(self, optimizer: Optimizer, param: Tensor) -> None:
        param.data.copy_(param.__dict__["master"])
        super().step(optimizer, param)
        param.__dict__["master"].copy_(param.detach())


@fails("lifetime/dropped_model")
class OptimizersRememberedForEver(Naive):
    all_built: ClassVar[list[Optimizer]] = []

    def build(self, optimizer_class: type[Optimizer], params: list[Any], kwargs: dict[str, Any]) -> Optimizer:
        self.all_built.append(super().build(optimizer_class, params, kwargs))
        return self.all_built[-1]


@fails("lifetime/rounds")
class DeadEntriesNeverRemoved(Naive):
    attached: ClassVar[list[weakref.ref[Any]]] = []

    def attach_to(self, param: Any, optimizer: Optimizer, *, hook: bool) -> None:
        super().attach_to(param, optimizer, hook=hook)
        self.attached.append(weakref.ref(optimizer))


fails("lifetime/swapped_tensors", "SGD-cast")(Naive)  # its hooks are lost with the tensor
fails("properties/swapped_tensors")(Naive)


@fails("lifetime/swapped_tensors", "SGD-cast")
class BiasesNotSwapped(Naive):
    """A weak reference blocks the swap of every bias, when the weight before it has been converted."""

    def attach_to(self, param: Any, optimizer: Optimizer, *, hook: bool) -> None:
        super().attach_to(param, optimizer, hook=hook)
        if param.dim() == 1:
            optimizer.__dict__["blocks"] = weakref.ref(param)


@fails("lifetime/swapped_parameters")
@fails("lifetime/replaced_layer")
@fails("lifetime/replaced_parameter")
@fails("lifetime/assigned_weights")
@fails("lifetime/copy_is_independent")
@fails("lifetime/copy_is_plain")
class FollowsNamesNotObjects(Naive):
    def attach(self, module: nn.Module, assignments: Sequence[Any]) -> None:
        self.named = {}
        self.apply_all(assignments)
        for name, param in module.named_parameters():
            self.named[name] = self.optimizers_of(param)

    def optimizers(self, module: nn.Module) -> list[Optimizer]:
        return [optimizer for name, _ in module.named_parameters() for optimizer in self.named[name]]

    def on_gradient(self, param: Tensor) -> None:
        """Wait for the end of backward, to look at names."""

    def backward(self, loss: Tensor, module: nn.Module) -> None:
        loss.backward()
        for name, param in module.named_parameters():
            for optimizer in self.named[name]:
                (old,) = optimizer.param_groups[0]["params"]
                optimizer.param_groups[0]["params"] = [param]
                optimizer.state = defaultdict(dict, {param: optimizer.state[old]})
                optimizer.step()
            param.grad = None


@fails("lifetime/copy_is_attached")
class MarkOfAttachmentIsCopied(Naive):
    def attach(self, module: nn.Module, assignments: Sequence[Any]) -> None:
        if "is_attached" not in module.__dict__:
            self.apply_all(assignments)
            module.__dict__["is_attached"] = True


@fails("lifetime/cast_in_training", "SGD-float64")
@fails("lifetime/cast_before_training", "SGD-float64")
class HookOnTheNode(Naive):
    """The node is replaced where dtype or storage change, and its hooks with it."""

    def attach_to(self, param: Any, optimizer: Optimizer, *, hook: bool) -> None:
        param.__dict__.setdefault("optimizers", []).append(optimizer)
        if hook and not hasattr(param, "node"):
            param.node = param.expand_as(param).grad_fn.next_functions[0][0]
            param.node.register_hook(lambda *_: self.on_gradient(param))


@fails("lifetime/new_data", "SGD-data")
class OptimizersFoundByMemory(Naive):
    def attach_to(self, param: Any, optimizer: Optimizer, *, hook: bool) -> None:
        super().attach_to(param, optimizer, hook=hook)
        param.address = param.data_ptr()

    def step(self, optimizer: Optimizer, param: Tensor) -> None:
        if param.__dict__["address"] == param.data_ptr():
            super().step(optimizer, param)


@fails("lifetime/frozen_and_thawed")
class FrozenParametersForgotten(Naive):
    def backward(self, loss: Tensor, module: nn.Module) -> None:
        loss.backward()
        for param in module.parameters():
            if not param.requires_grad:
                param.__dict__["optimizers"] = []


@fails("lifetime/detached")
class HookOutlivesDetach(Naive):
    def detach(self, module: nn.Module) -> None:
        for param in module.parameters():
            param.__dict__["optimizers"] = []


@fails("lifetime/attached_again")
class MarkOfTheHookOutlivesDetach(Naive):
    def detach(self, module: nn.Module) -> None:
        for param in module.parameters():
            param.__dict__["optimizers"] = []
            param.__dict__["hook"].remove()


@fails("lifetime/detached_optimizers")
class DetachedOptimizersKept(Remembering):
    """As a list of all that was ever built."""
