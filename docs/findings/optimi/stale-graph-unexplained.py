"""hazards/stale_graph_explained (SHOULD): optimi fails.

Where the step has changed what a retained graph needs, the error of a second backward tells of the step.

Observed: the error of a second backward over a graph says nothing of steps: RuntimeError: one of the variables needed
for gradient computation has been modified by an inplace operation: [torch.FloatTensor [6, 3]], which is output 0 of
AsStrided, is at version 2; expected version 1 instead. Hint: enable anomaly detection to find the operation that failed
to compute its gradient, with torch.autograd.set_detect_anomaly(True, check_nan=False).
"""

import inspect
import re
import weakref

import optimi
import torch
from torch import nn


def make(optimizer_class, params, optimizer_kwargs, **release):
    own, of_torch = (getattr(optimi, optimizer_class.__name__), inspect.signature(optimizer_class).parameters)
    lacking = {*of_torch} - {*inspect.signature(own).parameters} | {"dampening"}
    return own(params, **{name: value for name, value in optimizer_kwargs.items() if name not in lacking}, **release)


prepared = weakref.WeakKeyDictionary()


def params_of(optimizer):
    return {param for group in optimizer.param_groups for param in group["params"]}


def optimizers(module):
    return [*dict.fromkeys(each for param in module.parameters() for each in prepared if param in params_of(each))]


def attach(module, assignments):
    for optimizer_class, params, optimizer_kwargs, register_hook in assignments:
        optimizer = make(optimizer_class, params, optimizer_kwargs, gradient_release=True)
        modules = [part for part in module.modules() if params_of(optimizer) <= set(part.parameters())]
        smallest = min(modules, key=lambda part: len(list(part.parameters())), default=module)
        optimi.prepare_for_gradient_release(smallest, optimizer, ignore_existing_hooks=not optimizers(smallest))
        prepared[optimizer] = None


ADAM = (torch.optim.Adam, {"lr": 0.01})


def _error_of(call):
    try:
        call()
    except Exception as error:
        return error
    return None


_MENTIONS_STEPS = re.compile("\\b(already|been|was|were) (stepped|updated)\\b", re.IGNORECASE)


def mentions_steps(error):
    return bool(_MENTIONS_STEPS.search(str(error)))


def stale_graph_explained(device):
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3)).to(device)
    optimizer_class, options = ADAM
    attach(model, [(optimizer_class, model.parameters(), dict(options), True)])
    output = model(torch.linspace(-1.0, 1.0, 8, device=device).reshape(2, 4)).square()
    output[0].mean().backward(retain_graph=True)
    raised = _error_of(lambda: output[1].mean().backward())
    assert raised, "a second backward over a graph that a step has changed raises nothing"
    assert mentions_steps(raised), f"the error of a second backward over a graph says nothing of steps: {repr(raised)}"


stale_graph_explained(device="cpu")
