"""Caught by the chapters attachment, gradients and hazards."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Variable
from torch.autograd.grad_mode import _unsafe_preserve_version_counter
from torch.optim import Optimizer

from mutants.naive import Naive
from mutants.registry import base, fails

fails("attachment/named_parameters")(Naive)
fails("attachment/groups")(Naive)
fails("attachment/frozen")(Naive)
fails("attachment/thawed")(Naive)
fails("attachment/no_optimizer_class", "container-class")(Naive)
fails("attachment/failure_in_the_middle")(Naive)
fails("attachment/after_a_failure")(Naive)
fails("gradients/clipped_by_hook", "register_post_accumulate_grad_hook-after")(Naive)
fails("gradients/dropped_by_hook", "after")(Naive)
fails("hazards/detached_use", "UseOfData")(Naive)
fails("hazards/checkpoint_of_shared_parameter", "ReentrantCheckpointed-Twice")(Naive)
fails("hazards/checkpoint_of_detached_use")(Naive)
fails("attachment/own_class_with_closure", "LineSearchByDefault")(Naive)
fails("hazards/grad_scaler")(Naive)
fails("hazards/stale_graph_explained")(Naive)
fails("hazards/checkpoint_of_shared_storage", "SameData-nonreentrant")(Naive)


@fails("attachment/iterables")
class GeneratorReadTwice(Naive):
    def apply(self, optimizer_class: type[Optimizer], params: Iterable[Any], *args: Any, **kwargs: Any) -> None:
        if not all(param.is_leaf for param in params):
            raise ValueError("leaves only")
        super().apply(optimizer_class, params, *args, **kwargs)


@fails("attachment/groups")
class OptionsOfGroupsDropped(Naive):
    def apply(self, optimizer_class: type[Optimizer], params: Iterable[Any], *args: Any, **kwargs: Any) -> None:
        flat = [param for group in params for param in (group["params"] if isinstance(group, dict) else [group])]
        super().apply(optimizer_class, flat, *args, **kwargs)


@fails("attachment/frozen")
class FrozenThawedForTheirHook(Naive):
    def attach_to(self, param: Any, optimizer: Optimizer, *, hook: bool) -> None:
        param.requires_grad_(True)
        super().attach_to(param, optimizer, hook=hook)


@fails("attachment/frozen", "integers")
class IntegersMadeFloats(Naive):
    def attach_to(self, param: Any, optimizer: Optimizer, *, hook: bool) -> None:
        if not param.is_floating_point():
            param.data = param.data.float()
        elif param.requires_grad:
            super().attach_to(param, optimizer, hook=hook)


@base
class FrozenRefused(Naive):
    """It refuses frozen parameters before it attaches anything."""

    def apply(self, optimizer_class: Any, params: Any, optimizer_kwargs: Any, register_hook: bool = True) -> None:
        params = list(params)
        if not all(param.requires_grad for param in params):
            raise ValueError("frozen parameters")
        super().apply(optimizer_class, params, optimizer_kwargs, register_hook)


@fails("attachment/frozen", "floats")
class HooksKeptByRefusal(FrozenRefused):
    """It lists its optimizers when all parameters have their hooks, so a refusal halfway lists none."""

    def apply(self, optimizer_class: Any, params: Any, optimizer_kwargs: Any, register_hook: bool = True) -> None:
        hooked = [(param, self.build(optimizer_class, [param], optimizer_kwargs)) for param in params]
        for param, optimizer in hooked:
            param.register_post_accumulate_grad_hook(partial(self.step_and_free, optimizer))
        for param, optimizer in hooked:
            self.attach_to(param, optimizer, hook=False)

    def step_and_free(self, optimizer: Optimizer, param: Tensor) -> None:
        self.step(optimizer, param)
        param.grad = None


@fails("attachment/thawed")
class FrozenLeftOut(Naive):
    def attach_to(self, param: Any, optimizer: Optimizer, *, hook: bool) -> None:
        if param.requires_grad:
            super().attach_to(param, optimizer, hook=hook)


@fails("attachment/own_class")
class ClassesOfTorchOnly(Naive):
    def build(self, optimizer_class: type[Optimizer], params: list[Any], kwargs: dict[str, Any]) -> Optimizer:
        if not hasattr(torch.optim, optimizer_class.__name__):
            raise TypeError(f"{optimizer_class.__name__} is not in torch.optim")
        return super().build(optimizer_class, params, kwargs)


@fails("attachment/own_class_with_closure")
class ClosureRefusedByName(Naive):
    def apply(self, optimizer_class: Any, params: Any, optimizer_kwargs: Any, register_hook: bool = True) -> None:
        if optimizer_class.__name__ == "LBFGS":
            raise TypeError("LBFGS needs a closure")
        for param in params:
            self.attach_to(param, self.build(optimizer_class, [param], optimizer_kwargs), hook=register_hook)


@fails("attachment/bad_parameters")
class NonLeavesMadeLeaves(Naive):
    def apply(self, optimizer_class: type[Optimizer], params: Iterable[Any], *args: Any, **kwargs: Any) -> None:
        leaves = [param if param.is_leaf else param.detach().requires_grad_() for param in params]
        super().apply(optimizer_class, leaves, *args, **kwargs)


@fails("attachment/no_optimizer_class", "container-class")
class AnyClassTaken(ClosureRefusedByName):
    """It asks for no `step` before it steps."""


@fails("attachment/optimizer_instance")
class InstanceTakenForItsClass(Naive):
    def apply(self, optimizer_class: Any, *args: Any, **kwargs: Any) -> None:
        is_instance = isinstance(optimizer_class, Optimizer)
        super().apply(type(optimizer_class) if is_instance else optimizer_class, *args, **kwargs)


@fails("attachment/bad_options", "name")
class UnknownOptionsDropped(Naive):
    def build(self, optimizer_class: type[Optimizer], params: list[Any], kwargs: dict[str, Any]) -> Optimizer:
        known = inspect.signature(optimizer_class).parameters
        return super().build(optimizer_class, params, {key: value for key, value in kwargs.items() if key in known})


@fails("attachment/options_of_the_caller")
class OptionsReadAtEachStep(Naive):
    def build(self, optimizer_class: type[Optimizer], params: list[Any], kwargs: dict[str, Any]) -> Optimizer:
        optimizer = super().build(optimizer_class, params, kwargs)
        optimizer.register_step_pre_hook(lambda *_: optimizer.param_groups[0].update(kwargs))
        return optimizer


@fails("attachment/after_training")
class ChangedParametersTakenForForeign(Naive):
    def attach_to(self, param: Any, optimizer: Optimizer, *, hook: bool) -> None:
        super().attach_to(param, optimizer, hook=hook and param._version == 0)


@fails("hazards/retained_graph")
@fails("gradients/two_losses")
@fails("attachment/between_forward_and_backward")
class Armed(Naive):
    """A forward arms the parameters, for one step each."""

    def __init__(self) -> None:
        self.armed: set[int] = set()

    def attach(self, module: nn.Module, assignments: Sequence[Any]) -> None:
        self.apply_all(assignments)
        module.register_forward_pre_hook(lambda *_: self.armed.update(map(id, module.parameters())))

    def on_gradient(self, param: Tensor) -> None:
        if id(param) in self.armed:
            self.armed.remove(id(param))
            super().on_gradient(param)
        else:
            param.grad = None


@fails("attachment/second_optimizer_later")
class OptimizersOfTheFirstCallForEver(Naive):
    def attach_to(self, param: Any, optimizer: Optimizer, *, hook: bool) -> None:
        super().attach_to(param, optimizer, hook=hook)
        param.__dict__.setdefault("first", list(param.optimizers))

    def optimizers_of(self, param: Tensor) -> list[Optimizer]:
        return getattr(param, "first", [])


@fails("attachment/extended_model")
class NewParametersJoinByThemselves(Naive):
    def backward(self, loss: Tensor, module: nn.Module, **kwargs: Any) -> None:
        for param in module.parameters():
            if not self.optimizers_of(param):
                self.apply(torch.optim.SGD, [param], {"lr": 0.01})
        loss.backward(**kwargs)


@fails("hazards/double_backward", "SGD-parameters")
@fails("gradients/computed_alone")
class SteppedInATensorHook(Naive):
    def attach_to(self, param: Any, optimizer: Optimizer, *, hook: bool) -> None:
        super().attach_to(param, optimizer, hook=hook)
        if hook:
            param.register_hook(lambda grad: self.step_with(param, grad))

    def step_with(self, param: Tensor, grad: Tensor) -> None:
        param.grad = grad
        for optimizer in self.optimizers_of(param):
            optimizer.step()
        param.grad = None

    def on_gradient(self, param: Tensor) -> None:
        param.grad = None


@fails("gradients/inputs")
class ArgumentsOfBackwardDropped(Naive):
    def backward(self, loss: Tensor, module: nn.Module, **kwargs: Any) -> None:
        loss.backward()


@fails("gradients/create_graph")
class GradientsWithoutAGraphExpected(Naive):
    def on_gradient(self, param: Tensor) -> None:
        if param.grad is not None and param.grad.requires_grad:
            raise RuntimeError("a gradient with a graph")
        super().on_gradient(param)


@fails("gradients/seen_by_hook", "register_hook-before")
class HooksOfTheUserCleared(Naive):
    def attach_to(self, param: Any, optimizer: Optimizer, *, hook: bool) -> None:
        if param._backward_hooks:
            param._backward_hooks.clear()
        super().attach_to(param, optimizer, hook=hook)


@fails("gradients/modes_and_random_state")
class GradModeLeftOff(Naive):
    def apply(self, *args: Any, **kwargs: Any) -> None:
        super().apply(*args, **kwargs)
        torch.set_grad_enabled(False)


@fails("hazards/retained_graph_made_stale")
class VersionsKept(Naive):
    def step(self, optimizer: Optimizer, param: Tensor) -> None:
        with _unsafe_preserve_version_counter(param):
            optimizer.step()


@fails("hazards/checkpoint")
class UsesCountedInForward(Naive):
    """A parameter is stepped when as many gradients have come as forwards have used it: recomputation uses it anew."""

    def attach(self, module: nn.Module, assignments: Sequence[Any]) -> None:
        self.apply_all(assignments)
        for layer in module.modules():
            layer.register_forward_pre_hook(self.count)

    def count(self, layer: nn.Module, *_: Any) -> None:
        for param in layer.parameters(recurse=False):
            param.__dict__["uses"] = param.__dict__.get("uses", 0) + 1

    def on_gradient(self, param: Tensor) -> None:
        param.__dict__["uses"] -= 1
        if param.__dict__["uses"] == 0:
            super().on_gradient(param)


@fails("hazards/checkpoint_of_dropout")
class RandomNumberAtEachStep(Naive):
    def step(self, optimizer: Optimizer, param: Tensor) -> None:
        torch.rand(())
        optimizer.step()


@fails("hazards/custom_function")
@fails("hazards/compile", "aot_eager-before")
class KnownNodesFollowed(Naive):
    """It finds the parameters by walking the graph, and knows the nodes of torch's own functions alone."""

    unknown: frozenset[str] = frozenset()

    def backward(self, loss: Tensor, module: nn.Module, **kwargs: Any) -> None:
        self.reached: set[int] = set()
        stack: list[Any] = [loss.grad_fn]
        while stack:
            node = stack.pop()
            if hasattr(node, "variable"):
                self.reached.add(id(node.variable))
            elif node is not None and node.name().endswith("Backward0") and node.name() not in self.unknown:
                stack += [following for following, _ in node.next_functions]
        loss.backward(**kwargs)

    def on_gradient(self, param: Tensor) -> None:
        if id(param) in self.reached:
            super().on_gradient(param)


