"""properties/swapped_tensors (MUST): torch fails.

Whichever conversions swap the tensors under Parameter objects in training, it trains alike, or is refused.

Observed: torn update: event 1, LoadWeights(swap=True) raises RuntimeError: Error(s) in loading state_dict for
LayerGraph:, after it had changed offset; drawn: Plan('LayerGraph', (Assignment('SGD', options={'lr': 0.1}),),
(LoadWeights(swap=True), Backward()))
"""

import torch
from torch import nn
from torch.distributed.optim import _apply_optimizer_in_backward


class Gain(nn.Module):
    """One factor: a 0-dim parameter."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.randn(()))

    def forward(self, features):
        return features * self.factor


class LayerGraph(nn.Module):
    """Layers of width 3, called one after the other, and an offset that is added to what the last call gives."""

    def __init__(self, calls=()):
        super().__init__()
        kinds = {"linear": lambda: nn.Linear(3, 3), "norm": lambda: nn.LayerNorm(3), "gain": Gain}
        for name in dict.fromkeys((name for name, _ in calls)):
            self.add_module(name, kinds[name.rstrip("0123456789")]())
        self.offset = nn.Parameter(torch.randn(3))
        self.calls = calls

    def forward(self, features, skip=()):
        values = [features]
        for name, inputs in self.calls:
            given = torch.stack([values[index] for index in inputs]).sum(0)
            values.append(given if name in skip else torch.tanh(self.get_submodule(name)(given)))
        return values[-1] + self.offset


def standard_loop():
    torch.manual_seed(0)
    model = LayerGraph()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    halved = {name: value * 0.5 if value.is_floating_point() else value for name, value in model.state_dict().items()}
    torch.__future__.set_swap_module_params_on_conversion(True)
    model.load_state_dict(halved)
    torch.__future__.set_swap_module_params_on_conversion(False)
    return dict(model.named_parameters())


def in_backward():
    torch.manual_seed(0)
    model = LayerGraph()
    _apply_optimizer_in_backward(torch.optim.SGD, model.parameters(), {"lr": 0.1})
    halved = {name: value * 0.5 if value.is_floating_point() else value for name, value in model.state_dict().items()}
    torch.__future__.set_swap_module_params_on_conversion(True)
    model.load_state_dict(halved)
    torch.__future__.set_swap_module_params_on_conversion(False)
    return dict(model.named_parameters())


expected = standard_loop()
try:
    actual = in_backward()
except (RuntimeError, TypeError, ValueError) as error:
    if "Error(s) in loading state_dict for Layer" in str(error):
        raise
    print(f"refused, which passes as well: {type(error).__name__}: {error}")
else:
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, rtol=0, atol=0, equal_nan=True, msg=f"{name}: {{}}".format)
