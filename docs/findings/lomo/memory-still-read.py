"""hazards/checkpoint_of_shared_storage (MUST): lomo diverges in case SameData-nonreentrant.

Checkpointed layers whose parameters are views of one memory train as in the standard loop.

Observed: parameter 'second' differs from the standard loop after event 1, Backward(): largest difference 0.000119
"""

import weakref

import torch
from lomo_optim import Lomo
from torch import nn
from torch.utils.checkpoint import checkpoint


class Stepped(Lomo):
    """A Lomo without hooks, since its parameters require no gradient while it is made: it is stepped by hand."""

    def __init__(self, params, **options):
        params = torch.nn.ParameterList(params)
        required = [param.requires_grad for param in params]
        super().__init__(params.requires_grad_(requires_grad=False), **options)
        for param, requires_grad in zip(params, required, strict=True):
            param.requires_grad_(requires_grad)

    def step(self, closure=None):
        self.lr = self.param_groups[0]["lr"]
        self.grad_func(0)


def standard_optimizer(optimizer_class, params, optimizer_kwargs):
    return Stepped(params, **optimizer_kwargs)


made = weakref.WeakKeyDictionary()


def attach(module, assignments):
    for optimizer_class, given, optimizer_kwargs, register_hook in assignments:
        params = list(map(id, given))
        parts = [part for part in module.modules() if {*map(id, part.parameters())} == {*params}]
        made[Lomo(parts[0], **optimizer_kwargs)] = None


def optimizers(module):
    parts, params = ({*module.modules()}, {*module.parameters()})
    return [each for each in made if each.model in parts or params & {*each.param_groups[0]["params"]}]


def backward(loss, module, **kwargs):
    attached = optimizers(module)
    for optimizer in attached:
        optimizer.fused_backward(loss, optimizer.param_groups[0]["lr"])
    if not attached:
        loss.backward(**kwargs)


class Chunks(nn.Module):
    """Weights that are chunks of one tensor, as query, key and value are in a file: one version counter for all."""

    order = ("first", "second", "third")

    def __init__(self, reentrant=None):
        super().__init__()
        self.entry = nn.Linear(4, 5)
        self.first = nn.Parameter(torch.randn(5, 5) / 2)
        self.second = nn.Parameter(torch.randn(5, 5) / 2)
        self.third = nn.Parameter(torch.randn(5, 5) / 2)
        self.reentrant = reentrant

    def tie_weights(self):
        whole = torch.cat([self.first.detach(), self.second.detach(), self.third.detach()])
        self.first, self.second, self.third = map(nn.Parameter, whole.chunk(3))

    def layer(self, features, name):
        return torch.tanh(features @ getattr(self, name))

    def forward(self, features):
        hidden = self.entry(features)
        for name in self.order:
            if self.reentrant is None:
                hidden = self.layer(hidden, name)
            else:
                hidden = checkpoint(self.layer, hidden, name, use_reentrant=self.reentrant)
        return hidden


class SameData(Chunks):
    """Two weights of the same data, each with a version counter of its own."""

    def tie_weights(self):
        self.third.data = self.second.data


def build():
    torch.manual_seed(0)
    model = SameData(False)
    model.tie_weights()
    return model


def standard_loop():
    model = build()
    optimizer = standard_optimizer(Lomo, model.parameters(), {"lr": 0.1, "weight_decay": 0.1})
    model(torch.randn(6, 4, generator=torch.Generator().manual_seed(1))).square().mean().backward()
    optimizer.step()
    return dict(model.named_parameters())


def in_backward():
    model = build()
    attach(model, [(Lomo, model.parameters(), {"lr": 0.1, "weight_decay": 0.1}, True)])
    backward(model(torch.randn(6, 4, generator=torch.Generator().manual_seed(1))).square().mean(), model)
    return dict(model.named_parameters())


expected = standard_loop()
try:
    actual = in_backward()
except (RuntimeError, TypeError, ValueError) as error:
    print(f"refused, which passes as well: {type(error).__name__}: {error}")
else:
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, rtol=0, atol=0, equal_nan=True, msg=f"{name}: {{}}".format)
