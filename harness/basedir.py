# SPDX-License-Identifier: GPL-2.0-only
"""The user's directories, as the XDG Base Directory Specification has them."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from pathlib import Path

from harness.errors import UsageError


def base_directory(variable: str, below_home: str, environment: Mapping[str, str] = os.environ) -> Path:
    """What `variable` names, or `below_home` if it is empty. Raises UsageError for a relative path."""
    configured = environment.get(variable, "")
    if not configured:
        return Path(environment.get("HOME") or pwd.getpwuid(os.getuid()).pw_dir) / below_home
    if not Path(configured).is_absolute():
        raise UsageError(
            f"{variable} is a relative path: {configured!r}", hint="set it to an absolute path, or unset it"
        )
    return Path(configured)
