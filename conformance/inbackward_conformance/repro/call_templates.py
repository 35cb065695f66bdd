"""The calls of an implementation as source: by call templates, by its adapter's own source, or by importing it.

An adapter has its call templates in the attribute `spelling`: an expression for each call, and under `import` the
statements that these need, which keep their order and their comments.

    spelling = {
        "import": "import lion",
        "apply": "lion.attach({optimizer_class}, {params}, {optimizer_kwargs}, register_hook={register_hook})",
        "optimizers": "lion.attached_to({module})",
    }

Names in braces are those of the arguments in the adapter; `{options}` stands for keyword arguments.

An adapter that is a module may say `spelling = "source"`. Then scripts have copies of its functions that they call, and
of everything in the module that these refer to. Without `spelling`, a script imports the module, class or instance that
was tested, and calls it.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from typing import TYPE_CHECKING, Any

from inbackward_conformance.adapters.find import CALL_NAMES, COPIED, find_implementation, known_implementations
from inbackward_conformance.adapters.implementation import Implementation
from inbackward_conformance.repro.failure import CannotWrite
from inbackward_conformance.repro.inline import Inlined

if TYPE_CHECKING:
    from collections.abc import Mapping

    from inbackward_conformance.adapters.declarations import Declarations

DEFAULTS = {
    "backward": "({loss}).backward({options})",
    "standard_optimizer": "{optimizer_class}({params}, **{optimizer_kwargs})",
    "state_of": "{optimizer}.state[{param}]",
    "param_groups": "{functional_optimizer}.param_groups",
    "wrap_ddp": "DistributedDataParallel({module}, {options})",
    "fully_shard": "fsdp.fully_shard({module}, {options})",
    "wrap_fsdp": "fsdp.FullyShardedDataParallel({module}, {options})",
}
"""The call templates of optional calls that an implementation does not have."""


STATE_OF_ARGUMENTS = {"optimizer": "optimizer", "param": "param"}
"""The arguments of `state_of`, where variables have these names."""


class CallTemplates:
    """The calls of one implementation as source.

    Attributes:
        target: the implementation.
        copied: its functions that were written so far, with what they refer to, where scripts have copies of them.
        copied_names: the names of these functions.
        reserved: names that mean something else where calls are written; functions of these names get another one.
    """

    def __init__(self, name: str) -> None:
        self.target = find_implementation(name)
        self.copied = Inlined(rewrite=_without_not_offered)
        self.copied_names: set[str] = set()
        self.reserved: set[str] = {"schedule"}  # a variable of scripts of plans
        spelling: Mapping[str, str] | str = getattr(self.target, "spelling", {})
        self._is_copied = spelling == COPIED
        if self._is_copied and not inspect.ismodule(self.target):
            raise CannotWrite(f"`spelling = {COPIED!r}` is for an adapter that is a module; give call templates")
        self._templates: Mapping[str, str] = {} if isinstance(spelling, str) else spelling
        entry = known_implementations().get(name)
        importing, self._prefix = _imported(entry.value if entry else name, self.target)
        if self._is_copied:
            importing, self._prefix = "", ""
        needed = textwrap.dedent(self._templates.get("import", "") if self._templates else importing)
        try:
            self._imports, self.definitions = _split_after_imports(needed)
        except SyntaxError as error:
            raise CannotWrite(f"`spelling['import']` is no source ({error}): {needed}") from error

    @property
    def imports(self) -> str:
        """The statements that the calls need, up to the last import; `definitions` has those after it."""
        return "\n".join(filter(None, [self._imports, *self.copied.imports]))

    @property
    def declared(self) -> Declarations:
        """What the adapter declares."""
        return Implementation(self.target).declared

    def offers(self, call: str) -> bool:
        """Return whether the implementation has this optional call, and there is source for it."""
        return call in self._templates or (not self._templates and self._name_of(call) is not None)

    def write(self, call: str, options: str = "", **arguments: str) -> str:
        """Return the source of a call, from the source of its `options` and arguments.

        Raises:
            CannotWrite: the implementation does not offer the call and there is no default, or its call template is
                not an expression.
        """
        if call in self._templates:
            template = self._templates[call]
        elif not self._templates and (name := self._name_of(call)) and not self._is_default(call, name):
            places = [f"{name}={{{name}}}" if name == "register_hook" else f"{{{name}}}" for name in arguments]
            called = self._copy(name) if self._is_copied else name
            template = f"{self._prefix}{called}({', '.join([*places, '{options}'])})"
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

    def _is_default(self, call: str, name: str) -> bool:
        """Return whether a function that is copied does what the default does, apart from what is not offered."""
        if not self._is_copied or call not in DEFAULTS:
            return False
        function = _without_not_offered(ast.parse(inspect.getsource(getattr(self.target, name))).body[0])
        match function:
            case ast.FunctionDef(args=ast.arguments(args=given, kwarg=ast.arg()), body=[ast.Expr(done)]):
                default = DEFAULTS[call].format(**{each.arg: each.arg for each in given}, options="**kwargs")
                return ast.unparse(done) == simplified_call(default)
        return False

    def _copy(self, name: str) -> str:
        """Have the script get a copy of a function, and return the name that it has there."""
        self.copied.add_named(self.target, name)
        called = f"library_{name}" if name in self.reserved else name
        if called != name and called not in self.copied_names:
            self.copied.definitions.append(f"{called} = {name}")
        self.copied_names.add(called)
        return called

    def _name_of(self, call: str) -> str | None:
        names = CALL_NAMES.get(call, (call,))
        return next((name for name in names if callable(getattr(self.target, name, None))), None)


def torch_call(call: str, options: str, **arguments: str) -> str:
    """Return the source of torch's own call."""
    return simplified_call(DEFAULTS[call].format(options=options, **arguments))


