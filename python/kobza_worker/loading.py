"""Finds a function by its module or file. What was loaded once is not loaded again."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
from types import ModuleType
from typing import Any


class LoadError(Exception):
    """The function cannot be found. The message says what is missing and where it was sought."""


#: Modules loaded from a file of their own, by the file's real path and by paths asked for.
_by_file: dict[str, ModuleType] = {}


def add_paths(paths: list[str]) -> None:
    """Puts folders in front of the module search path, in the given order, without repetition."""
    for path in reversed(paths):
        if path in sys.path:
            sys.path.remove(path)
        sys.path.insert(0, path)


def _module_name(real: str) -> str:
    stem = os.path.splitext(os.path.basename(real))[0]
    taken = sys.modules.get(stem)
    standard = stem in getattr(sys, "stdlib_module_names", ())
    if stem.isidentifier() and not standard and stem != "__main__":
        if taken is None or os.path.realpath(getattr(taken, "__file__", None) or "") == real:
            return stem
    clean = "".join(c if c.isalnum() else "_" for c in stem)
    return f"{clean}_{hashlib.sha256(real.encode()).hexdigest()[:8]}"


def load_file(path: str) -> ModuleType:
    """Loads a source file as ``python FILE`` would find it: its folder leads the search path."""
    found = _by_file.get(path)
    if found is not None:
        return found
    real = os.path.realpath(path)
    found = _by_file.get(real)
    if found is not None:
        _by_file[path] = found
        return found
    if not os.path.isfile(real):
        raise LoadError(f"there is no file {path}")
    add_paths([os.path.dirname(real)])
    name = _module_name(real)
    if name in sys.modules:
        _by_file[path] = _by_file[real] = sys.modules[name]
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, real)
    if spec is None or spec.loader is None:
        raise LoadError(f"{path} is not a Python source file")
    module = importlib.util.module_from_spec(spec)
    # Before it runs: a module may look itself up (dataclasses and pickle do).
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    _by_file[path] = _by_file[real] = module
    return module


def load(entry: dict[str, Any]) -> ModuleType:
    """Loads ``{"file": PATH}`` or ``{"module": NAME}``."""
    if entry.get("file"):
        return load_file(entry["file"])
    name = entry.get("module")
    if not isinstance(name, str) or not name:
        raise LoadError("neither a module nor a file is named")
    return importlib.import_module(name)


def split(reference: str) -> tuple[str | None, str]:
    """``module:qualname``, ``module.name`` or a bare ``qualname`` (in a file) into its two parts."""
    if ":" in reference:
        module, _, name = reference.partition(":")
        return module or None, name
    module, _, name = reference.rpartition(".")
    return module or None, name


def resolve(reference: str, file: str | None = None) -> Any:
    """The object that a reference names. Raises ``LoadError`` when there is none."""
    module_name, name = split(reference)
    if file:
        module = load_file(file)
        if ":" not in reference:
            name = reference
    elif module_name:
        module = importlib.import_module(module_name)
    else:
        raise LoadError(f"{reference!r} names no module: write module:function, or give a file")
    if not name:
        raise LoadError(f"{reference!r} names no function")
    found: Any = module
    for part in name.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            place = getattr(module, "__file__", None) or module.__name__
            raise LoadError(f"{place} has no {name!r}{_hint(found, part)}") from None
    return found


def _hint(owner: Any, wanted: str) -> str:
    import difflib

    try:
        names = [name for name in dir(owner) if not name.startswith("_")]
    except Exception:
        return ""
    close = difflib.get_close_matches(wanted, names, n=1)
    return f"; did you mean {close[0]!r}?" if close else ""
