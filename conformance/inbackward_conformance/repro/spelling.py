"""How the calls of an implementation are spelled in a script: its own lines of source, and nothing of ours.

An adapter says so by an attribute `spelling`: a line for each call, and under `import` what stands above them.

    spelling = {
        "import": "import lion",
        "apply": "lion.attach({optimizer_class}, {params}, {optimizer_kwargs}, register_hook={register_hook})",
        "optimizers": "lion.attached_to({module})",
    }

In braces stand the arguments of the call, under their names in the adapter; `{options}` are its keyword arguments.
Without a spelling a script imports what was tested, be it a module, a class or an instance, and calls that.
"""

from __future__ import annotations

import ast
import inspect
from typing import TYPE_CHECKING, Any

from inbackward_conformance.adapter import SPELLINGS, find_implementation, known_implementations
from inbackward_conformance.repro.folded import written_out

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


STATE_OF = {"optimizer": "optimizer", "param": "param"}
"""The arguments of `state_of` where they have these names."""


class Unspellable(LookupError):
    """Something of a failing case cannot be written down as source."""


class Spelling:
    """The calls of one implementation as source.

    Attributes:
        imports: the import statements that the calls need.
        definitions: what else stands above them.
    """

    def __init__(self, name: str) -> None:
        self._target = find_implementation(name)
        told: Mapping[str, str] = getattr(self._target, "spelling", {})
        entry = known_implementations().get(name)
        above, self._object = _imported(entry.value if entry else name, self._target)
        try:
            statements = ast.parse(told.get("import", "") if told else above).body
        except SyntaxError as error:
            raise Unspellable(f"`spelling['import']` is no source ({error}): {told['import']}") from error
        imports = [node for node in statements if isinstance(node, ast.Import | ast.ImportFrom)]
        self.imports = list(map(ast.unparse, imports))
        self.definitions = [ast.unparse(node) for node in statements if node not in imports]
        self._told = told

    def offers(self, call: str) -> bool:
        """Whether the implementation has a call of its own, and it can be spelled."""
        return call in self._told or (not self._told and self._name_of(call) is not None)

    def spell(self, call: str, options: str = "", **arguments: str) -> str:
        """Return the source of a call; `options` and all arguments are source, too.

        Raises:
            Unspellable: the implementation does not offer the call, and there is no plain thing to do; or what its
                `spelling` says of the call is no expression.
        """
        if call in self._told:
            template = self._told[call]
        elif not self._told and (name := self._name_of(call)):
            given = [f"{name}={{{name}}}" if name == "register_hook" else f"{{{name}}}" for name in arguments]
            template = f"{self._object}.{name}({', '.join([*given, '{options}'])})"
        elif call in DEFAULTS:
            template = DEFAULTS[call]
        else:
            raise Unspellable(f"the implementation has no `{call}`, or its `spelling` has no line for it")
        try:
            return plainly(template.format(**arguments, options=options))
        except (SyntaxError, KeyError, IndexError, ValueError) as error:
            known = ", ".join(f"{{{name}}}" for name in (*arguments, "options"))
            raise Unspellable(
                f"`spelling[{call!r}]` is no expression of {known} ({type(error).__name__}: {error}): {template}"
            ) from error

    def _name_of(self, call: str) -> str | None:
        names = SPELLINGS.get(call, (call,))
        return next((name for name in names if callable(getattr(self._target, name, None))), None)


def plainly(source: str) -> str:
    """Return a call without what goes without saying: `register_hook=True`, and `**` before a dict."""
    expression = ast.parse(source.strip(), mode="eval").body
    if isinstance(expression, ast.Call):
        given = [word for word in expression.keywords if ast.unparse(word) != "register_hook=True"]
        expression.keywords = [written for word in given for written in written_out(word)]
    return ast.unparse(expression)


def _imported(value: str, target: Any) -> tuple[str, str]:
    """Return the source that imports `target`, and the name that its calls are found under."""
    module, _, attribute = value.partition(":")
    if not attribute:
        return f"import {module}", module
    line = f"from {module} import {attribute.partition('.')[0]}"
    if inspect.isclass(target):
        return f"{line}\nimplementation = {attribute}()", "implementation"
    return line, attribute
