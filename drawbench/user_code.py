"""Code of the user's own, named ``module:factory``: a model or a data set.

A name on the command line is the user's word that the module may be imported. A name in a file (a
run folder, a recipe, a study) is not: such a module is imported only if the user names it too
(``--trust``).
"""

import contextlib
import importlib
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from drawbench.errors import Problem


@contextlib.contextmanager
def blamed(what: str) -> Iterator[None]:
    """Turn what the user's code raises into a `Problem` that names ``what`` and the exception."""
    try:
        yield
    except Problem:
        raise
    except (Exception, SystemExit) as error:
        text = " ".join(str(error).split())[:500]
        told = f"{what} raised {type(error).__name__}" + (f": {text}" if text else "")
        raise Problem(f"{told} (--debug shows where)") from error


def check_trusted(name: str, trusted: Collection[str]) -> None:
    """Raise `Problem` unless ``module:factory``, or its module, is among the trusted names."""
    module = name.partition(":")[0]
    if name not in trusted and module not in trusted:
        raise Problem(
            f"this needs {name}, a module of the user's own, which is imported only if you name "
            f"it: add --trust {module} if you know what is in it"
        )


def factory(name: str, trusted: Collection[str]) -> Any:
    """Return the function or class that ``module:factory`` names; the working folder is searched.

    Raises:
        Problem: the name is malformed or not trusted, or there is nothing callable of that name.
    """
    module_name, _, attribute = name.partition(":")
    parts = [*module_name.split("."), attribute]
    if not all(part.isidentifier() for part in parts):
        raise Problem(f"expected module:factory, such as mymodel:network, got {name!r}")
    check_trusted(name, trusted)
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or ""
        if module_name == missing or module_name.startswith(f"{missing}."):
            raise Problem(
                f"there is no module {module_name!r} in {Path.cwd()} or on Python's path; "
                "give its dotted name, without .py"
            ) from error
        raise Problem(f"module {module_name} cannot be imported: {error}") from error
    except (Exception, SystemExit) as error:
        raise Problem(
            f"module {module_name} cannot be imported: it raised {type(error).__name__}: "
            f"{' '.join(str(error).split())[:500]}"
        ) from error
    if not callable(getattr(module, attribute, None)):
        raise Problem(
            f"module {module_name} has no function or class {attribute!r}; "
            "name the one that makes the model or the data set"
        )
    return getattr(module, attribute)