@fails("hazards/compiled_autograd")
class GradientsOutsideOfNodesDropped(Naive):
    """It steps at the end of the node that accumulates a gradient; compiled autograd calls hooks where none runs."""

    def on_gradient(self, param: Tensor) -> None:
        if torch._C._current_autograd_node() is None:
            param.grad = None
        else:
            super().on_gradient(param)


@base
class OutsideInferenceMode(Naive):
    def step(self, optimizer: Optimizer, param: Tensor) -> None:
        with torch.inference_mode(mode=False):
            optimizer.step()


@fails("hazards/grad_mode", "SGD-inference_mode")
@fails("properties/grad_modes")
class StateBornInInferenceMode(OutsideInferenceMode):
    def step(self, optimizer: Optimizer, param: Tensor) -> None:
        if optimizer.state:
            super().step(optimizer, param)
        else:
            optimizer.step()


@fails("hazards/grad_mode", "SGD-no_grad")
class EvaluationStepsNothing(Naive):
    """Where gradients are disabled around backward, it frees them."""

    evaluating = False

    def backward(self, loss: Tensor, module: nn.Module, **kwargs: Any) -> None:
        self.evaluating = not torch.is_grad_enabled()
        loss.backward(**kwargs)

    def on_gradient(self, param: Tensor) -> None:
        if self.evaluating:
            param.grad = None
        else:
            super().on_gradient(param)


