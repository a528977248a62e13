"""From the word on the command line to a target that can be certified.

Whatever is wrong with a vendor's class is told in one line, because whoever reads it has just
written the class.
"""

from __future__ import annotations

import difflib
import importlib
import sys
import sysconfig
import traceback
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from pydantic import BaseModel

from ..errors import InputError, StillframeError
from ..topology.yamlfile import validate
from .array_target import ArrayTarget
from .config import VendorConfig
from .hypervisor_target import HypervisorTarget
from .target import Target

GROUP = "stillframe.targets"


class Kind(NamedTuple):
    """One kind of driver: its name on the command line, the base of its targets, what they owe."""

    name: str
    base: type[Target[Any]]
    owed: tuple[str, ...]


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        kind.name: kind
        for kind in (
            Kind("array", ArrayTarget, ("connect", "units")),
            Kind("hypervisor", HypervisorTarget, ("connect", "vms")),
        )
    }
)


def target_names() -> tuple[str, ...]:
    """The names of all installed targets, in alphabetical order."""
    return tuple(sorted(_installed()))


def load_target(word: str, kind: str) -> type[Target[Any]]:
    """The class that a word names.

    Parameters
    ----------
    word:
        A name in the entry point group ``stillframe.targets``, or ``module:Class``, where the
        module may lie in the current folder.
    kind:
        ``array`` or ``hypervisor``.

    Raises
    ------
    InputError
        There is no such target, its module cannot be imported, or the class is not a target of
        this kind or lacks a method that every target has.
    """
    found = _from_module(word) if ":" in word else _from_group(word)
    wanted = KINDS[kind]
    if not isinstance(found, type):
        raise InputError(word, "", f"names {found!r}, not a class")
    for other in KINDS.values():
        if other is not wanted and issubclass(found, other.base):
            problem = f"{found.__name__} is a target for {other.name} drivers"
            raise InputError(word, "", problem, f"use `stillframe certify {other.name} {word}`")
    if not issubclass(found, wanted.base):
        problem = f"{found.__name__} is no subclass of {wanted.base.__name__}"
        raise InputError(word, "", problem, "docs/certify.md shows how to write one")
    missing = [name for name in wanted.owed if getattr(found, name) is getattr(wanted.base, name)]
    if missing:
        problem = f"{found.__name__} lacks {', '.join(missing)}"
        raise InputError(word, "", problem, "docs/certify.md shows how to write one")
    return found


def make_target(
    kind: type[Target[Any]], word: str, config: VendorConfig, folder: Path, seed: int
) -> Target[Any]:
    """A target with its settings checked.

    Raises
    ------
    InputError
        The settings are not what the class takes; file, field and value are named.
    """
    settings: Any = dict(config.settings)
    if kind.settings_model is not None:
        settings = _checked(kind.settings_model, settings, config.source)
    try:
        target = kind(settings, folder, seed)
    except StillframeError:
        raise
    except Exception as error:  # whatever a vendor's class raises has to be told in one line
        problem = f"{kind.__name__} cannot be made: {told(error)}"
        raise InputError(word, "", problem) from error
    if config.name is not None:
        target.name = config.name
    elif not target.name:
        target.name = word.rpartition(":")[2]
    return target


def _checked(model: type[BaseModel], settings: Any, source: str) -> BaseModel:
    try:
        return validate(model, settings, source)
    except InputError as error:
        field = f"settings.{error.field}" if error.field else "settings"
        raise InputError(error.source, field, error.problem, error.advice) from None


def told(error: BaseException) -> str:
    """An error of somebody else's code in one line, with the last place outside Python's own."""
    name = type(error).__name__
    what = " ".join(str(error).split())
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not _is_pythons(Path(frame.filename))]
    last = next(reversed(own or frames), None)
    place = f" ({Path(last.filename).name}, line {last.lineno})" if last else ""
    return f"{name}: {what}{place}" if what else f"{name}{place}"


def _is_pythons(file: Path) -> bool:
    return file.is_relative_to(sysconfig.get_path("stdlib")) and "site-packages" not in file.parts


def _from_group(word: str) -> Any:
    entry = _installed().get(word)
    if entry is None:
        known = target_names()
        near = difflib.get_close_matches(word, known, n=1)
        advice = f"did you mean {near[0]!r}?" if near else f"installed are {', '.join(known)}"
        raise InputError("TARGET", "", f"there is no target {word!r}", f"{advice}; or module:Class")
    return _imported(*entry.value.partition(":")[::2], word)


def _from_module(word: str) -> Any:
    module, _, name = word.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), name)):
        raise InputError("TARGET", "", f"{word!r} is not of the form module:Class")
    # As `python -m` finds it; last, so that nothing there takes the place of what is installed.
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    return _imported(module, name, word)


def _imported(module: str, name: str, word: str) -> Any:
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or module
        if module == missing or module.startswith(f"{missing}."):
            problem = f"there is no module {missing!r}"
            advice = "it is looked for among installed packages and in the current folder"
        else:
            problem, advice = f"{module} needs {missing!r}, which is not installed", ""
        raise InputError(word, "", problem, advice) from error
    except Exception as error:  # importing runs the vendor's code
        problem = f"{module} cannot be imported: {told(error)}"
        raise InputError(word, "", problem) from error
    if not hasattr(found, name):
        raise InputError(word, "", f"module {module} has no class {name!r}")
    return getattr(found, name)


def _installed() -> dict[str, EntryPoint]:
    importlib.invalidate_caches()
    return {entry.name: entry for entry in entry_points(group=GROUP)}
