"""attachment/no_optimizer_class (MUST): torchtune fails in case container-class.

Something that is no optimizer class is rejected when it is attached, not when it is stepped.

Observed: a class that takes parameters and is no optimizer class is accepted
"""

import dis
import weakref
from contextlib import contextmanager

import torch
from torch import nn
from torchtune.training import register_optim_in_bwd_hooks


attached = weakref.WeakKeyDictionary()


def optimizers(module):
    held = [(optimizer, optimizer.param_groups[0]["params"][0]) for optimizer in attached]
    return [optimizer for param in module.parameters() for optimizer, its_param in held if its_param is param]


def attach(module, assignments):
    own = {}
    for optimizer_class, params, optimizer_kwargs, register_hook in assignments:
        for param in params:
            own[param] = optimizer_class([param], **optimizer_kwargs)
    modules = [part for part in module.modules() if own.keys() <= set(part.parameters())]
    smallest = min(modules, key=lambda part: len(list(part.parameters())), default=module)
    register_optim_in_bwd_hooks(model=smallest, optim_dict=own)
    attached.update(dict.fromkeys(own.values()))


_ALWAYS_ACCIDENTAL = (ArithmeticError, AssertionError, AttributeError, LookupError, NameError, RecursionError)
UNREADABLE = "(its message cannot be read)"
_ACCIDENTAL_UNLESS_WRITTEN = (RuntimeError, TypeError, ValueError)


def _written(traceback):
    if traceback is None:
        return False
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    code = traceback.tb_frame.f_code.co_code
    return dis.opname[code[traceback.tb_lasti]] == "RAISE_VARARGS"


def is_accidental(error):
    if isinstance(error, _ALWAYS_ACCIDENTAL) or not isinstance(error, Exception):
        return True
    if str(error).strip() in {"", UNREADABLE}:
        return True
    return isinstance(error, _ACCIDENTAL_UNLESS_WRITTEN) and (not _written(error.__traceback__))


def _error_of(call):
    try:
        if call:
            call()
    except Exception as error:
        return str(error)
    return ""


@contextmanager
def rejected(model, listed, what, as_in=None):
    before = list(map(id, listed(model)))
    try:
        yield
    except Exception as error:
        if is_accidental(error) and str(error) != _error_of(as_in):
            raise
        print(f"{what} is rejected: {type(error).__name__}: {error}")
    else:
        raise AssertionError(f"{what} is accepted")
    assert list(map(id, listed(model))) == before, f"{what} is rejected, but something is attached"


def no_optimizer_class(device, given, what):
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 3)).to(device)
    with rejected(model, lambda module: optimizers(module), what, as_in=lambda: given(model.parameters())):
        attach(model, [(given, model.parameters(), {}, True)])


no_optimizer_class(
    given=torch.nn.ParameterList, what="a class that takes parameters and is no optimizer class", device="cpu"
)