def simplified_call(source: str) -> str:
    """Return a call with `**{"lr": 0.1}` written as `lr=0.1`, and without `register_hook=True`."""
    expression = ast.parse(source.strip(), mode="eval").body
    if isinstance(expression, ast.Call):
        keywords = [keyword for keyword in expression.keywords if ast.unparse(keyword) != "register_hook=True"]
        expression.keywords = [expanded for keyword in keywords for expanded in expanded_keyword(keyword)]
    return ast.unparse(expression)


def expanded_keyword(keyword: ast.keyword) -> list[ast.keyword]:
    """Return `lr=0.1` for `**{"lr": 0.1}`."""
    match keyword:
        case ast.keyword(None, ast.Dict(keys, values)):
            names = [key.value if isinstance(key, ast.Constant) else None for key in keys]
            if all(isinstance(name, str) and name.isidentifier() for name in names):
                return [ast.keyword(str(name), value) for name, value in zip(names, values, strict=True)]
    return [keyword]


def _split_after_imports(source: str) -> tuple[str, str]:
    """Split the source of statements after the line of the last import, unless that is in a function or class."""
    statements = [node for node in ast.parse(source).body if not isinstance(node, ast.FunctionDef | ast.ClassDef)]
    ends = [node.end_lineno or 0 for node in statements if any(map(_is_import, ast.walk(node)))]
    lines = source.splitlines()
    last = max(ends, default=0)
    return "\n".join(lines[:last]).strip("\n"), "\n".join(lines[last:]).strip("\n")


def _is_import(node: ast.AST) -> bool:
    return isinstance(node, ast.Import | ast.ImportFrom)


def _imported(value: str, target: Any) -> tuple[str, str]:
    """Return the source that imports `target`, and what stands before the name of a call."""
    module, _, attribute = value.partition(":")
    if not attribute:
        return f"import {module}", f"{module}."
    line = f"from {module} import {attribute.partition('.')[0]}"
    if inspect.isclass(target):
        return f"{line}\nadapter = {attribute}()", "adapter."
    return line, f"{attribute}."


def _without_not_offered(node: ast.AST) -> ast.AST:
    """Return a definition without the statements that say what is not offered: a case that has failed met none."""
    remaining: ast.AST = _NotOffered().visit(node)
    return ast.fix_missing_locations(remaining)


class _NotOffered(ast.NodeTransformer):
    """Removes `if …: raise NotOffered(…)`; elsewhere it raises an error of Python's own."""

    def visit_If(self, node: ast.If) -> ast.AST | None:
        binds = any(isinstance(part, ast.NamedExpr) for part in ast.walk(node.test))
        match node:
            case ast.If(body=[ast.Raise(exc=ast.Call(func=ast.Name("NotOffered")))], orelse=[]) if not binds:
                return None
        return self.generic_visit(node)

    def visit_Name(self, node: ast.Name) -> ast.Name:
        return ast.Name("NotImplementedError", node.ctx) if node.id == "NotOffered" else node

    def generic_visit(self, node: ast.AST) -> ast.AST:
        super().generic_visit(node)
        if isinstance(node, ast.For | ast.With | ast.If | ast.FunctionDef) and not node.body:
            node.body = [ast.Pass()]
        return node
