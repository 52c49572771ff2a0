"""Fetch models of the Hugging Face hub into its local cache. This module does not know what the files mean."""

import random
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.errors import ModelError
from pipeline.storage import caches

BUSY = (429, 500, 502, 503, 504)
"""Status codes of a busy hub; the request is repeated."""
PATIENCE_S = 300.0
"""How long requests to a busy hub are repeated; the window of its own rate limit."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0
"""The first pause, which doubles up to the longest one, unless the hub asks for a longer pause."""
COMMIT_CHARS = 40
"""Length of a Git commit's hash in hex."""


def fetch(name: str, revision: str, patterns: Sequence[str], is_whole: Callable[[Path], bool]) -> Path:
    """Return the folder of a snapshot, named after its commit.

    A commit costs no request if `is_whole` is true of its cached files. Requests to a busy hub are repeated.
    Raises: ModelError.
    """
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return _cached(name, revision, patterns, is_whole) or _downloaded(name, revision, patterns)
    except (HFValidationError, ValueError) as error:
        raise ModelError(f"The model {name!r} is neither a folder nor a hub id; check model.name.") from error
    except LocalEntryNotFoundError as error:
        raise ModelError(
            f"The model {name} is neither a folder here nor in the local cache, and the Hugging Face hub "
            "cannot be reached."
        ) from error
    except HfHubHTTPError as error:
        raise ModelError(
            f"The Hugging Face hub has no model {name} at revision {revision}, or denies access to it "
            "(private and gated models need HF_TOKEN)."
        ) from error
    except OSError as error:
        raise ModelError(f"The model {name} cannot be downloaded: {error.strerror or error}.") from error


def _cached(name: str, revision: str, patterns: Sequence[str], is_whole: Callable[[Path], bool]) -> Path | None:
    """Return the snapshot of a commit from any of the caches; None for a branch or a tag."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    if len(revision) != COMMIT_CHARS:  # a branch or a tag may move
        return None
    local = partial(snapshot_download, revision=revision, allow_patterns=list(patterns), local_files_only=True)
    for cache in _caches():
        try:
            found = Path(local(name, cache_dir=cache))
        except LocalEntryNotFoundError:
            continue
        if is_whole(found):
            return found
    return None


def _downloaded(name: str, revision: str, patterns: Sequence[str]) -> Path:
    """Download a snapshot. Raises: ModelError if the hub stays busy; exceptions of the hub's client."""
    from huggingface_hub import snapshot_download

    deadline, pause_s, places = time.monotonic() + PATIENCE_S, FIRST_PAUSE_S, _caches()
    fetched = partial(snapshot_download, name, revision=revision, allow_patterns=list(patterns))
    while True:
        try:
            return Path(fetched(cache_dir=places[0]))
        except OSError as error:
            answer = _answer(error)
            if answer is None and error.errno is not None and len(places) > 1:
                del places[0]
                continue
            if answer is None or answer.status_code not in BUSY:
                raise
            wait_s = max(_asked_s(answer.headers), pause_s * random.uniform(0.5, 1))  # noqa: S311 - spreads requests
            if time.monotonic() + wait_s > deadline:
                raise ModelError(
                    f"The Hugging Face hub is busy and answers requests for {name} with status "
                    f"{answer.status_code}; try again later, or set HF_TOKEN, which raises its limit."
                ) from error
        time.sleep(wait_s)
        pause_s = min(2 * pause_s, LONGEST_PAUSE_S)


def _caches() -> list[Path]:
    """Return the hub's own cache and, if that is read-only, another one among the temporary files."""
    from huggingface_hub import constants

    own = Path(constants.HF_HUB_CACHE)
    return [own] if caches.is_writable(own) else [own, caches.temporary("hub")]


def _answer(error: BaseException) -> Any:
    """Return the hub's response that an error or its cause carries; None if the hub did not answer."""
    return getattr(error, "response", None) or getattr(error.__cause__, "response", None)


def _asked_s(headers: Mapping[str, str]) -> float:
    """Return the seconds that Retry-After or the rate limit asks a client to wait; 0 if neither does."""
    from huggingface_hub.utils._http import parse_ratelimit_headers

    asked, limit = headers.get("Retry-After", ""), parse_ratelimit_headers(headers)
    if asked.isdigit():
        return float(asked)
    try:
        return (parsedate_to_datetime(asked) - datetime.now(UTC)).total_seconds()
    except (TypeError, ValueError):  # not a date either
        return float(limit.reset_in_seconds) if limit else 0.0
