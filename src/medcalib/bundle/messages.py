"""Say in one sentence what kept a bundle from running, whatever it was wrapped in on the way."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medcalib.bundle.fragments import walk
from medcalib.errors import UserError, environment_message

__all__ = ["component_message", "user_message"]

_FAILED = re.compile(r"Failed to instantiate component '([^']+)' with keywords: ([^\n]*)")
_LISTED = 2


def user_message(error: BaseException, folder: Path | None = None) -> str | None:
    """The message of a user error that another exception wraps, also one that came from a worker process.

    Args:
        error: the exception.
        folder: where results are being written; for errors of the disk that do not name a file.
    """
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, UserError):
            return str(cause)
        # a worker process hands over its traceback as a text
        if lines := re.findall(r"medcalib\.errors\.UserError: (.*)", str(cause)):
            return lines[-1]
        cause = cause.__cause__ or cause.__context__
    return environment_message(error, folder)


def component_message(error: BaseException, config: Mapping[str, Any]) -> str | None:
    """One sentence on a component that does not take its values, None if that is not what an error is about.

    Args:
        error: what MONAI raised while it made the objects of a configuration.
        config: the merged configuration, in which the component is looked for.

    Example:
        >>> from monai.bundle import ConfigParser
        >>> try:
        ...     ConfigParser({"net": {"_target_": "torch.nn.Dropout", "p": 3}}).get_parsed_content("net")
        ... except RuntimeError as error:
        ...     print(component_message(error, {"net": {"_target_": "torch.nn.Dropout", "p": 3}}))
        net (torch.nn.Dropout) does not take its values p: dropout probability has to be between 0 and 1, but got 3; \
correct them.
    """
    found: BaseException | None = error
    innermost = None
    while found is not None:
        match = _FAILED.match(str(found))
        if match and isinstance(found.__cause__, ValueError | TypeError | ArithmeticError | LookupError):
            innermost = match, found.__cause__
        found = found.__cause__
    if innermost is None:
        return None
    (target, names), cause = innermost[0].groups(), innermost[1]
    ids = [id_.rpartition("::")[0] for id_, value in walk(config) if value == target and id_.endswith("::_target_")]
    reason = " ".join(str(cause).split()).removesuffix(".") or type(cause).__name__
    where = " or ".join(ids[:_LISTED]) or "a component"
    return f"{where} ({target}) does not take its values {names.replace(',', ', ')}: {reason}; correct them."
