"""The program in the making: imports, functions, statements, names that are taken."""

from __future__ import annotations

import ast
import builtins
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from odc_openeo.explain.code import indent, make_name, write_comment

IMPORTS: Final = {
    "da": "import dask.array as da",
    "np": "import numpy as np",
    "pd": "import pandas as pd",
    "xr": "import xarray as xr",
    "gpd": "import geopandas as gpd",
    "json": "import json",
    "math": "import math",
    "re": "import re",
    "datetime": "import datetime",
    "datacube": "import datacube",
    "shapely": "import shapely",
    "rasterio": "import rasterio",
    "xvec": "import xvec",
    "odc": "import odc.geo.xr",
    "odc.stac": "import odc.stac",
    "pystac": "import pystac",
    "pystac_client": "import pystac_client",
    "rioxarray": "import rioxarray",
    "flox": "import flox.xarray",
    "Affine": "from affine import Affine",
    "GeoBox": "from odc.geo.geobox import GeoBox",
    "Resampling": "from rasterio.enums import Resampling",
    "geometry_mask": "from rasterio.features import geometry_mask",
    "rasterize": "from rasterio.features import rasterize",
    "shapes": "from rasterio.features import shapes",
    "xr_reproject": "from odc.geo.xr import xr_reproject",
    "wrap_xr": "from odc.geo.xr import wrap_xr",
    "xr_coords": "from odc.geo.xr import xr_coords",
    "UdfData": "from openeo.udf import UdfData",
    "XarrayDataCube": "from openeo.udf import XarrayDataCube",
    "urlretrieve": "from urllib.request import urlretrieve",
    "ndimage": "from scipy import ndimage",
    "scipy": "import scipy",
    "RandomForestClassifier": "from sklearn.ensemble import RandomForestClassifier",
    "RandomForestRegressor": "from sklearn.ensemble import RandomForestRegressor",
    "S2PixelCloudDetector": "from s2cloudless import S2PixelCloudDetector",
    "sliding_window_view": "from numpy.lib.stride_tricks import sliding_window_view",
    "decimal": "import decimal",
    "itertools": "import itertools",
    "odc_box": "from odc.geo.geom import box as odc_box",
    "relativedelta": "from dateutil.relativedelta import relativedelta",
    "Image": "from PIL import Image",
    "zoneinfo": "import zoneinfo",
    "skops": "import skops.io",
    "shutil": "import shutil",
    "Path": "from pathlib import Path",
}
"""Imports by the name that they give."""

ACCESSORS: Final = {"odc": "odc", "xvec": "xvec", "rio": "rioxarray"}
"""Imports by the accessor of xarray that they register."""

_STANDARD: Final = frozenset(sys.stdlib_module_names)


@dataclass
class Program:
    """The parts of a program. ``incomplete`` has the reasons why it is not the whole graph."""

    imports: set[str] = field(default_factory=set)
    constants: dict[str, str] = field(default_factory=dict)
    functions: dict[str, str] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    names: set[str] = field(default_factory=lambda: {*IMPORTS, *dir(builtins), "dc"})
    incomplete: list[dict[str, str]] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    user_code: dict[str, str] = field(default_factory=dict)

    def take_name(self, wish: str) -> str:
        """A name that nothing else in the program has."""
        name = make_name(wish) or "value"
        number = 2
        unique = name
        while unique in self.names:
            unique = f"{name.rstrip('_')}_{number}"
            number += 1
        self.names.add(unique)
        return unique

    def add_constant(self, wish: str, code: str) -> str:
        """Name what whoever runs the program may have to change, at its top; return the name."""
        name = next((name for name, value in self.constants.items() if value == code), None)
        if name is None:
            name = self.take_name(wish).upper()
            self.constants[name] = code
        return name

    def leave_out(self, call: Any, reason: str) -> None:
        """Say that a call is not, or not wholly, in the program, and why."""
        process = call.node.process_id
        self.incomplete.append({"node": call.path, "process": process, "reason": reason})
        self.lines.append(write_comment(f"TODO: {call.path}, a call of {process}: {reason}"))

    def use_function(self, function: Callable[..., Any]) -> str:
        """Put a function of `snippets` into the program, with all that it uses; return its name."""
        name = function.__name__
        if name in self.functions:
            return name
        self.functions[name] = ""
        self.names.add(name)
        for used in _list_names(function.__code__):
            value = function.__globals__.get(used)
            if used in IMPORTS:
                self.imports.add(used)
            elif inspect.isfunction(value):
                self.use_function(value)
            elif used in function.__globals__ and used.isupper():
                self.functions.setdefault(used, f"{used} = {value!r}")
        del self.functions[name]
        self.functions[name] = inspect.getsource(function).rstrip()
        return name

    def write(self, title: str) -> str:
        """The source of the program."""
        functions = list(self.functions.values())
        body = list(self.lines)
        comments = [
            write_comment(f"Left out: {note['node']} ({note['process']}): {note['reason']}")
            for note in self.incomplete
        ]
        constants = "\n".join(f"{name} = {code}" for name, code in self.constants.items())
        rest = [constants, *(_space(functions) if functions else ()), "\n".join([*comments, *body])]
        self.imports = _find_imports("\n".join(rest))
        parts = [f'"""{title}"""', "\n".join(self._write_imports()), *rest]
        return "\n\n".join(part for part in parts if part).rstrip() + "\n"

    def _write_imports(self) -> list[str]:
        source = [IMPORTS[name] for name in self.imports]
        standard = sorted(line for line in source if line.split()[1].partition(".")[0] in _STANDARD)
        foreign = sorted((line for line in source if line not in standard), key=_sort_import)
        return [*standard, *([""] if standard and foreign else []), *foreign]


def _find_imports(source: str) -> set[str]:
    """The names to import: those that are used, and the modules behind accessors."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name) and node.id in IMPORTS:
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and node.attr in ACCESSORS:
            names.add(ACCESSORS[node.attr])
    return names


def _sort_import(line: str) -> tuple[bool, str]:
    return line.startswith("from"), line


def _space(functions: list[str]) -> list[str]:
    return ["\n" + "\n\n\n".join(functions) + "\n"]


def _list_names(code: Any) -> list[str]:
    """The global names in the code of a function, functions within it included."""
    names = list(code.co_names)
    for constant in code.co_consts:
        if inspect.iscode(constant):
            names += _list_names(constant)
    return names


def write_function(name: str, parameters: list[str], lines: list[str], result: str) -> str:
    """The source of a function that returns an expression."""
    body = "\n".join([*lines, f"return {result}"])
    return f"def {name}({', '.join(parameters)}):\n{indent(body)}"
