import email.utils
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from thalweg.almanac import IngestError, fetching, ingest, papers
from thalweg.almanac.fetching import AGENT, PAUSE_S, TRIES, Fetcher

VECTORS = Path(__file__).parents[1] / "vectors" / "almanac"
EMPTY = b'<feed xmlns="http://www.w3.org/2005/Atom"/>'


class Time:
    """A clock that sleeping moves."""

    def __init__(self):
        self.now, self.slept = 0.0, []

    def sleep(self, seconds):
        assert seconds >= 0
        self.slept.append(seconds)
        self.now += seconds

    def fetcher(self):
        return Fetcher(sleep=self.sleep, clock=lambda: self.now, timeout_s=10)


@pytest.fixture
def server():
    """Answers with what is in ``answers``: (status, headers, body), the last one for ever."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.asked.append((self.path, self.headers["User-Agent"]))
            answers = self.server.answers
            answer = answers.pop(0) if len(answers) > 1 else answers[0]
            status, headers, body = answer(self.path) if callable(answer) else answer
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request, client_address):
            pass  # a client that has read enough hangs up

    with Server(("127.0.0.1", 0), Handler) as running:
        running.answers, running.asked = [(200, {}, EMPTY)], []
        running.url = f"http://127.0.0.1:{running.server_address[1]}"
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def test_by_name_and_three_seconds_apart(server):
    clock = Time()
    fetcher = clock.fetcher()
    assert fetcher.get(server.url) == EMPTY and clock.slept == []
    fetcher.get(server.url)
    assert PAUSE_S <= clock.slept[0] <= PAUSE_S + 1
    assert {agent for _, agent in server.asked} == {AGENT} and AGENT.startswith("thalweg/")


def test_a_busy_server_is_asked_less_and_less(server):
    clock = Time()
    server.answers = [
        (503, {}, b""),
        (429, {}, b""),
        (200, {}, b"Rate exceeded."),
        (200, {}, EMPTY),
    ]
    assert clock.fetcher().get(server.url) == EMPTY
    assert len(server.asked) == 4
    assert [s for s in clock.slept if s in (3.0, 6.0, 12.0)] == [3.0, 6.0, 12.0]


def test_it_waits_as_long_as_it_is_asked_to(server):
    clock = Time()
    until = email.utils.formatdate(time.time() + 100, usegmt=True)
    server.answers = [
        (503, {"Retry-After": "77"}, b""),
        (429, {"Retry-After": until}, b""),
        (200, {}, EMPTY),
    ]
    clock.fetcher().get(server.url)
    assert 77.0 in clock.slept and any(90 < s <= 100 for s in clock.slept)
    server.answers = [(503, {"Retry-After": "9999"}, b"")]
    with pytest.raises(IngestError, match="asks to come back in 9999 s"):
        clock.fetcher().get(server.url)


def test_it_gives_up(server):
    server.answers = [(503, {}, b"")]
    with pytest.raises(IngestError, match=f"answers 503, {TRIES} times"):
        Time().fetcher().get(server.url)
    assert len(server.asked) == TRIES
    server.answers = [(404, {}, b"")]
    with pytest.raises(IngestError, match="answers 404"):
        Time().fetcher().get(server.url)
    assert len(server.asked) == TRIES + 1
    with pytest.raises(IngestError, match="no answer"):
        Time().fetcher().get("http://127.0.0.1:1/")


def test_what_is_too_large_is_not_read_to_its_end(server, monkeypatch):
    monkeypatch.setattr(fetching, "LARGEST", 1000)
    server.answers = [(200, {}, b"x" * 1001)]
    with pytest.raises(IngestError, match="the most that is read"):
        Time().fetcher().get(server.url)


def test_only_the_web_and_no_redirect_out_of_it(server):
    for url in ("file:///etc/passwd", "ftp://example.org", "http:///x"):
        with pytest.raises(IngestError, match="expected an http or https address"):
            Time().fetcher().get(url)
    server.answers = [(302, {"Location": "ftp://127.0.0.1/x"}, b"")]
    with pytest.raises(IngestError, match="answers 302"):
        Time().fetcher().get(server.url)


def test_arxiv_explains_a_bad_question_in_a_feed(server):
    server.answers = [(400, {}, (VECTORS / "arxiv_error_400.xml").read_bytes())]
    with pytest.raises(IngestError, match="incorrect id format for abc"):
        ingest(f"{server.url}/api/query?id_list=abc", fetcher=Time().fetcher())


def oai(*ids, token=""):
    rows = "".join(
        f'<record><header/><metadata><arXiv xmlns="http://arxiv.org/OAI/arXiv/"><id>{i}</id>'
        f"<title>T {i}</title></arXiv></metadata></record>"
        for i in ids
    )
    return (
        '<OAI-PMH xmlns="http://www.openarchives.org/OAI/2.0/"><ListRecords>'
        f"{rows}<resumptionToken>{token}</resumptionToken></ListRecords></OAI-PMH>"
    ).encode()


def test_an_archive_is_followed_by_its_tokens(server):
    server.answers = [
        (200, {}, oai("2401.00001", token="a|1")),
        (200, {}, oai("2401.00002", token="a|2")),
        (200, {}, oai("2401.00003")),
    ]
    url = f"{server.url}/oai?verb=ListRecords&metadataPrefix=arXiv&set=cs:cs:LG"
    report = ingest(url, fetcher=Time().fetcher())
    assert report.new == 3 and not report.errors and len(papers()) == 3
    assert [path for path, _ in server.asked][1:] == [
        "/oai?verb=ListRecords&resumptionToken=a%7C1",
        "/oai?verb=ListRecords&resumptionToken=a%7C2",
    ]


def test_a_token_that_comes_back_ends_the_chain(server):
    server.answers = [(200, {}, oai("2401.00001", token="same"))]
    assert ingest(f"{server.url}/oai?verb=ListRecords", fetcher=Time().fetcher()).new == 1
    assert len(server.asked) == 2


def test_what_has_arrived_is_kept_and_it_is_said_where_to_go_on(server):
    server.answers = [(200, {}, oai("2401.00001", token="t")), (503, {}, b"")]
    report = ingest(f"{server.url}/oai?verb=ListRecords", fetcher=Time().fetcher())
    assert report.new == 1 and len(report.errors) == 1 and len(papers()) == 1
    assert report.resume.endswith("?verb=ListRecords&resumptionToken=t")
    server.answers = [(200, {}, oai("2401.00002"))]
    assert ingest(report.resume, fetcher=Time().fetcher()).new == 1


def test_pages_of_the_api_and_one_that_comes_empty_by_mistake(server, monkeypatch):
    from thalweg.almanac import pages

    monkeypatch.setattr(pages, "PAGE", 2)
    empty_once = []

    def answer(path):
        start = int(path.partition("start=")[2].partition("&")[0] or 0)
        count = int(path.partition("max_results=")[2].partition("&")[0])
        if start == 2 and not empty_once:
            empty_once.append(path)
            count = 0
        rows = "".join(
            f"<entry><id>http://arxiv.org/abs/2401.{i:05d}v1</id><title>T {i}</title></entry>"
            for i in range(start, min(start + count, 5))
        )
        return (
            200,
            {},
            '<feed xmlns="http://www.w3.org/2005/Atom" '
            'xmlns:s="http://a9.com/-/spec/opensearch/1.1/">'
            f"<s:totalResults>5</s:totalResults>{rows}</feed>".encode(),
        )

    server.answers = [answer]
    report = ingest(
        f"{server.url}/api/query?search_query=x&max_results=100", fetcher=Time().fetcher()
    )
    assert report.new == 5 and empty_once and len(server.asked) == 4
    assert ingest(f"{server.url}/api/query?max_results=3", fetcher=Time().fetcher()).skipped == 3
