"""Functions of the user as user-defined functions of openEO: their source, with all that it refers to."""

from __future__ import annotations

import ast
import builtins
import functools
import inspect
import re
import sys
import sysconfig
import textwrap
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from openeo_xarray.array import RecordedArray
from openeo_xarray.build import replace_axis
from openeo_xarray.errors import UnsupportedOperation
from openeo_xarray.nodes import UserFunction
from openeo_xarray.order import check_order

ENTRY = "apply_datacube"
TEMPLATE = """{parts}


def apply_datacube(cube: xarray.DataArray, context: dict) -> xarray.DataArray:
    result = xarray.apply_ufunc(
        {name}, {arguments}, input_core_dims={inputs}, output_core_dims={outputs}, {options}
    )
    return result.transpose(*(name for name in cube.dims if name in result.dims))
"""


def record_user_function(
    function: Callable[..., Any], signature: str, arguments: Sequence[Any], options: dict[str, Any]
) -> RecordedArray:
    """Record a function of one array, with at most one core dimension, as a user-defined function.

    Raises:
        UnsupportedOperation: the function cannot be sent, or works on several arrays or dimensions.
    """
    keywords: dict[str, Any] = {}
    while isinstance(function, functools.partial):
        keywords = {**function.keywords, **keywords}
        arguments = (*function.args, *arguments)
        function = function.func
    name = getattr(function, "__name__", "a function")
    inputs, outputs = parse_signature(signature)
    recorded = [i for i, argument in enumerate(arguments) if isinstance(argument, RecordedArray)]
    if len(recorded) != 1 or len(inputs) != len(arguments):
        raise refuse(name, "it works on several arrays: compute one from them first")
    array, (core, *more) = arguments[recorded[0]], (*inputs[recorded[0]], None)
    dim = None if core is None else array.layout[-1]
    if [c for c in more if c is not None] or (core is not None and dim is None):
        raise refuse(name, "it has several core dimensions: one is possible")
    if len(outputs) != 1 or outputs[0] not in ((), (core,)):
        raise refuse(name, "its result must be one array, with the core dimension or without it")
    code = write_code(function, arguments, keywords, dim, keeps=outputs[0] == (core,), options=options)
    if dim is not None:
        check_order(array.node, dim, f"apply_ufunc of {name}")
    dtype = np.dtype((options.get("output_dtypes") or [np.float64])[0])
    keeps = dim is None or outputs[0] == (core,)
    axes = array.node.axes if keeps else replace_axis(array.node, str(dim), None)
    node = UserFunction(axes, dtype, array.node, dim, code)
    return RecordedArray(node, array.layout if keeps else array.layout[:-1])


def refuse(name: str, reason: str) -> UnsupportedOperation:
    """Make the error for a function that cannot be sent."""
    return UnsupportedOperation(f"apply_ufunc of {name} as a user-defined function", reason)


def parse_signature(signature: str) -> tuple[list[tuple[str, ...]], list[tuple[str, ...]]]:
    """The core dimensions of the arguments and of the results of a generalised function."""
    inputs, outputs = (
        [tuple(n for n in group.split(",") if n) for group in re.findall(r"\(([^)]*)\)", side)]
        for side in signature.replace(" ", "").split("->")
    )
    return inputs, outputs


def write_code(
    function: Callable[..., Any],
    arguments: Sequence[Any],
    keywords: dict[str, Any],
    dim: str | None,
    *,
    keeps: bool,
    options: dict[str, Any],
) -> str:
    """The code of a user-defined function that calls a function by `xarray.apply_ufunc`."""
    name = getattr(function, "__name__", "a function")
    parts: dict[str, str] = {"xarray": "import xarray"}
    include(function, parts, name)
    if ENTRY in parts:
        raise refuse(name, f"a function is named {ENTRY}: give it another name")
    values = ["cube" if isinstance(a, RecordedArray) else write_value(a, name) for a in arguments]
    core = [] if dim is None else [dim]
    inputs = [core if value == "cube" else [] for value in values]
    calls = f"vectorize={bool(options.get('vectorize'))}, kwargs={write_value(keywords, name)}"
    imports = [text for text in parts.values() if text.startswith(("import ", "from "))]
    constants = [t for t in parts.values() if t not in imports and not t.startswith("def ")]
    functions = [t for t in parts.values() if t.startswith("def ")]
    blocks = ["\n".join(imports), *(["\n".join(constants)] if constants else []), *functions]
    return TEMPLATE.format(
        parts="\n\n\n".join(blocks),
        name=name,
        arguments=", ".join(values),
        inputs=inputs,
        outputs=[core if keeps else []],
        options=calls,
    )


