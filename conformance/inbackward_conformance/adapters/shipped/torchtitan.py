"""Adapter of torchtitan: `OptimizersInBackwardContainer` of Adam and AdamW, and `LRSchedulersContainer` of LambdaLR."""

import weakref
from typing import Any

from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torchtitan.components.lr_scheduler import LRSchedulersContainer
from torchtitan.components.optimizer import OptimizersInBackwardContainer

from inbackward_conformance import NotOffered, OwnOptimizer

distribution = "torchtitan"
spelling = "source"
VARIANTS: list[dict[str, Any]] = [{"fused": True}, {"foreach": True}, {"betas": (0.8, 0.9), "weight_decay": 0.1}]
LACKS = {"groups", "tensor_lr"}  # build_optimizers takes one configuration for all parameters, and a number as lr
own_optimizers = [OwnOptimizer(f"torch.optim:{name}", {"lr": 0.1}, VARIANTS, lacks=LACKS) for name in ("AdamW", "Adam")]

containers: weakref.WeakKeyDictionary[nn.Module, Any] = weakref.WeakKeyDictionary()


def attach(module: nn.Module, assignments: Any) -> None:
    if any(name.startswith("stage") for name, _ in module.named_children()):  # what the suite cuts into stages
        raise NotOffered("build_optimizers refuses optimizers in backward with pipeline parallelism")
    for optimizer_class, params, optimizer_kwargs, register_hook in assignments:
        if not register_hook:
            raise NotOffered("OptimizersInBackwardContainer always hooks")
        part = part_of(module, list(map(id, params)))
        if optimizers(part):
            raise NotOffered("a model has one container, and a parameter one optimizer")
        containers[part] = OptimizersInBackwardContainer([part], optimizer_class, optimizer_kwargs)
        containers[part].model_parts = weakref.WeakSet([part])  # a value that holds its key would keep the model alive


def part_of(module: nn.Module, given: list[int]) -> nn.Module:
    """Return the smallest part of the model that has these parameters, and otherwise frozen ones at most."""
    own = {part: {id(param): param.requires_grad for param in part.parameters()} for part in module.modules()}
    fitting = [part for part in own if set(filter(own[part].get, own[part])) <= set(given) <= own[part].keys()]
    if not fitting or not given or len(given) > len(set(given)):
        raise NotOffered("OptimizersInBackwardContainer is given models, not parameters")
    return min(fitting, key=lambda part: len(own[part]))


def backward(loss: Tensor, module: nn.Module, **kwargs: Any) -> None:
    if any(map(is_hooked_late, module.parameters())):
        raise NotOffered("as its documentation says, no post-accumulate-grad hook may be registered after attachment")
    loss.backward(**kwargs)


def is_hooked_late(param: Any) -> bool:
    own, hooks = OptimizersInBackwardContainer.__module__, (param._post_accumulate_grad_hooks or {}).values()  # noqa: SLF001
    return own in (modules := [hook.__module__ for hook in hooks]) and modules[-1] != own


def optimizers(module: nn.Module) -> list[Any]:
    held = {optimizer.param_groups[0]["params"][0]: optimizer for each in containers.values() for optimizer in each}
    return [held[param] for param in module.parameters() if param in held]


def schedule(module: nn.Module, scheduler_class: Any, **kwargs: Any) -> list[Any]:
    if scheduler_class is not LambdaLR:
        raise NotOffered("LRSchedulersContainer makes LambdaLR only")
    return [LRSchedulersContainer(containers[part], **kwargs) for part in module.modules() if part in containers]


def state_dict(module: nn.Module) -> list[Any]:
    return [containers[part].state_dict() for part in module.modules() if part in containers]


def load_state_dict(module: nn.Module, state: list[Any]) -> None:
    for part, saved in zip([part for part in module.modules() if part in containers], state, strict=True):
        containers[part].load_state_dict(saved)


def wrap_ddp(*_: Any, **__: Any) -> nn.Module:
    raise NotOffered("torchtitan shards by FSDP2 and replicates by replicate(), which wrap nothing")


wrap_fsdp = wrap_ddp
