"""Adapter of transformers: the Trainer's `optim="galore_adamw_layerwise"`, where hooks step, and it keeps a dummy.

The standard loop has `galore_adamw`. `galore_adafactor_layerwise` raises a ValueError for every learning rate.
"""

from __future__ import annotations

import gc
import weakref
from typing import Any

import torch
from galore_torch import GaLoreAdamW
from transformers import Trainer, TrainingArguments

from inbackward_conformance import NotOffered, OwnOptimizer

distribution = "transformers"
spelling = "source"
GALORE = {"lr": 0.01, "rank": 2, "update_proj_gap": 2}
VARIANTS = [{"scale": 1.0, "proj_type": name} for name in ("std", "reverse_std", "right", "left", "full")]
own_optimizers = [OwnOptimizer("galore_torch:GaLoreAdamW", GALORE, VARIANTS, lacks=["groups", "tensor_lr"])]
made: weakref.WeakKeyDictionary[torch.nn.Module, list[Any]] = weakref.WeakKeyDictionary()


def make(optim: str, model: torch.nn.Module, lr: float, **options: Any) -> Any:
    optim_args = ",".join(f"{name}={value}" for name, value in options.items())
    args = TrainingArguments(optim=optim, optim_args=optim_args, optim_target_modules="all-linear", learning_rate=lr)
    optimizer_class, kwargs = Trainer.get_optimizer_cls_and_kwargs(args, model)
    params = kwargs.pop("params")
    return optimizer_class(kwargs.pop("optimizer_dict", params), **kwargs)


def model_of(params: Any, modules: Any) -> Any:
    return next((module for module in modules if params == set(module.parameters())), None)


def standard_optimizer(optimizer_class: Any, params: Any, optimizer_kwargs: dict[str, Any]) -> Any:
    """Have it made for the model that has these parameters; the suite doesn't say which."""
    objects = (each for generation in range(3) for each in gc.get_objects(generation))
    model = model_of(params := set(params), (each for each in objects if issubclass(type(each), torch.nn.Module)))
    return make("galore_adamw", model, **optimizer_kwargs) if model else optimizer_class(params, optimizer_kwargs["lr"])


def attach(module: torch.nn.Module, assignments: Any) -> None:
    for optimizer_class, params, optimizer_kwargs, register_hook in assignments:
        if optimizer_class is not GaLoreAdamW or not register_hook:
            raise NotOffered("it steps GaLore's optimizers only, and always hooks")
        if torch.distributed.is_initialized():
            raise NotOffered("the Trainer says that layer-wise optimizers do not support DDP")
        model = model_of(set(params), module.modules())
        if model is None:
            raise NotOffered("a Trainer is given a model, and no part of this one has these parameters alone")
        made.setdefault(model, []).append(make("galore_adamw_layerwise", model, **optimizer_kwargs))


def dummies(module: torch.nn.Module) -> list[Any]:
    return [one for each in made.values() for one in each if set(one.optimizer_dict) & set(module.parameters())]


def optimizers(module: torch.nn.Module) -> list[Any]:
    return [d.optimizer_dict[p] for p in module.parameters() for d in dummies(module) if p in d.optimizer_dict]


def state_of(optimizer: Any, param: torch.Tensor) -> dict[str, Any]:
    return {key: getattr(value, "ortho_matrix", value) for key, value in optimizer.state[param].items()}


def schedule(module: torch.nn.Module, scheduler_class: Any, **kwargs: Any) -> list[Any]:
    """Start it on the dummy, as the Trainer does: accelerate has wrapped it before `get_scheduler` could know it."""
    return [scheduler_class(dummy, **kwargs) for dummy in dummies(module)]


def state_dict(module: torch.nn.Module) -> Any:
    return [dummy.state_dict() for dummy in dummies(module)]


def load_state_dict(module: torch.nn.Module, state: Any) -> None:
    for dummy, saved in zip(dummies(module), state, strict=True):
        dummy.load_state_dict(saved)
