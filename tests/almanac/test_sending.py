"""Against a real SMTP server on loopback: what it got, and what it was not given."""

import email
import email.policy
import json
import socketserver
import threading

import pytest

from thalweg.almanac import digest, ingest, sending
from thalweg.almanac.sending import Sent, send, unsent
from thalweg.errors import ThalwegError


class Handler(socketserver.StreamRequestHandler):
    """RFC 5321 as far as one mail needs it."""

    def say(self, line):
        self.wfile.write(f"{line}\r\n".encode())

    def handle(self):
        server = self.server
        self.say("220 loopback ESMTP")
        mail, recipients = "", []
        while line := self.rfile.readline().decode().rstrip("\r\n"):
            verb = line.split(":")[0].split()[0].upper()
            server.said.append(line)
            if verb in server.refuse:
                self.say("550 not here")
            elif verb == "EHLO":
                self.say("250-loopback")
                if server.offers_tls:
                    self.say("250-STARTTLS")
                self.say("250 8BITMIME")
            elif verb == "STARTTLS":
                self.say("220 go on")
                self.wfile.write(b"this is no handshake" * 20)
                return
            elif verb == "MAIL":
                mail, recipients = line.split("<")[1].split(">")[0], []
                self.say("250 ok")
            elif verb == "RCPT":
                recipients.append(line.split("<")[1].split(">")[0])
                self.say("250 ok")
            elif verb == "DATA":
                self.say("354 go on")
                lines = []
                while (row := self.rfile.readline()) != b".\r\n":
                    if not row:
                        return
                    lines.append(row.removeprefix(b".") if row.startswith(b"..") else row)
                server.mails.append((mail, recipients, b"".join(lines)))
                if server.hang_up:
                    return
                self.say("451 later" if server.later else "250 ok")
            elif verb == "QUIT":
                self.say("221 bye")
                return
            else:
                self.say("250 ok")


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True

    def handle_error(self, request, client_address):
        pass


@pytest.fixture
def smtp():
    with Server(("127.0.0.1", 0), Handler) as server:
        server.mails, server.said, server.refuse = [], [], set()
        server.hang_up = server.later = server.offers_tls = False
        server.address = f"127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def week(tmp_path):
    def add(*numbers):
        rows = [
            {"id": f"2401.{n:05d}", "title": f"Päper {n}", "publishedAt": "2024-01-02",
             "summary": ".\n.. dots"}
            for n in numbers
        ]  # fmt: skip
        (tmp_path / "p.json").write_text(json.dumps(rows))
        ingest(tmp_path / "p.json")
        return digest("2024-W01")

    return add


def test_what_is_sent_arrives_whole(smtp, week):
    made = week(1, 2)
    sent = send(made, "ada@example.org", smtp.address, sender="thalweg@example.org")
    assert sent == Sent(len(made.keys), 0) and len(smtp.mails) == 1
    mail_from, to, data = smtp.mails[0]
    assert (mail_from, to) == ("thalweg@example.org", ["ada@example.org"])
    mail = email.message_from_bytes(data, policy=email.policy.default)
    assert (mail["From"], mail["To"]) == ("thalweg@example.org", "ada@example.org")
    assert mail["Date"].datetime.tzinfo and mail["Message-ID"].endswith("@thalweg.invalid>")
    assert mail.get_body(("plain",)).get_content().replace("\r\n", "\n") == made.text
    assert not mail.defects


def test_never_the_same_item_twice(smtp, week):
    made = week(1)
    send(made, "ada@example.org", smtp.address)
    assert send(made, "ada@example.org", smtp.address) == Sent(0, len(made.keys))
    assert len(smtp.mails) == 1  # nothing new, no mail
    later = week(1, 2)
    assert send(later, "ada@example.org", smtp.address) == Sent(1, len(made.keys))
    text = email.message_from_bytes(smtp.mails[1][2], policy=email.policy.default)
    body = text.get_body(("plain",)).get_content()
    assert "Päper 2" in body and "Päper 1" not in body
    # Another period that holds the same papers sends none of them again.
    month = send(digest("2024-01"), "ada@example.org", smtp.address)
    assert month.before >= 2
    assert send(later, "bo@example.org", smtp.address).before == 0  # to each address for itself
    assert send(later, "ada@example.org", smtp.address, again=True).items == len(later.keys)


@pytest.mark.parametrize("verb", ["MAIL", "RCPT", "DATA"])
def test_what_a_server_refuses_is_sent_next_time(smtp, week, verb):
    made = week(1)
    smtp.refuse = {verb}
    with pytest.raises(ThalwegError, match="refuses the mail"):
        send(made, "ada@example.org", smtp.address)
    assert unsent(made, "ada@example.org").keys == made.keys and smtp.mails == []
    smtp.refuse = set()
    assert send(made, "ada@example.org", smtp.address).items == len(made.keys)


def test_a_server_that_is_busy_after_the_data(smtp, week):
    made = week(1)
    smtp.later = True
    with pytest.raises(ThalwegError, match="refuses the mail"):
        send(made, "ada@example.org", smtp.address)
    assert unsent(made, "ada@example.org").keys == made.keys


def test_a_server_that_breaks_off_is_not_sent_the_same_again(smtp, week):
    made = week(1)
    smtp.hang_up = True
    with pytest.raises(ThalwegError, match="may have arrived or not"):
        send(made, "ada@example.org", smtp.address)
    smtp.hang_up = False
    assert send(made, "ada@example.org", smtp.address).items == 0
    assert len(smtp.mails) == 1


def test_two_at_once_send_one_mail(smtp, week, monkeypatch):
    made = week(1)
    real = sending._connected

    def slow(host, port):
        monkeypatch.setattr(sending, "_connected", real)
        send(made, "ada@example.org", smtp.address)
        return real(host, port)

    monkeypatch.setattr(sending, "_connected", slow)
    with pytest.raises(ThalwegError, match="another process is sending"):
        send(made, "ada@example.org", smtp.address)
    assert len(smtp.mails) == 1


def test_tls_that_fails_is_no_reason_to_go_on_without(smtp, week):
    smtp.offers_tls = True
    made = week(1)
    with pytest.raises(ThalwegError, match="no mail can be sent"):
        send(made, "ada@example.org", smtp.address)
    assert smtp.said[-1].upper() == "STARTTLS" and smtp.mails == []
    assert unsent(made, "ada@example.org").keys == made.keys


def test_no_password_without_tls(smtp, week, monkeypatch):
    monkeypatch.setenv("THALWEG_SMTP_USER", "ada")
    monkeypatch.setenv("THALWEG_SMTP_PASSWORD", "secret")
    made = week(1)
    with pytest.raises(ThalwegError, match="a password is not sent without"):
        send(made, "ada@example.org", smtp.address)
    assert not any("AUTH" in line for line in smtp.said) and smtp.mails == []


@pytest.mark.parametrize(
    ("to", "server", "said"),
    [
        ("ada", "127.0.0.1:25", "expected one mail address"),
        ("a@b.org, c@d.org", "127.0.0.1:25", "expected one mail address"),
        ("a@b.org\nBcc: c@d.org", "127.0.0.1:25", "expected one mail address"),
        ("a@b.org", "127.0.0.1:x", "expected the mail server as HOST:PORT"),
        ("a@b.org", ":25", "expected the mail server as HOST:PORT"),
        ("a@b.org", "127.0.0.1:1", "no mail can be sent"),
    ],
)
def test_doors(week, to, server, said):
    made = week(1)
    with pytest.raises(ThalwegError, match=said):
        send(made, to, server)
    assert unsent(made, to).keys == made.keys
