"""fsdp/checkpoint (MUST): heavyball fails in case own-AdamW.

Under `fully_shard` two ranks save model and states, four load them and go on as if never stopped.

Observed: rank 0: an accident, not a refusal: event 2, LoadSharded('folder', Ranks(2), before=(FullyShard(layers=('0',
'2', '4')),), events=(Backward(), Backward(), Backward())) raises TypeError: warn_once() got an unexpected keyword
argument 'closure'
"""

import tempfile
import weakref
from itertools import count

import heavyball.utils
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed import checkpoint as dcp
from torch.distributed import fsdp
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict


def standard_optimizer(optimizer_class, params, optimizer_kwargs):
    heavyball.utils.compile_mode = None
    return optimizer_class(params, **optimizer_kwargs)


attached = weakref.WeakKeyDictionary()


def apply(optimizer_class, params, optimizer_kwargs, register_hook=True):
    params = list(params)
    heavyball.utils.compile_mode = None
    attached[heavyball.utils.fused_hook(params, optimizer_class, **optimizer_kwargs)] = None


def optimizers(module):
    params = set(module.parameters())
    return [optimizer for optimizer in attached if not params.isdisjoint(optimizer.param_groups[0]["params"])]


def save_by_standard_loop(rank, folder):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    batches = (torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)) for seed in count(1000000 * rank + 1))
    for module in (model[0], model[2], model[4], model):
        fsdp.fully_shard(module)
    optimizer = standard_optimizer(torch.optim.AdamW, model.parameters(), {"lr": 0.01, "weight_decay": 0.1})
    for _ in range(3):
        model(next(batches)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    states = get_state_dict(model, [optimizer], options=StateDictOptions(flatten_optimizer_state_dict=True))
    dcp.save(dict(zip(("model", "optim"), states)), checkpoint_id=f"{folder}/StandardLoop")


def save_in_backward(rank, folder):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    batches = (torch.randn(8, 4, generator=torch.Generator().manual_seed(seed)) for seed in count(1000000 * rank + 1))
    for module in (model[0], model[2], model[4], model):
        fsdp.fully_shard(module)
    apply(torch.optim.AdamW, model.parameters(), {"lr": 0.01, "weight_decay": 0.1})
    for _ in range(3):
        model(next(batches)).square().mean().backward()
    states = get_state_dict(model, optimizers(model), options=StateDictOptions(flatten_optimizer_state_dict=True))
    dcp.save(dict(zip(("model", "optim"), states)), checkpoint_id=f"{folder}/InBackward")


def save(rank, folder):
    dist.init_process_group("gloo", f"file://{folder}/save", world_size=2, rank=rank)
    save_by_standard_loop(rank, folder)
    save_in_backward(rank, folder)


def standard_loop(rank, folder):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    for module in (model[0], model[2], model[4], model):
        fsdp.fully_shard(module)
    optimizer = standard_optimizer(torch.optim.AdamW, model.parameters(), {"lr": 0.01, "weight_decay": 0.1})
    flat = StateDictOptions(flatten_optimizer_state_dict=True)
    state = dict(zip(("model", "optim"), get_state_dict(model, [optimizer], options=flat)))
    dcp.load(state, checkpoint_id=f"{folder}/StandardLoop")
    set_state_dict(model, [optimizer], model_state_dict=state["model"], optim_state_dict=state["optim"], options=flat)
    return {name: param.to_local() for name, param in model.named_parameters()}


def in_backward(rank, folder):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3))
    for module in (model[0], model[2], model[4], model):
        fsdp.fully_shard(module)
    apply(torch.optim.AdamW, model.parameters(), {"lr": 0.01, "weight_decay": 0.1})
    flat = StateDictOptions(flatten_optimizer_state_dict=True)
    state = dict(zip(("model", "optim"), get_state_dict(model, optimizers(model), options=flat)))
    dcp.load(state, checkpoint_id=f"{folder}/InBackward")
    set_state_dict(
        model, optimizers(model), model_state_dict=state["model"], optim_state_dict=state["optim"], options=flat
    )
    return {name: param.to_local() for name, param in model.named_parameters()}


def main(rank, folder):
    dist.init_process_group("gloo", f"file://{folder}/main", world_size=4, rank=rank)
    expected, actual = (standard_loop(rank, folder), in_backward(rank, folder))
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, rtol=0, atol=0, equal_nan=True, msg=f"{name}: {{}}".format)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.start_processes(save, (folder,), 2, start_method="forkserver")
        torch.multiprocessing.start_processes(main, (folder,), 4, start_method="forkserver")
