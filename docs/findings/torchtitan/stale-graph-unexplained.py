"""hazards/stale_graph_explained (SHOULD): torchtitan fails.

Where the step has changed what a retained graph needs, the error of a second backward tells of the step.

Observed: the error of a second backward over a graph says nothing of steps: RuntimeError: one of the variables needed
for gradient computation has been modified by an inplace operation: [torch.FloatTensor [6, 3]], which is output 0 of
AsStrided, is at version 3; expected version 1 instead. Hint: enable anomaly detection to find the operation that failed
to compute its gradient, with torch.autograd.set_detect_anomaly(True, check_nan=False).
"""

import re
import weakref

import torch
from torch import nn
from torch.optim import AdamW
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


ADAM = (AdamW, {"lr": 0.1})


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
