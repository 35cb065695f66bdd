"""The calls of an implementation as source: templates that its adapter gives, or calls of what was tested.

An adapter gives its templates by the attribute `spelling`: an expression for each call, and under `import` what stands
above them.

    spelling = {
        "import": "import lion",
        "apply": "lion.attach({optimizer_class}, {params}, {optimizer_kwargs}, register_hook={register_hook})",
        "optimizers": "lion.attached_to({module})",
    }

In braces stand the arguments of the call, under their names in the adapter; `{options}` are its keyword arguments.
Without templates a script imports what was tested, be it a module, a class or an instance, and calls that.
"""

from __future__ import annotations

import ast
import inspect
from typing import TYPE_CHECKING, Any

from inbackward_conformance.adapters.find import CALL_NAMES, find_implementation, known_implementations

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULTS = {
    "backward": "({loss}).backward({options})",
    "standard_optimizer": "{optimizer_class}({params}, **{optimizer_kwargs})",
    "state_of": "{optimizer}.state[{param}]",
    "param_groups": "{functional_optimizer}.param_groups",
    "wrap_ddp": "DistributedDataParallel({module}, {options})",
    "fully_shard": "fsdp.fully_shard({module}, {options})",
    "wrap_fsdp": "fsdp.FullyShardedDataParallel({module}, {options})",
}
"""The plain thing, where an implementation has no call of its own."""


STATE_OF_ARGUMENTS = {"optimizer": "optimizer", "param": "param"}
"""The arguments of `state_of` where they have these names."""


class CannotWrite(LookupError):
    """Something of a failing case cannot be written down as source."""


class CallTemplates:
    """The calls of one implementation as source.

    Attributes:
        imports: the import statements that the calls need.
        definitions: what else stands above them.
    """

    def __init__(self, name: str) -> None:
        self._target = find_implementation(name)
        given: Mapping[str, str] = getattr(self._target, "spelling", {})
        entry = known_implementations().get(name)
        above, self._object = _imported(entry.value if entry else name, self._target)
        try:
            statements = ast.parse(given.get("import", "") if given else above).body
        except SyntaxError as error:
            raise CannotWrite(f"`spelling['import']` is no source ({error}): {given['import']}") from error
        imports = [node for node in statements if isinstance(node, ast.Import | ast.ImportFrom)]
        self.imports = list(map(ast.unparse, imports))
        self.definitions = [ast.unparse(node) for node in statements if node not in imports]
        self._given = given

    def offers(self, call: str) -> bool:
        """Whether the implementation has a call of its own, and there is source for it."""
        return call in self._given or (not self._given and self._name_of(call) is not None)

    def write(self, call: str, options: str = "", **arguments: str) -> str:
        """Return the source of a call; `options` and all arguments are source, too.

        Raises:
            CannotWrite: the implementation does not offer the call, and there is no plain thing to do; or what its
                `spelling` says of the call is no expression.
        """
        if call in self._given:
            template = self._given[call]
        elif not self._given and (name := self._name_of(call)):
            places = [f"{name}={{{name}}}" if name == "register_hook" else f"{{{name}}}" for name in arguments]
            template = f"{self._object}.{name}({', '.join([*places, '{options}'])})"
        elif call in DEFAULTS:
            template = DEFAULTS[call]
        else:
            raise CannotWrite(f"the implementation has no `{call}`, or its `spelling` has no line for it")
        try:
            return simplified_call(template.format(**arguments, options=options))
        except (SyntaxError, KeyError, IndexError, ValueError) as error:
            known = ", ".join(f"{{{name}}}" for name in (*arguments, "options"))
            raise CannotWrite(
                f"`spelling[{call!r}]` is no expression of {known} ({type(error).__name__}: {error}): {template}"
            ) from error

    def _name_of(self, call: str) -> str | None:
        names = CALL_NAMES.get(call, (call,))
        return next((name for name in names if callable(getattr(self._target, name, None))), None)


def torch_call(call: str, options: str, **arguments: str) -> str:
    """Return the source of torch's own call."""
    return simplified_call(DEFAULTS[call].format(options=options, **arguments))


def simplified_call(source: str) -> str:
    """Return a call without what goes without saying: `register_hook=True`, and `**` before a dict."""
    expression = ast.parse(source.strip(), mode="eval").body
    if isinstance(expression, ast.Call):
        given = [word for word in expression.keywords if ast.unparse(word) != "register_hook=True"]
        expression.keywords = [written for word in given for written in expanded_keyword(word)]
    return ast.unparse(expression)


def expanded_keyword(word: ast.keyword) -> list[ast.keyword]:
    """Return `lr=0.1` for `**{"lr": 0.1}`."""
    match word:
        case ast.keyword(None, ast.Dict(keys, values)):
            names = [key.value if isinstance(key, ast.Constant) else None for key in keys]
            if all(isinstance(name, str) and name.isidentifier() for name in names):
                return [ast.keyword(str(name), value) for name, value in zip(names, values, strict=True)]
    return [word]


def _imported(value: str, target: Any) -> tuple[str, str]:
    """Return the source that imports `target`, and the name that its calls are found under."""
    module, _, attribute = value.partition(":")
    if not attribute:
        return f"import {module}", module
    line = f"from {module} import {attribute.partition('.')[0]}"
    if inspect.isclass(target):
        return f"{line}\nimplementation = {attribute}()", "implementation"
    return line, attribute
