"""What can go wrong between here and the Hub, each in one sentence that ends with what to do."""

from __future__ import annotations

import errno
import re
from typing import TYPE_CHECKING

from huggingface_hub import constants, errors, get_token
from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

from dehaze.errors import ModelError

if TYPE_CHECKING:
    from dehaze.weights.hub import Address

CLIENT_ERRORS: tuple[type[Exception], ...] = (HTTPError, OSError, ValueError, RuntimeError)
"""Everything the client raises on purpose. `HTTPError` is that of whichever httpx it was built on."""

_UNREACHABLE = {"TransportError", "OfflineModeIsEnabled"}
_UNCONNECTED = {"ConnectError", "ConnectTimeout", "ProxyError", "UnsupportedProtocol"}
_PERMISSION = (errno.EACCES, errno.EPERM, errno.EROFS)


def is_unreachable(error: Exception) -> bool:
    """Whether the Hub said nothing about the file, so that a copy in the cache is as good as any."""
    error = _root(error)
    status = _status(error)
    return bool(_kinds(error) & _UNREACHABLE) or status >= 500 or status == 429


def explain(error: Exception, address: Address) -> ModelError:
    """Put an exception of the client into words; `address` is what was asked for."""
    error = _root(error)
    if isinstance(error, errors.OfflineModeIsEnabled):
        return ModelError(
            f"{address} is not in the cache and HF_HUB_OFFLINE forbids fetching it",
            f"unset HF_HUB_OFFLINE and run: dehaze models pull {address}",
        )
    if isinstance(error, errors.HfHubHTTPError):
        return _answered(error, address)
    if isinstance(error, HTTPError):
        return _unanswered(error)
    if isinstance(error, OSError):
        return _on_disk(error, address)
    return ModelError(f"{address} could not be transferred: {_first_line(error)}", "try again later")


def _answered(error: errors.HfHubHTTPError, address: Address) -> ModelError:
    """The Hub answered, and the answer was no."""
    page = f"{constants.ENDPOINT}/{address.repository}"
    status = _status(error)
    if isinstance(error, errors.GatedRepoError):
        return ModelError(
            f"{address.repository} is gated: only people whom its owner lets in can fetch from it",
            f"ask for access at {page}{_then_token()}",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return ModelError(
            f"{address.repository} has no revision '{address.revision}'",
            f"see the ones it has at {page}/commits/main",
        )
    if isinstance(error, errors.EntryNotFoundError):
        return ModelError(
            f"{address.repository} has no file '{address.file}' at revision '{address.revision}'",
            f"see the ones it has at {page}/tree/{address.revision}",
        )
    if status == 401 and "Invalid credentials" in str(error):
        return ModelError(
            f"{constants.ENDPOINT} does not accept your token", "set HF_TOKEN to a valid one, or unset it"
        )
    if isinstance(error, errors.RepositoryNotFoundError) or status in (401, 404):
        return ModelError(
            f"there is no repository {address.repository} at {constants.ENDPOINT}, or it is private",
            f"check the spelling; if it is private{_then_token()}",
        )
    if status == 403:
        return ModelError(
            f"{constants.ENDPOINT} does not let you into {address.repository}: {_first_line(error)}",
            "use a token with the permission for it in HF_TOKEN",
        )
    if status == 429:
        return ModelError(
            f"{constants.ENDPOINT} refuses more requests for now",
            f"{_when(error)}; HF_TOKEN raises the limit",
        )
    return ModelError(f"{constants.ENDPOINT} failed with status {status}", "try again in a few minutes")


def _unanswered(error: Exception) -> ModelError:
    """Nothing, or not everything, came back."""
    kinds = _kinds(error)
    if kinds & _UNCONNECTED:
        return ModelError(
            f"cannot reach {constants.ENDPOINT}: {_first_line(error)}",
            "check your connection and HF_ENDPOINT; bundled models need no network: dehaze models list",
        )
    if "TimeoutException" in kinds:
        return ModelError(
            f"{constants.ENDPOINT} stopped answering",
            "try again; HF_HUB_DOWNLOAD_TIMEOUT and HF_HUB_ETAG_TIMEOUT set how many seconds to wait",
        )
    return ModelError(
        f"the connection to {constants.ENDPOINT} broke: {_first_line(error)}",
        "try again",
    )


def _on_disk(error: OSError, address: Address) -> ModelError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ModelError(
            f"no space left for {address} in {constants.HF_HUB_CACHE}",
            "free some space, or set HF_HOME to a folder on another disk",
        )
    if error.errno in _PERMISSION:
        return ModelError(
            f"cannot write to the cache {constants.HF_HUB_CACHE}: {error.strerror}",
            "set HF_HOME to a folder you can write to",
        )
    if error.errno is None:
        return ModelError(f"{address} arrived incomplete", "try again")
    return ModelError(f"{address} could not be stored: {error.strerror}", "set HF_HOME to another folder")


def _root(error: Exception) -> Exception:
    """The client wraps what happened in 'not in the cache' and 'while uploading' errors; unwrap it."""
    wrappers = (errors.LocalEntryNotFoundError, RuntimeError)
    while isinstance(error, wrappers) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    return error


def _kinds(error: Exception) -> set[str]:
    return {kind.__name__ for kind in type(error).__mro__}


def _status(error: Exception) -> int:
    return error.response.status_code if isinstance(error, errors.HfHubHTTPError) else 0


def _when(error: errors.HfHubHTTPError) -> str:
    headers = error.response.headers
    limit = re.search(r"\bt\s*=\s*(\d+)", headers.get("RateLimit", ""))
    seconds = limit[1] if limit else headers.get("Retry-After", "")
    return f"try again in {seconds} seconds" if seconds.isdigit() else "try again in a few minutes"


def _then_token() -> str:
    if get_token() is None:
        return ", then set HF_TOKEN to your token or log in with: hf auth login"
    return ", make sure that your token may read it"


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
