"""hazards/checkpoint_of_shared_parameter (MUST): transformers-galore diverges in case ReentrantCheckpointed-Twice.

A parameter that is used twice, checkpointed once or twice, is stepped once, with its whole gradient.

Observed: parameter 'first.weight' differs from the standard loop after event 1, Backward(): largest difference 0.0033
"""

import gc
import weakref

import torch
from galore_torch import GaLoreAdamW
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import Trainer, TrainingArguments


def model_of(params, modules):
    return next((module for module in modules if params == set(module.parameters())), None)


def make(optim, model, lr, **options):
    optim_args = ",".join((f"{name}={value}" for name, value in options.items()))
    args = TrainingArguments(optim=optim, optim_args=optim_args, optim_target_modules="all-linear", learning_rate=lr)
    optimizer_class, kwargs = Trainer.get_optimizer_cls_and_kwargs(args, model)
    params = kwargs.pop("params")
    return optimizer_class(kwargs.pop("optimizer_dict", params), **kwargs)


def standard_optimizer(optimizer_class, params, optimizer_kwargs):
    objects = (each for generation in range(3) for each in gc.get_objects(generation))
    model = model_of((params := set(params)), (each for each in objects if issubclass(type(each), torch.nn.Module)))
    return make("galore_adamw", model, **optimizer_kwargs) if model else optimizer_class(params, optimizer_kwargs["lr"])


made = weakref.WeakKeyDictionary()


def attach(module, assignments):
    for optimizer_class, params, optimizer_kwargs, register_hook in assignments:
        model = model_of(set(params), module.modules())
        made.setdefault(model, []).append(make("galore_adamw_layerwise", model, **optimizer_kwargs))


class Checkpointed(nn.Module):
    """A block whose activations are computed again in backward."""

    reentrant = False
    dropout = 0.0

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 5)
        self.block = nn.Sequential(nn.Linear(5, 5), nn.Dropout(self.dropout), nn.Tanh())
        self.head = nn.Linear(5, 3)

    def again(self, features):
        return checkpoint(self.block, features, use_reentrant=self.reentrant)

    def forward(self, features):
        return self.head(self.again(self.first(features)))


class CheckpointedTwice(Checkpointed):
    """A block that is called twice through `checkpoint`."""

    def forward(self, features):
        return self.head(self.again(self.again(self.first(features))))


class ReentrantCheckpointedTwice(CheckpointedTwice):
    """A block whose gradient comes in two parts, each from a backward of its own."""

    reentrant = True


def standard_loop():
    torch.manual_seed(0)
    model = ReentrantCheckpointedTwice()
    optimizer = standard_optimizer(GaLoreAdamW, model.parameters(), {"lr": 0.01, "rank": 2, "update_proj_gap": 2})
    model(torch.randn(6, 4, generator=torch.Generator().manual_seed(1))).square().mean().backward()
    optimizer.step()
    return dict(model.named_parameters())


def in_backward():
    torch.manual_seed(0)
    model = ReentrantCheckpointedTwice()
    attach(model, [(GaLoreAdamW, model.parameters(), {"lr": 0.01, "rank": 2, "update_proj_gap": 2}, True)])
    model(torch.randn(6, 4, generator=torch.Generator().manual_seed(1))).square().mean().backward()
    return dict(model.named_parameters())


expected = standard_loop()
try:
    actual = in_backward()
except (RuntimeError, TypeError, ValueError) as error:
    print(f"refused, which passes as well: {type(error).__name__}: {error}")
else:
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, rtol=0, atol=0, equal_nan=True, msg=f"{name}: {{}}".format)
