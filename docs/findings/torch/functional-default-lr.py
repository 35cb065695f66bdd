"""functional/default_options (MUST): torch diverges in case SGD-step.

Made without options, it has those that its class has by default.

Observed: parameter 0 differs from that of the ordinary optimizer: largest difference 0.0208
"""

import copy

import torch
from torch import nn
from torch.distributed.optim.utils import functional_optim_map


class FunctionalAndOrdinary:
    """A functional optimizer and the ordinary one of its class, over equal parameters, fed the same gradients."""

    def __init__(self, optimizer, options, device, model=""):
        self._optimizer = optimizer
        self._options = options
        self._device = device
        self.generator = torch.Generator().manual_seed(0)
        self.expected = self._make_params(model)
        self.params = self._make_params(model)
        self.functional = self.make_functional(self.params)
        self.standard = self.make_standard(self.expected)

    def _make_params(self, model):
        torch.manual_seed(0)
        module = (
            nn.Embedding(10, 4)
            if model or self._optimizer == "SparseAdam"
            else nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
        )
        return list(module.to(self._device).parameters())

    def make_functional(self, params):
        return functional_optim_map[getattr(torch.optim, self._optimizer)](params, **self._options)

    def make_standard(self, params):
        return getattr(torch.optim, self._optimizer)(params, **self._options)

    def draw(self, *, sparse=False):
        drawn = [torch.randn(param.shape, generator=self.generator) for param in self.params]
        if sparse:
            drawn = [(grad * (torch.arange(10) % 3 > 0).unsqueeze(1)).to_sparse(1) for grad in drawn]
        return [grad.to(self._device) for grad in drawn]

    def feed(self, gradients, *, one_by_one=False):
        self.step_standard(gradients)
        self.step_functional(gradients, one_by_one=one_by_one)
        self.compare()

    def step_standard(self, gradients):
        for param, grad in zip(self.expected, gradients, strict=True):
            param.grad = copy.deepcopy(grad)
        self.standard.step()
        self.standard.zero_grad()

    def step_functional(self, gradients, *, one_by_one):
        if one_by_one:
            for param, grad in zip(self.params, gradients, strict=True):
                self.functional.step_param(param, copy.deepcopy(grad))
        else:
            self.functional.step(copy.deepcopy(gradients))

    def compare(self, tolerance=0.0):
        tolerance = max(tolerance, 0.0)
        for param, expected in zip(self.params, self.expected, strict=True):
            pairs = [(param, expected)]
            if hasattr(self.functional, "state"):
                state, kept = (self.functional.state.get(param) or {}, self.standard.state.get(expected) or {})
                assert state.keys() == kept.keys(), f"the state has {list(state)}, expected {list(kept)}"
                pairs += [(state[key], kept[key]) for key in kept]
            for actual, value in pairs:
                atol = tolerance and tolerance * torch.as_tensor(value).abs().max().item()
                torch.testing.assert_close(actual, value, rtol=0, atol=atol, equal_nan=True)


def default_options(device, optimizer, one_by_one):
    both = FunctionalAndOrdinary(optimizer, {}, device)
    for _ in range(3):
        both.feed(both.draw(), one_by_one=one_by_one)


default_options(optimizer="SGD", one_by_one=False, device="cpu")
