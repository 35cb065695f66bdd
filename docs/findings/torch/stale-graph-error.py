"""hazards/stale_graph_explained (SHOULD): torch fails.

Where the step has changed what a retained graph needs, the error of a second backward tells of the step.

Observed: the error of a second backward over a graph says nothing of steps: RuntimeError: one of the variables needed
for gradient computation has been modified by an inplace operation: [torch.FloatTensor [6, 3]], which is output 0 of
AsStrided, is at version 2; expected version 1 instead. Hint: enable anomaly detection to find the operation that failed
to compute its gradient, with torch.autograd.set_detect_anomaly(True, check_nan=False).
"""

import re

import torch
from torch import nn
from torch.distributed.optim import _apply_optimizer_in_backward


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
    _apply_optimizer_in_backward(optimizer_class, model.parameters(), dict(options))
    output = model(torch.linspace(-1.0, 1.0, 8, device=device).reshape(2, 4)).square()
    output[0].mean().backward(retain_graph=True)
    raised = _error_of(lambda: output[1].mean().backward())
    assert raised, "a second backward over a graph that a step has changed raises nothing"
    assert mentions_steps(raised), f"the error of a second backward over a graph says nothing of steps: {repr(raised)}"


stale_graph_explained(device="cpu")
