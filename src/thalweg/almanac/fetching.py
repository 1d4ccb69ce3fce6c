"""Documents from the web, slowly and by name: three seconds apart, longer when asked to wait.

Nothing is fetched but what was asked for and its further pages. Source: arXiv API terms of use
(2026), one request in three seconds; RFC 9110 (2022) for Retry-After.
"""

from __future__ import annotations

import datetime
import email.utils
import http.client
import random
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import thalweg
from thalweg.almanac.paper import IngestError

__all__ = ["LARGEST", "Fetcher", "is_url"]

LARGEST = 20 * 2**20  #: bytes of one document
PAUSE_S = 3.0  #: between two requests
TRIES = 5
LONGEST_WAIT_S = 600.0  #: that a server may ask for; beyond it, one had better come back
AGENT = f"thalweg/{thalweg.__version__} (almanac; +https://github.com/thalweg/thalweg)"
_LATER = {429, 500, 502, 503, 504}


def is_url(source: str) -> bool:
    """Whether it names something on the web, and not a file."""
    return source.startswith(("http://", "https://"))


class _OnlyWeb(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http and https only; the standard one takes ftp too."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):  # type: ignore[no-untyped-def]
        """Refuses other schemes."""
        if urlsplit(newurl).scheme not in ("http", "https"):
            raise urllib.error.HTTPError(newurl, code, "redirect to no web page", headers, fp)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@dataclass
class Fetcher:
    """Fetches one document after the other.

    Attributes:
        sleep: waits some seconds; tests put their own.
        clock: seconds.
        timeout_s: of one request.
        last: when the last request ended, by ``clock``.
    """

    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    timeout_s: float = 60.0
    last: float | None = field(default=None, init=False)

    def get(self, url: str) -> bytes:
        """The document at a URL.

        Args:
            url: http or https.

        Raises:
            IngestError: if there is none, it is too large, or the server stays busy.
        """
        if not is_url(url) or not urlsplit(url).hostname:
            raise IngestError(url, "expected an http or https address")
        why = ""
        for attempt in range(TRIES):
            self._pause()
            try:
                body = self._once(url)
                if body.strip() == b"Rate exceeded.":  # arXiv says so with any status
                    why, wait = "the server says: Rate exceeded.", None
                else:
                    return body
            except urllib.error.HTTPError as error:
                with error:
                    why, wait = f"the server answers {error.code}", _retry_after(error)
                    if error.code == 400:  # arXiv explains it in a feed
                        return self._read(error, url)
                    if error.code not in _LATER:
                        raise IngestError(url, why) from None
            except (OSError, http.client.HTTPException, ValueError) as error:
                why, wait = f"no answer: {error}", None
            finally:
                self.last = self.clock()
            if wait is not None and wait > LONGEST_WAIT_S:
                raise IngestError(url, f"{why} and asks to come back in {wait:.0f} s")
            if attempt < TRIES - 1:
                self.sleep(max(wait or 0.0, PAUSE_S * 2**attempt))
        raise IngestError(url, f"{why}, {TRIES} times; try again later")

    def _pause(self) -> None:
        if self.last is not None:
            since = self.clock() - self.last
            jitter = random.uniform(0.0, 1.0)
            if since < PAUSE_S + jitter:
                self.sleep(PAUSE_S + jitter - since)

    def _once(self, url: str) -> bytes:
        request = urllib.request.Request(url, headers={"User-Agent": AGENT})
        opener = urllib.request.build_opener(_OnlyWeb)
        with opener.open(request, timeout=self.timeout_s) as answer:
            return self._read(answer, url)

    def _read(self, answer, url: str) -> bytes:  # type: ignore[no-untyped-def]
        body = answer.read(LARGEST + 1)
        if len(body) > LARGEST:
            raise IngestError(url, f"is larger than {LARGEST // 2**20} MB, the most that is read")
        return body


def _retry_after(error: urllib.error.HTTPError) -> float | None:
    """Seconds that the server asks to wait: a number, or a date."""
    said = (error.headers.get("Retry-After") or "").strip()
    if said.isascii() and said.isdigit():
        return float(said)
    try:
        until = email.utils.parsedate_to_datetime(said)
    except (ValueError, TypeError):
        return None
    if until.tzinfo is None:
        until = until.replace(tzinfo=datetime.UTC)
    return max((until - datetime.datetime.now(datetime.UTC)).total_seconds(), 0.0)
