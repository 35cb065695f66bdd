"""hazards/checkpoint_of_shared_parameter (MUST): torchtitan diverges in case ReentrantCheckpointed-Twice.

A parameter that is used twice, checkpointed once or twice, is stepped once, with its whole gradient.

Observed: parameter 'first.weight' differs from the standard loop after event 1, Backward(): largest difference 1.19e-07
"""

import weakref

import torch
from torch import nn
from torch.optim import AdamW
from torch.utils.checkpoint import checkpoint
from torchtitan.components.optimizer import OptimizersInBackwardContainer


def part_of(module, given):
    own = {part: {id(param): param.requires_grad for param in part.parameters()} for part in module.modules()}
    fitting = [part for part in own if set(filter(own[part].get, own[part])) <= set(given) <= own[part].keys()]
    return min(fitting, key=lambda part: len(own[part]))


containers = weakref.WeakKeyDictionary()


def attach(module, assignments):
    for optimizer_class, params, optimizer_kwargs, register_hook in assignments:
        part = part_of(module, list(map(id, params)))
        containers[part] = OptimizersInBackwardContainer([part], optimizer_class, optimizer_kwargs)
        containers[part].model_parts = weakref.WeakSet([part])


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
    optimizer = AdamW(model.parameters(), lr=0.1)
    model(torch.randn(6, 4, generator=torch.Generator().manual_seed(1))).square().mean().backward()
    optimizer.step()
    return dict(model.named_parameters())


def in_backward():
    torch.manual_seed(0)
    model = ReentrantCheckpointedTwice()
    attach(model, [(AdamW, model.parameters(), {"lr": 0.1}, True)])
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
