"""What goes wrong with a cloud's storage, said alike whichever library met it, and the same each time."""

from __future__ import annotations

import re
from typing import Final

from workledger.errors import ConfigurationError, Unavailable, WorkledgerError

__all__ = ["CREDENTIALS", "cloud_error", "refused", "wrong"]

#: The variables that hold the credentials for the scheme of a URL.
CREDENTIALS: Final = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gs": "GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
_REFUSED: Final = re.compile(
    "ExpiredToken|InvalidToken|TokenRefreshRequired|InvalidAccessKeyId|SignatureDoesNotMatch|AuthFailure"
    "|AccessDenied|ACCESS_DENIED|403 Forbidden|401 Unauthorized|invalid_grant"
)
_UNKNOWN: Final = re.compile("169[.]254[.]169[.]254|metadata[.]google[.]internal")
_CODE: Final = re.compile(r"<Code>(\w+)</Code>|status code: (\d+)|AWS Error (?!UNKNOWN)(\w+)")
#: Conflict, too many requests, and the like: asked for at the wrong moment, not for the wrong thing.
_LATER: Final = ("408", "409", "425", "429")


def cloud_error(error: Exception, *, name: str) -> WorkledgerError:
    """Give our error for one of a storage library about the store of that name.

    Without what differs from one request to the next, so that whoever logs it can say it once.
    """
    text = str(error)
    if _UNKNOWN.search(text):
        return wrong(f"{name}: there are no credentials; set {_credentials(name)}", name=name)
    if _REFUSED.search(text):
        return refused(error, name=name)
    reason = _reason(text)
    if (reason.startswith("4") and not reason.startswith(_LATER)) or isinstance(error, ValueError):
        return wrong(f"{name} refuses what it is asked: {reason}", name=name)
    reason = f"{name} cannot be reached: {reason}"
    return Unavailable(f"{reason}. What is landed is safe; landing goes on later", reason=reason)


def refused(error: Exception, *, name: str) -> ConfigurationError:
    """Give the error for credentials that do not do."""
    return wrong(
        f"{name}: the credentials are refused ({_reason(str(error))}); renew {_credentials(name)}, "
        "and see that they may list, read, write and delete there",
        name=name,
    )


def wrong(message: str, *, name: str) -> ConfigurationError:
    """Give the error for what trying again does not mend."""
    return ConfigurationError(message, setting="WORKLEDGER_TRAINING_URL", value=name)


def _credentials(name: str) -> str:
    return CREDENTIALS.get(name.partition("://")[0].rpartition("+")[2], "the credentials")


def _reason(text: str) -> str:
    """Give the store's own word for it, if it has one."""
    named = [next(filter(None, one.groups())) for one in _CODE.finditer(text)]
    if named:
        return " ".join(dict.fromkeys(named))
    return text.strip().partition("\n")[0].rpartition(": ")[2][:200] or "no reason given"
