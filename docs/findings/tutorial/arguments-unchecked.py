"""attachment/no_optimizer_class (MUST): tutorial fails in case container-class.

Something that is no optimizer class is rejected when it is attached, not when it is stepped.

Observed: a class that takes parameters and is no optimizer class is accepted
"""

import dis
import weakref
from contextlib import contextmanager

import torch
from torch import nn


attached = weakref.WeakKeyDictionary()


def optimizers(module):
    held = [(optimizer, optimizer.param_groups[0]["params"][0]) for optimizer in attached]
    return [optimizer for param in module.parameters() for optimizer, its_param in held if its_param is param]


def apply(optimizer_class, params, optimizer_kwargs, register_hook=True):
    params = list(params)
    optimizer_dict = {param: optimizer_class([param], **optimizer_kwargs) for param in params}

    def optimizer_hook(param):
        optimizer_dict[param].step()
        optimizer_dict[param].zero_grad()

    for param, optimizer in optimizer_dict.items():
        param.register_post_accumulate_grad_hook(optimizer_hook)
        attached[optimizer] = None


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
        apply(given, model.parameters(), {})


no_optimizer_class(
    given=torch.nn.ParameterList, what="a class that takes parameters and is no optimizer class", device="cpu"
)