def include(function: Any, parts: dict[str, str], name: str) -> None:
    """Add the source of a function and of all global names in it.

    Raises:
        UnsupportedOperation: it refers to something that source cannot carry.
    """
    if not isinstance(function, types.FunctionType) or function.__name__ == "<lambda>":
        raise refuse(name, "only functions that are written with def can be sent")
    if function.__code__.co_freevars:
        names = ", ".join(function.__code__.co_freevars)
        raise refuse(name, f"it uses variables of the function around it ({names}): pass them as kwargs")
    try:
        source = textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError) as error:
        raise refuse(name, "its source cannot be found: define it in a file or a notebook") from error
    if not source.startswith("def "):
        raise refuse(name, f"{function.__name__} has a decorator")
    parts[function.__name__] = source.rstrip()
    for used in sorted(set(list_globals(function, source))):
        if used not in parts:
            include_global(used, function.__globals__[used], parts, name)


def list_globals(function: types.FunctionType, source: str) -> Iterator[str]:
    """The global names in a function, and in its annotations and defaults; built-in ones left out."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name) and node.id in function.__globals__:
            is_builtin = function.__globals__[node.id] is getattr(builtins, node.id, object())
            if node.id not in function.__code__.co_varnames and not is_builtin:
                yield node.id


def include_global(used: str, value: Any, parts: dict[str, str], name: str) -> None:
    """Add a module as an import, a function of the user by its source, a constant by its value."""
    if isinstance(value, types.ModuleType):
        plain = f"import {value.__name__}"
        parts[used] = plain if used == value.__name__ else f"{plain} as {used}"
    elif isinstance(value, types.FunctionType) and is_own(value):
        include(value, parts, name)
    elif callable(value):
        module, original = find_import(value)
        if original is None:
            raise refuse(name, f"it uses {used}, which cannot be imported elsewhere")
        parts[used] = f"from {module} import {original}" + ("" if original == used else f" as {used}")
    else:
        parts[used] = f"{used} = {write_value(value, name, used)}"


def is_own(function: types.FunctionType) -> bool:
    """Whether a function is the user's own: not one of an installed package or of Python."""
    path = inspect.getsourcefile(function) or ""
    return "site-packages" not in path and not path.startswith(sysconfig.get_path("stdlib"))


def find_import(value: Any) -> tuple[str, str | None]:
    """The module of an installed package or of Python that has an object, and its name there."""
    module, original = getattr(value, "__module__", None) or "numpy", getattr(value, "__name__", None)
    loaded = sys.modules.get(module)
    path = str(getattr(loaded, "__file__", None) or sysconfig.get_path("stdlib"))
    is_installed = "site-packages" in path or path.startswith(sysconfig.get_path("stdlib"))
    is_there = loaded is not None and getattr(loaded, str(original), None) is value
    return module, original if is_installed and is_there else None


def write_value(value: Any, name: str, what: str = "an argument") -> str:
    """A value as Python: numbers, strings, and lists and dictionaries of them.

    Raises:
        UnsupportedOperation: it is something else.
    """
    if isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0):
        value = value.item()
    text = repr(value)
    try:
        same = ast.literal_eval(text) == value
    except (ValueError, SyntaxError, TypeError):
        same = False
    if same is not True:
        raise refuse(
            name, f"it uses {what}, a {type(value).__name__}: numbers, strings and lists are possible"
        )
    return text
