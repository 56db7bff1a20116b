"""Finds plugins: a plugin is a module of a package and its file name is its name.

An installed package adds its own through the entry points qtool.methods, qtool.observers, qtool.metrics, qtool.scorers,
qtool.readers and qtool.formats: the entry's name is the plugin's, its value the module.
"""

import ast
import functools
import importlib
import importlib.util
import pkgutil
from importlib import metadata
from types import ModuleType

from qtool.errors import MissingPackage, UnknownName, UsageError


def names(package: str) -> tuple[str, ...]:
    """Sorted names of the plugins in `package` and of those that other packages add, without importing any of them."""
    return tuple(sorted({*_own(package), *_added(package)}))


def load(package: str, name: str, *, kind: str) -> ModuleType:
    """The plugin module `name` of `package`. Raises UnknownName with the nearest names."""
    return importlib.import_module(_module_of(package, name, kind))


def require(package: str, *, needed_by: str, extra: str) -> ModuleType:
    """The optional third-party `package`, imported. Raises MissingPackage, which says how to install it."""
    if importlib.util.find_spec(package) is None:
        raise MissingPackage(package, needed_by, extra)
    return importlib.import_module(package)


def docstring(package: str, name: str, *, kind: str) -> str:
    """The docstring of plugin `name`, read without importing it. Raises UnknownName with the nearest names."""
    module = _module_of(package, name, kind)
    specification = importlib.util.find_spec(module)
    if specification is None or specification.origin is None:
        raise UsageError(f"{kind} {name!r}: the package that adds it has no module {module!r}; install it again")
    with open(specification.origin, encoding="utf-8") as source:
        return ast.get_docstring(ast.parse(source.read())) or ""


def _module_of(package: str, name: str, kind: str) -> str:
    own, added = _own(package), _added(package)
    if name in own and name in added:
        raise UsageError(f"{kind} {name!r}: {added[name]} takes the name of one of qtool's own; rename its entry point")
    if name in own:
        return f"{package}.{name}"
    if name in added:
        return added[name]
    raise UnknownName(kind, name, names(package))


def _own(package: str) -> frozenset[str]:
    """Modules of the package; those that it names in PLUGINS where not all of them are plugins."""
    module = importlib.import_module(package)
    if hasattr(module, "PLUGINS"):
        return frozenset(module.PLUGINS)
    return frozenset(entry.name for entry in pkgutil.iter_modules(module.__path__) if not entry.name.startswith("_"))


@functools.cache
def _added(package: str) -> dict[str, str]:
    """Name and module of each plugin of another package: metadata of what is installed does not change meanwhile."""
    group = f"qtool.{package.rpartition('.')[2]}"
    return {entry.name: entry.value for entry in metadata.entry_points(group=group)}
