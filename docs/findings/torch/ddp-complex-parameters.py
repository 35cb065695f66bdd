"""ddp/complex_parameters (MUST): torch fails in case no-views.

Complex parameters train as under DDP, which keeps their gradients in its buckets as pairs of real numbers.

Observed: rank 0: an accident, not a refusal: event 2, Backward() raises RuntimeError: attempting to assign a gradient
with dtype 'float' to a tensor with grad_dtype 'ComplexFloat'. The gradient must match the tensor's grad_dtype (defaults
to the tensor's dtype). You can set the tensor's grad_dtype attribute with a specific dtype, or None to allow any dtype.
Set grad_dtype with caution. Diverging the dtypes of a tensor and its gradient may break downstream systems that assume
they match.
"""

import tempfile
from itertools import count

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.optim import _apply_optimizer_in_backward
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel


class ComplexLinear(nn.Module):
    """Complex parameters."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 4, dtype=torch.complex64))
        self.bias = nn.Parameter(torch.zeros(3, dtype=torch.complex64))

    def forward(self, features):
        return F.linear(features.to(torch.complex64), self.weight, self.bias)


def standard_loop(rank):
    torch.manual_seed(0)
    model = ComplexLinear()
    batches = (torch.randn(5, 4, generator=torch.Generator().manual_seed(seed)) for seed in count(1000000 * rank + 1))
    wrapped = DistributedDataParallel(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=0.1)
    ((output := wrapped(next(batches))) * output.conj()).real.mean().backward()
    optimizer.step()
    return dict(model.named_parameters())


def in_backward(rank):
    torch.manual_seed(0)
    model = ComplexLinear()
    batches = (torch.randn(5, 4, generator=torch.Generator().manual_seed(seed)) for seed in count(1000000 * rank + 1))
    wrapped = DistributedDataParallel(model)
    _apply_optimizer_in_backward(
        torch.optim.SGD, model.parameters(), {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.1}
    )
    ((output := wrapped(next(batches))) * output.conj()).real.mean().backward()
    return dict(model.named_parameters())


def main(rank, folder):
    dist.init_process_group("gloo", f"file://{folder}/main", world_size=2, rank=rank)
    expected, actual = (standard_loop(rank), in_backward(rank))
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, rtol=0, atol=0, equal_nan=True, msg=f"{name}: {{}}".format)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.start_processes(main, (folder,), 2, start_method="forkserver")
