"""URLs without their users, passwords, tokens and keys, for records, messages and logs."""

from __future__ import annotations

import re

HIDDEN = "***"

# Up to the last @ before the path: a password may hold one. A single slash is what is left of two
# when an address is taken for a path.
_USER_INFO = re.compile(r"(?<=\w\w:/)(/?)[^/\s\"'<>]+(?=@)")
_SECRET_QUERY = re.compile(
    r"(?<=[?&])([\w.-]*(?:token|key|secret|password|signature|credential|sig|auth)[\w.-]*=)"
    r"[^&\s#\"'<>]+",
    re.IGNORECASE,
)


def without_secrets(text: str) -> str:
    """Text whose URLs have lost their users, passwords, tokens and keys."""
    return _SECRET_QUERY.sub(rf"\g<1>{HIDDEN}", _USER_INFO.sub(rf"\g<1>{HIDDEN}", text))
