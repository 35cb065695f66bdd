"""state/resume (MUST): adalomo diverges in case AdaLomo.

Saved in mid-training, loaded into a model that is built and attached anew, training goes on as if never stopped.

Observed: its optimizer class does not go on as if never stopped, in the standard loop either: parameter '0.weight'
differs from the standard loop after event 8, Backward(): largest difference 0.115
"""

import io
import os
import weakref
from itertools import count

import torch
from lomo_optim import AdaLomo
from torch import nn


os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
torch.use_deterministic_algorithms(True, warn_only=True)


class Stepped(AdaLomo):
    """An AdaLomo without hooks, since its parameters require no gradient while it is made: it is stepped by hand."""

    def __init__(self, params, **options):
        params = torch.nn.ParameterList(params)
        required = [param.requires_grad for param in params]
        super().__init__(params.requires_grad_(requires_grad=False), **{**options, "loss_scale": 0})
        for param, requires_grad in zip(params, required, strict=True):
            param.requires_grad_(requires_grad)

    def step(self, closure=None):
        self.lr = self.param_groups[0]["lr"]
        self.step_num += 1
        self.grad_func(0)


def standard_optimizer(optimizer_class, params, optimizer_kwargs):
    return Stepped(params, **optimizer_kwargs)


made = weakref.WeakKeyDictionary()


def attach(module, assignments):
    for optimizer_class, given, optimizer_kwargs, register_hook in assignments:
        params = list(map(id, given))
        parts = [part for part in module.modules() if {*map(id, part.parameters())} == {*params}]
        made[AdaLomo(parts[0], **optimizer_kwargs)] = None


def optimizers(module):
    parts, params = ({*module.modules()}, {*module.parameters()})
    return [each for each in made if each.model in parts or params & {*each.param_groups[0]["params"]}]


def backward(loss, module, **kwargs):
    attached = optimizers(module)
    for optimizer in attached:
        optimizer.fused_backward(loss, optimizer.param_groups[0]["lr"])
    if not attached:
        loss.backward(**kwargs)


def build():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    model.to("cuda")
    return model


def standard_loop():
    model = build()
    batches = (torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)).to("cuda") for seed in count(1))
    optimizer = standard_optimizer(AdaLomo, model.parameters(), {"lr": 0.1})
    for _ in range(6):
        model(next(batches)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    return dict(model.named_parameters())


def in_backward():
    model = build()
    batches = (torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)).to("cuda") for seed in count(1))
    attach(model, [(AdaLomo, model.parameters(), {"lr": 0.1}, True)])
    for _ in range(3):
        backward(model(next(batches)).square().mean(), model)
    file = io.BytesIO()
    torch.save((model.state_dict(), [optimizer.state_dict() for optimizer in optimizers(model)]), file)
    with torch.random.fork_rng():
        model = build()
    attach(model, [(AdaLomo, model.parameters(), {"lr": 0.1}, True)])
    of_model, of_optimizers = torch.load(io.BytesIO(file.getvalue()), weights_only=False)
    model.load_state_dict(of_model)
    for optimizer, state in zip(optimizers(model), of_optimizers, strict=True):
        optimizer.load_state_dict(state)
    for _ in range(3):
        backward(model(next(batches)).square().mean(), model)
    return dict(model.named_parameters())


expected, actual = (standard_loop(), in_backward())
for name, value in expected.items():
    torch.testing.assert_close(actual[name], value, rtol=0, atol=0, equal_nan=True, msg=f"{name}: {{}}".format)
