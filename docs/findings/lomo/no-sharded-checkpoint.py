"""fsdp/checkpoint (MUST): lomo fails in case standard-AdamW.

Under `fully_shard` two ranks save model and states, four load them and go on as if never stopped.

Observed: rank 0: an accident, not a refusal: event 5, SaveSharded('folder') raises NotImplementedError: (no message)
"""

import tempfile
import weakref
from itertools import count

import torch
import torch.distributed as dist
from lomo_optim import Lomo
from torch import nn
from torch.distributed import checkpoint as dcp
from torch.distributed import fsdp
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict


class Stepped(Lomo):
    """A Lomo without hooks, since its parameters require no gradient while it is made: it is stepped by hand."""

    def __init__(self, params, **options):
        params = torch.nn.ParameterList(params)
        required = [param.requires_grad for param in params]
        super().__init__(params.requires_grad_(requires_grad=False), **options)
        for param, requires_grad in zip(params, required, strict=True):
            param.requires_grad_(requires_grad)

    def step(self, closure=None):
        self.lr = self.param_groups[0]["lr"]
        self.grad_func(0)


def standard_optimizer(optimizer_class, params, optimizer_kwargs):
    return Stepped(params, **optimizer_kwargs)


made = weakref.WeakKeyDictionary()


def attach(module, assignments):
    for optimizer_class, given, optimizer_kwargs, register_hook in assignments:
        params = list(map(id, given))
        parts = [part for part in module.modules() if {*map(id, part.parameters())} == {*params}]
        made[Lomo(parts[0], **optimizer_kwargs)] = None


def optimizers(module):
    parts, params = ({*module.modules()}, {*module.parameters()})
    return [each for each in made if each.model in parts or params & {*each.param_groups[0]["params"]}]


def backward(loss, module, **kwargs):
    attached = optimizers(module)
    for optimizer in attached:
        optimizer.fused_backward(loss, optimizer.param_groups[0]["lr"])
    if not attached:
        loss.backward(**kwargs)


def standard_loop(rank, folder):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    batches = (torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)) for seed in count(1000000 * rank + 1))
    for module in (model[0], model[2], model[4], model):
        fsdp.fully_shard(module)
    optimizer = standard_optimizer(Lomo, model.parameters(), {"lr": 0.1, "weight_decay": 0.1})
    for _ in range(3):
        model(next(batches)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    states = get_state_dict(model, [optimizer], options=StateDictOptions(flatten_optimizer_state_dict=True))
    dcp.save(dict(zip(("model", "optim"), states)), checkpoint_id=f"{folder}/StandardLoop")
    return {name: param.to_local() for name, param in model.named_parameters()}


def in_backward(rank, folder):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    batches = (torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)) for seed in count(1000000 * rank + 1))
    for module in (model[0], model[2], model[4], model):
        fsdp.fully_shard(module)
    attach(model, [(Lomo, model.parameters(), {"lr": 0.1, "weight_decay": 0.1}, True)])
    for _ in range(3):
        backward(model(next(batches)).square().mean(), model)
    states = get_state_dict(model, optimizers(model), options=StateDictOptions(flatten_optimizer_state_dict=True))
    dcp.save(dict(zip(("model", "optim"), states)), checkpoint_id=f"{folder}/InBackward")
    return {name: param.to_local() for name, param in model.named_parameters()}


def main(rank, folder):
    dist.init_process_group("gloo", f"file://{folder}/main", world_size=2, rank=rank)
    expected, actual = (standard_loop(rank, folder), in_backward(rank, folder))
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, rtol=0, atol=0, equal_nan=True, msg=f"{name}: {{}}".format)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.start_processes(main, (folder,), 2, start_method="forkserver")
