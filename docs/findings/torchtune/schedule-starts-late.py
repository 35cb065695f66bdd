"""schedule/every_scheduler (MUST): torchtune diverges in case LinearLR.

Every public class of `torch.optim.lr_scheduler` gives the steps that it gives in the standard loop.

Observed: parameter '0.bias' differs from the standard loop after event 2, Backward(): largest difference 0.0052
"""

import weakref

import torch
from torch import nn
from torch.optim import lr_scheduler
from torchtune.training import create_optim_in_bwd_wrapper, register_optim_in_bwd_hooks


attached = weakref.WeakKeyDictionary()


def attach(module, assignments):
    own = {}
    for optimizer_class, params, optimizer_kwargs, register_hook in assignments:
        for param in params:
            own[param] = optimizer_class([param], **optimizer_kwargs)
    modules = [part for part in module.modules() if own.keys() <= set(part.parameters())]
    smallest = min(modules, key=lambda part: len(list(part.parameters())), default=module)
    register_optim_in_bwd_hooks(model=smallest, optim_dict=own)
    attached.update(dict.fromkeys(own.values()))


def optimizers(module):
    held = [(optimizer, optimizer.param_groups[0]["params"][0]) for optimizer in attached]
    return [optimizer for param in module.parameters() for optimizer, its_param in held if its_param is param]


def wrapper_of(module):
    optim_dict = {optimizer.param_groups[0]["params"][0]: optimizer for optimizer in optimizers(module)}
    return create_optim_in_bwd_wrapper(model=module, optim_dict=optim_dict)


def schedule(module, scheduler_class, **kwargs):
    scheduler = scheduler_class(optimizer=optimizers(module)[0], **kwargs)
    wrapper_of(module).set_lr_scheduler(scheduler)
    return [scheduler]


library_schedule = schedule


def standard_loop():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    schedules = [lr_scheduler.LinearLR(optimizer, start_factor=0.25, total_iters=6)]
    model(torch.randn(8, 4, generator=torch.Generator().manual_seed(1))).square().mean().backward()
    optimizer.step()
    return dict(model.named_parameters())


def in_backward():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    attach(model, [(torch.optim.SGD, model.parameters(), {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}, True)])
    schedules = library_schedule(model, lr_scheduler.LinearLR, start_factor=0.25, total_iters=6)
    model(torch.randn(8, 4, generator=torch.Generator().manual_seed(1))).square().mean().backward()
    return dict(model.named_parameters())


expected, actual = (standard_loop(), in_backward())
for name, value in expected.items():
    torch.testing.assert_close(actual[name], value, rtol=0, atol=0, equal_nan=True, msg=f"{name}: {{}}".format)
