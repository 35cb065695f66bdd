"""What is left out of a script, rule by rule: the source of the suite in, the source of a script out."""

from __future__ import annotations

import pytest
from expecttest import assert_expected_inline

from inbackward_conformance.repro.shorten import needed, shortened


def test_parameters_that_are_the_same_in_every_call_are_constants() -> None:
    source = """
def train(steps, lr, *, verbose=False):
    for step in range(steps):
        if verbose:
            print(step)
        else:
            print(f"step {step} of {steps} with lr {lr}")
    return torch.optim.SGD(params, **{"lr": lr, "maximize": True}), torch.zeros(2, device="cpu"), steps == 3

train(3, 0.1)
train(3, len(rates))
"""
    assert_expected_inline(
        shortened(source),
        """\
def train(lr):
    for step in range(3):
        print(f'step {step} of 3 with lr {lr}')
    return (torch.optim.SGD(params, lr=lr, maximize=True), torch.zeros(2), True)
train(0.1)
train(len(rates))""",
    )


def test_attributes_that_are_set_once_are_constants() -> None:
    source = """
class Model(nn.Module):
    '''A model.'''
    sparse = True

    def __init__(self, options):
        super().__init__()
        self._options = options
        self.embedding = nn.Embedding(10, 4, sparse=self.sparse)
        self.steps = 0

    def forward(self, tokens):
        self.steps += 1
        return self.embedding(tokens).sum(**self._options)

Model({"dim": 1})
print(Model({"dim": 1}).steps)
"""
    assert_expected_inline(
        shortened(source),
        """\
class Model(nn.Module):
    \"\"\"A model.\"\"\"

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(10, 4, sparse=True)
        self.steps = 0

    def forward(self, tokens):
        self.steps += 1
        return self.embedding(tokens).sum(dim=1)
Model()
print(Model().steps)""",
    )


def test_functions_of_one_expression_or_one_use_are_written_in_place() -> None:
    source = """
def loss_of(model, features):
    loss = model(features).square().mean()
    return loss

def attach(model, hook):
    for param in model.parameters():
        hook(param)

def chosen(name):
    return getattr(torch.optim, name)

def main(model, features):
    attach(model, print)
    loss_of(model, features).backward()
    return chosen("SGD")(model.parameters())

main(nn.Linear(2, 2), torch.ones(2))
main(nn.Linear(2, 3), torch.ones(2))
"""
    assert_expected_inline(
        shortened(source),
        """\
def main(model, features):
    for param in model.parameters():
        print(param)
    model(features).square().mean().backward()
    return torch.optim.SGD(model.parameters())
main(nn.Linear(2, 2), torch.ones(2))
main(nn.Linear(2, 3), torch.ones(2))""",
    )


def test_a_class_is_written_together_with_its_only_base() -> None:
    source = """
class FourFeatures(nn.Module):
    @staticmethod
    def batch(generator):
        return torch.randn(6, 4, generator=generator)

class Block(FourFeatures):
    '''A block.'''
    reentrant = False

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def again(self, features):
        return checkpoint(self.layer, features, use_reentrant=self.reentrant)

    def forward(self, features):
        return self.again(features)

class Reentrant(Block):
    '''Backward that runs another backward inside.'''
    reentrant = True

Reentrant()(torch.ones(4, 4))
"""
    assert_expected_inline(
        shortened(source),
        """\
class Reentrant(nn.Module):
    \"\"\"Backward that runs another backward inside.\"\"\"

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, features):
        return checkpoint(self.layer, features, use_reentrant=True)
Reentrant()(torch.ones(4, 4))""",
    )


def test_a_class_that_calls_what_it_replaces_keeps_its_base() -> None:
    source = """
class Convolution(nn.Sequential):
    def forward(self, images):
        print(images)
        return super().forward(images)

class ChannelsLast(Convolution):
    def forward(self, images):
        return super().forward(images.contiguous())

print(ChannelsLast(nn.ReLU())(torch.ones(1)))
"""
    assert shortened(source) == shortened(shortened(source))
    assert "class ChannelsLast(Convolution)" in shortened(source)


def test_a_sequential_is_its_call() -> None:
    source = """
class MLP(nn.Sequential):
    '''Two layers.'''
    def __init__(self):
        super().__init__(nn.Linear(4, 6), nn.Linear(6, 3))

print(MLP(), MLP())
"""
    assert_expected_inline(
        shortened(source),
        """print(nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3)), nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 3)))""",
    )


@pytest.mark.parametrize(
    ("source", "kept"),
    [
        ("def f(x):\n    return x + x\nprint(f(next(numbers)))", "f(next(numbers))"),  # it would be computed twice
        ("def f(x):\n    x += 1\n    return x\nprint(f(1))", "x += 1"),
        ("def f(x):\n    return f(x - 1) if x else 0\nprint(f(3))", "f(3)"),
        ("def f(x, *others):\n    return x\nprint(f(1, 2))", "f(1, 2)"),
        ("def f():\n    return lr\nprint(list(map(f, [1])))", "map(f, [1])"),  # not only called
        ("class C:\n    def step(self, closure):\n        return closure\nC().step(None)", "def step(self, closure)"),
        ("class C:\n    lr = 1\n    def f(self):\n        self.lr = 2\n        print(self.lr)\nC().f()", "(self.lr)"),
        ("class C:\n    lr = 1\n    def f(self):\n        return self.lr\nprint(C().f(), C.lr)", "lr = 1"),
        ("class C:\n    lr = 1\n    def f(self):\n        return self.lr\nprint(C().f(), getattr(C, 'lr'))", "lr = 1"),
        ("class A(B):\n    'x'\nclass C(A):\n    'y'\nprint(C(), isinstance(C(), A))", "class C(A)"),
        ("class S(nn.Sequential):\n    def __init__(self):\n        super().__init__(a)\nprint(S)", "class S(nn."),
        ("def f(a, b):\n    return b - a\nprint(f(next(n), next(n)))", "f(next(n), next(n))"),  # the order would differ
        ("def f(x):\n    return x * lr\ndef g(lr):\n    print(lr)\n    return f(lr)\ng(a)", "return f(lr)"),
        ("class C:\n    def append(self, x):\n        return x\nC().append(1)\n[].append(2)", "[].append(2)"),
        ("class C:\n    def __init__(self):\n        self.a = {}\n    def f(self):\n        self.a[1] = b\nC()", "{}"),
        ("class A:\n    def f(self):\n        f()\nclass B(A):\n    def g(self):\n        super().f()\nB().g()", "(A)"),
        ("class S(LRScheduler):\n    def get_lr(self):\n        return [1]\nS(optimizer)", "def get_lr(self)"),
        ("def f(x):\n    y = print(x)\n    return 1 if x else y\nprint(f(a), f(b))", "y = print(x)"),
    ],
)  # fmt: skip
def test_what_may_differ_stays(source: str, kept: str) -> None:
    assert kept in shortened(source)


def test_what_an_adapter_defines_stays_as_it_is() -> None:
    definitions = ["optimizers = []", "def apply(params):\n    optimizers.append(make(params))", "def schedule(): ..."]
    assert needed(definitions, "apply(model.parameters())") == definitions[:2]


def test_a_variable_of_a_function_is_no_reason_to_keep_it() -> None:
    assert needed(["def state_of(param):\n    state = param\n    return state"], "print(state)") == []
