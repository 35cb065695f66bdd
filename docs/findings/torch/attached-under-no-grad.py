"""gradients/modes_and_random_state (MUST): torch fails in case no_grad.

Attaching and backward leave the grad mode and the random state as they were, and ask for no grad mode.

Observed: apply raises AttributeError: 'NoneType' object has no attribute 'next_functions'
"""

import random

import numpy as np
import torch
from torch import nn
from torch.distributed.optim import _apply_optimizer_in_backward


ADAM = (torch.optim.Adam, {"lr": 0.1})
AUTOCAST = ("cpu", "cuda")


def torch_settings():
    return {
        "the grad mode": torch.is_grad_enabled(),
        "the default dtype": torch.get_default_dtype(),
        "the default device": torch.get_default_device(),
        "the deterministic mode": torch.get_deterministic_debug_mode(),
        "the number of threads": torch.get_num_threads(),
        "anomaly detection": (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
        "autocast": [(torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in AUTOCAST],
        "the matmul precision": torch.get_float32_matmul_precision(),
        "cudnn.enabled": torch.backends.cudnn.enabled,
        "cudnn.benchmark": torch.backends.cudnn.benchmark,
        "cudnn.deterministic": torch.backends.cudnn.deterministic,
        "mkldnn.enabled": torch.backends.mkldnn.enabled,
    }


def modes_and_random_state(device, grad_mode):
    optimizer_class, options = ADAM
    settings = torch_settings()
    python_state, numpy_state = (random.getstate(), repr(np.random.get_state()))
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3)).to(device)
    loss = model(torch.ones(2, 4, device=device)).sum()
    before = [param.detach().clone() for param in model.parameters()]
    random_state = torch.get_rng_state()
    with torch.set_grad_enabled(grad_mode):
        _apply_optimizer_in_backward(optimizer_class, model.parameters(), options)
        assert torch.is_grad_enabled() is grad_mode, "attaching leaves another grad mode behind"
        loss.backward()
        assert torch.is_grad_enabled() is grad_mode, "backward leaves another grad mode behind"
    assert torch.equal(torch.get_rng_state(), random_state), "attaching or backward draws random numbers"
    assert random.getstate() == python_state, "attaching or backward draws random numbers of Python"
    assert repr(np.random.get_state()) == numpy_state, "attaching or backward draws random numbers of NumPy"
    changed = [name for name, value in torch_settings().items() if value != settings[name]]
    assert not changed, f"attaching or backward changes {', '.join(changed)}"
    for value, (name, param) in zip(before, model.named_parameters(), strict=True):
        assert not torch.equal(value, param), f"{name} is not stepped, with grad mode {grad_mode}"


modes_and_random_state(grad_mode=False, device="cpu")