@fails("hazards/autocast")
class CastsNotFollowed(KnownNodesFollowed):
    unknown = frozenset({"ToCopyBackward0"})


@fails("hazards/grad_scaler")
class GradientsKeptForTheScaler(Naive):
    def on_gradient(self, param: Tensor) -> None:
        self.step_all(param)


@fails("hazards/step_that_raises")
class ErrorsOfStepsLogged(Naive):
    def step(self, optimizer: Optimizer, param: Tensor) -> None:
        try:
            optimizer.step()
        except RuntimeError as error:
            print(error)


@fails("hazards/after_an_error")
class GuardWithoutFinally(Naive):
    busy = False

    def on_gradient(self, param: Tensor) -> None:
        if not self.busy:
            self.busy = True
            super().on_gradient(param)
            self.busy = False


@fails("hazards/after_an_error", "hook")
class PassEndedByItsCallbackAlone(Naive):
    """What is to be forgotten at the end of a backward is remembered where it raises: callbacks are not called then."""

    def __init__(self) -> None:
        self.stepped: set[int] = set()

    def on_gradient(self, param: Tensor) -> None:
        if not self.stepped:
            Variable._execution_engine.queue_callback(self.stepped.clear)
        if id(param) not in self.stepped:
            self.stepped.add(id(param))
            super().on_gradient(param)


