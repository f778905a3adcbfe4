"""URLs without their users, passwords, tokens and keys, for records, messages and logs."""

from __future__ import annotations

import re

HIDDEN = "***"

# Up to the last @ before the path: a password may hold one
_USER_INFO = re.compile(r"(?<=://)[^/\s\"'<>]+(?=@)")
_SECRET_QUERY = re.compile(
    r"(?<=[?&])([\w.-]*(?:token|key|secret|password|signature|credential|sig|auth)[\w.-]*=)"
    r"[^&\s#\"'<>]+",
    re.IGNORECASE,
)


def without_secrets(text: str) -> str:
    """Text whose URLs have lost their users, passwords, tokens and keys."""
    return _SECRET_QUERY.sub(rf"\g<1>{HIDDEN}", _USER_INFO.sub(HIDDEN, text))
