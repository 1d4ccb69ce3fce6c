"""A digest sent by mail, no item twice to the same address.

What is about to be sent is noted before the server is given it, and the note is taken back when the
server refuses it. Should the connection break in between, it is not known whether the mail has
arrived: then the note stays, for no item may come twice, and the error says so.

Source: J. Klensin 2008, RFC 5321 (SMTP); the project's almanac (2026).
"""

from __future__ import annotations

import contextlib
import datetime
import email.utils
import os
import re
import smtplib
import ssl
from collections.abc import Iterator
from dataclasses import dataclass

from thalweg.almanac.bulletin import Digest
from thalweg.almanac.bulletin_pages import as_message
from thalweg.almanac.store import open_store, transaction
from thalweg.errors import ThalwegError

__all__ = ["Sent", "send", "unsent"]

_ADDRESS = re.compile(r"[^\s@<>\"(),;:\\]+@[A-Za-z0-9.-]+")
TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Sent:
    """What came of sending.

    Attributes:
        items: how many items the mail had; 0 if there was nothing new and no mail was sent.
        before: how many of the period had been sent to this address before.
    """

    items: int
    before: int


def unsent(digest: Digest, recipient: str) -> Digest:
    """The digest without what was sent to an address before."""
    with open_store() as connection:
        rows = connection.execute("SELECT item FROM sent WHERE recipient = ?", (recipient,))
        return digest.without({item for (item,) in rows})


def send(
    digest: Digest, recipient: str, smtp: str, *, sender: str = "", again: bool = False
) -> Sent:
    """Send what is new in a digest.

    With STARTTLS where the server offers it. ``THALWEG_SMTP_USER`` and ``THALWEG_SMTP_PASSWORD``
    log in, over TLS only.

    Args:
        digest: of a period.
        recipient: one address.
        smtp: the server, ``HOST:PORT`` or ``HOST`` (port 25).
        sender: an address; the recipient's own by default.
        again: also what was sent before.

    Raises:
        ThalwegError: for an address that is none, or a server that cannot be reached, refuses the
            mail or breaks off.
    """
    for address in filter(None, (recipient, sender)):
        if not _ADDRESS.fullmatch(address):
            raise ThalwegError(f"expected one mail address as name@host, got {address!r}")
    host, port = _server(smtp)
    fresh = digest if again else unsent(digest, recipient)
    before = len(digest.keys) - len(fresh.keys)
    if not fresh.keys:
        return Sent(0, before)
    message = as_message(fresh, sender or recipient, recipient)
    message["Date"] = email.utils.format_datetime(datetime.datetime.now(datetime.UTC))
    message["Message-ID"] = email.utils.make_msgid(domain="thalweg.invalid")
    try:
        with _session(host, port) as server:
            noted = _note(recipient, fresh.keys, again)
            if noted is None:
                raise ThalwegError(
                    f"another process is sending to {recipient}; nothing was sent by this one"
                )
            try:
                server.send_message(message)
            except smtplib.SMTPServerDisconnected as error:
                raise ThalwegError(
                    f"{smtp} broke off: {error}. The mail may have arrived or not; its items will "
                    "not be sent again by themselves. To send them again: --again"
                ) from None
            except (smtplib.SMTPException, ValueError) as error:
                _take_back(recipient, noted)
                raise ThalwegError(f"{smtp} refuses the mail: {error}") from None
    except (OSError, smtplib.SMTPException) as error:
        raise ThalwegError(f"{smtp}: no mail can be sent: {error}") from None
    return Sent(len(fresh.keys), before)


def _server(smtp: str) -> tuple[str, int]:
    host, _, port = smtp.rpartition(":") if ":" in smtp else (smtp, "", "25")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdigit() or not 0 < int(port) < 65536 or re.search(r"\s", host):
        raise ThalwegError(f"expected the mail server as HOST:PORT, got {smtp!r}")
    return host, int(port)


@contextlib.contextmanager
def _session(host: str, port: int) -> Iterator[smtplib.SMTP]:
    """A connection; how it ends is of no account, for the mail was taken or refused before."""
    server = _connected(host, port)
    try:
        yield server
    finally:
        with contextlib.suppress(OSError, smtplib.SMTPException):
            server.quit()
        server.close()


def _connected(host: str, port: int) -> smtplib.SMTP:
    server = smtplib.SMTP(host, port, timeout=TIMEOUT_S)
    try:
        server.ehlo()
        safe = server.has_extn("starttls")
        if safe:
            server.starttls(context=ssl.create_default_context())
            server.ehlo()
        user, password = (os.environ.get(f"THALWEG_SMTP_{n}") for n in ("USER", "PASSWORD"))
        if user and password:
            if not safe:
                raise ThalwegError(f"{host}:{port} offers no TLS; a password is not sent without")
            server.login(user, password)
    except BaseException:
        server.close()
        raise
    return server


def _note(recipient: str, keys: tuple[str, ...], again: bool) -> list[str] | None:
    """Notes items as sent; those that are new, or None if another has noted one meanwhile."""
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    with open_store() as connection, transaction(connection):
        there = connection.execute("SELECT item FROM sent WHERE recipient = ?", (recipient,))
        known = {item for (item,) in there}
        if not again and known & set(keys):
            return None
        new = [key for key in keys if key not in known]
        rows = ((recipient, key, now) for key in new)
        connection.executemany("INSERT INTO sent VALUES (?, ?, ?)", rows)
    return new


def _take_back(recipient: str, keys: list[str]) -> None:
    with open_store() as connection, transaction(connection):
        rows = ((recipient, key) for key in keys)
        connection.executemany("DELETE FROM sent WHERE recipient = ? AND item = ?", rows)