@fails("hazards/two_threads")
class OneBackwardAtATime(Naive):
    """A backward inside another one steps nothing; that it runs in another thread is not asked."""

    running = 0

    def backward(self, loss: Tensor, module: nn.Module, **kwargs: Any) -> None:
        self.running += 1
        loss.backward(**kwargs)
        self.running -= 1

    def on_gradient(self, param: Tensor) -> None:
        if self.running == 1:
            super().on_gradient(param)


@fails("hazards/functional_call", "replaced")
class LeavesFoundByTheirShape(Naive):
    def backward(self, loss: Tensor, module: nn.Module, **kwargs: Any) -> None:
        loss.backward(**kwargs)
        params = set(map(id, module.parameters()))
        stack: list[Any] = [loss.grad_fn]
        while stack:
            node = stack.pop()
            leaf = getattr(node, "variable", None)
            if leaf is not None and id(leaf) not in params:
                param = next(param for param in module.parameters() if param.shape == leaf.shape)
                param.grad = leaf.grad
                super().on_gradient(param)
            stack += [following for following, _ in node.next_functions if following]


@fails("hazards/tensor_subclass")
class HookOnTheNodeOfAView(Naive):
    """The node behind `view_as` is the parameter's own, but for a tensor subclass."""

    def attach_to(self, param: Any, optimizer: Optimizer, *, hook: bool) -> None:
        super().attach_to(param, optimizer, hook=False)
        if hook:
            param.node = param.view_as(param).grad_fn.next_functions[0][0]
            param.node.register_hook(lambda *_: self.on_gradient(param))


@fails("hazards/nested_tensor")
class StridedTensorsOnly(Naive):
    def attach_to(self, param: Any, optimizer: Optimizer, *, hook: bool) -> None:
        if param.layout is torch.strided:
            super().attach_to(param, optimizer, hook=hook)
