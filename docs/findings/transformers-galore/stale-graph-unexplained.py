"""hazards/stale_graph_explained (SHOULD): transformers-galore fails.

Where the step has changed what a retained graph needs, the error of a second backward tells of the step.

Observed: the error of a second backward over a graph says nothing of steps: RuntimeError: one of the variables needed
for gradient computation has been modified by an inplace operation: [torch.FloatTensor [6, 3]], which is output 0 of
AsStrided, is at version 2; expected version 1 instead. Hint: enable anomaly detection to find the operation that failed
to compute its gradient, with torch.autograd.set_detect_anomaly(True, check_nan=False).
"""

import re
import weakref

import torch
from galore_torch import GaLoreAdamW
from torch import nn
from transformers import Trainer, TrainingArguments


def model_of(params, modules):
    return next((module for module in modules if params == set(module.parameters())), None)


def make(optim, model, lr, **options):
    optim_args = ",".join((f"{name}={value}" for name, value in options.items()))
    args = TrainingArguments(optim=optim, optim_args=optim_args, optim_target_modules="all-linear", learning_rate=lr)
    optimizer_class, kwargs = Trainer.get_optimizer_cls_and_kwargs(args, model)
    params = kwargs.pop("params")
    return optimizer_class(kwargs.pop("optimizer_dict", params), **kwargs)


made = weakref.WeakKeyDictionary()


def attach(module, assignments):
    for optimizer_class, params, optimizer_kwargs, register_hook in assignments:
        model = model_of(set(params), module.modules())
        made.setdefault(model, []).append(make("galore_adamw_layerwise", model, **optimizer_kwargs))


ADAM = (GaLoreAdamW, {"lr": 0.01, "rank": 2, "update_proj_gap": 2})


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
