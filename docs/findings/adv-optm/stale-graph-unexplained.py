"""hazards/stale_graph_explained (SHOULD): adv-optm fails.

Where the step has changed what a retained graph needs, the error of a second backward tells of the step.

Observed: the error of a second backward over a graph says nothing of steps: RuntimeError: one of the variables needed
for gradient computation has been modified by an inplace operation: [torch.FloatTensor [6, 3]], which is output 0 of
AsStrided, is at version 2; expected version 1 instead. Hint: enable anomaly detection to find the operation that failed
to compute its gradient, with torch.autograd.set_detect_anomaly(True, check_nan=False).
"""

import re
import weakref
from functools import partial

import torch
from adv_optm import AdamW_adv
from torch import nn


attached = weakref.WeakKeyDictionary()


def step_and_free(optimizer, number, index, param):
    optimizer.step_parameter(param, optimizer.param_groups[number], index)
    param.grad = None


def apply(optimizer_class, params, optimizer_kwargs, register_hook=True):
    optimizer = optimizer_class(params, **optimizer_kwargs)
    attached[optimizer] = None
    for number, group in enumerate(optimizer.param_groups):
        for index, param in filter(lambda indexed: indexed[1].requires_grad, enumerate(group["params"])):
            param.register_post_accumulate_grad_hook(partial(step_and_free, optimizer, number, index))


def params_of(optimizer):
    return [param for group in optimizer.param_groups for param in group["params"]]


def optimizers(module):
    params = set(module.parameters())
    return [optimizer for optimizer in attached if not params.isdisjoint(params_of(optimizer))]


def backward(loss, module, **kwargs):
    loss.backward(**kwargs)
    for optimizer in optimizers(module):
        optimizer.step()
        optimizer.zero_grad()


library_backward = backward
ADAM = (AdamW_adv, {"lr": 0.01, "stochastic_rounding": False})


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
    apply(optimizer_class, model.parameters(), dict(options))
    output = model(torch.linspace(-1.0, 1.0, 8, device=device).reshape(2, 4)).square()
    library_backward(output[0].mean(), model, retain_graph=True)
    raised = _error_of(lambda: library_backward(output[1].mean(), model))
    assert raised, "a second backward over a graph that a step has changed raises nothing"
    assert mentions_steps(raised), f"the error of a second backward over a graph says nothing of steps: {repr(raised)}"


stale_graph_explained(device="cpu")
