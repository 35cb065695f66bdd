"""hazards/grad_mode (MUST): adalomo fails in case AdaLomo-inference_mode.

Backward inside `torch.inference_mode()` or `torch.no_grad()`, as in evaluation code, trains as anywhere else.

Observed: an accident, not a refusal: event 1, Backward(inside='inference_mode') raises RuntimeError: element 0 of
tensors does not require grad and does not have a grad_fn
"""

import os
import weakref

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
    optimizer = standard_optimizer(AdaLomo, model.parameters(), {"lr": 0.1})
    loss = model(torch.randn(8, 4, generator=torch.Generator().manual_seed(1)).to("cuda")).square().mean()
    with torch.inference_mode():
        loss.backward()
    optimizer.step()
    return dict(model.named_parameters())


def in_backward():
    model = build()
    attach(model, [(AdaLomo, model.parameters(), {"lr": 0.1}, True)])
    loss = model(torch.randn(8, 4, generator=torch.Generator().manual_seed(1)).to("cuda")).square().mean()
    with torch.inference_mode():
        backward(loss, model)
    return dict(model.named_parameters())


expected, actual = (standard_loop(), in_backward())
for name, value in expected.items():
    torch.testing.assert_close(actual[name], value, rtol=0, atol=0, equal_nan=True, msg=f"{name}: {{}}".format)
