"""Each guard, by what happens without it."""

import socket

import pytest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from thalweg.cli.web import listen
from thalweg.web.guard import MAX_FORM, MAX_URL, Guard, Token, is_loopback, read_form


async def _form(request: Request) -> PlainTextResponse:
    return PlainTextResponse(str(await read_form(request)))


async def _socket(websocket):
    await websocket.accept()


def _client(host="127.0.0.1", base="http://127.0.0.1:8000"):
    routes = [
        Route("/", lambda request: PlainTextResponse("read")),
        Route("/form", _form, methods=["POST"]),
        WebSocketRoute("/socket", _socket),
    ]
    return TestClient(Guard(Starlette(routes=routes), host), base_url=base)


@pytest.mark.parametrize("host", ["127.0.0.1:8000", "localhost:1", "LOCALHOST", "[::1]:8000"])
def test_names_of_this_machine_are_let_in(host):
    assert _client().get("/", headers={"host": host}).text == "read"


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "10.0.0.1", "", "[::2]"]
)
def test_a_name_bound_to_this_machine_by_a_stranger_is_refused(host):
    said = _client().get("/", headers={"host": host})
    assert said.status_code == 421 and "read" not in said.text


def test_two_hosts_are_none():
    hosts = [("host", "127.0.0.1:8000"), ("host", "evil.example")]
    scope = {"type": "http", "scheme": "http", "method": "GET", "path": "/", "query_string": b"",
             "headers": [(name.encode(), value.encode()) for name, value in hosts]}  # fmt: skip
    assert Guard(Starlette())._refused(scope)[0] == 421
    assert Guard(Starlette())._refused({**scope, "headers": scope["headers"][:1]}) is None


def test_beyond_loopback_addresses_are_let_in_and_names_are_not():
    client = _client(host="0.0.0.0")
    assert client.get("/", headers={"host": "192.168.1.7:8000"}).status_code == 200
    assert client.get("/", headers={"host": "evil.example"}).status_code == 421
    assert _client(host="box.lan").get("/", headers={"host": "box.lan:80"}).status_code == 200


@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "http://127.0.0.1:9", "https://127.0.0.1:8000"]
)
def test_requests_from_other_pages_are_refused(method, origin):
    path = "/" if method == "get" else "/form"
    said = getattr(_client(), method)(path, headers={"origin": origin})
    assert said.status_code == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_foreign_pages_may_lead_here_but_embed_nothing(site):
    embedded = {"sec-fetch-site": site, "sec-fetch-mode": "no-cors"}
    assert _client().get("/", headers=embedded).status_code == 403
    followed = {"sec-fetch-site": site, "sec-fetch-mode": "navigate"}
    assert _client().get("/", headers=followed).status_code == 200
    ours = {"sec-fetch-site": "same-origin", "sec-fetch-mode": "cors"}
    assert _client().get("/", headers=ours).status_code == 200


def test_the_page_itself_may_ask():
    form = {"data": {"a": "1"}, "headers": {"origin": "http://127.0.0.1:8000"}}
    assert _client().post("/form", **form).text == "{'a': '1'}"


def test_every_answer_forbids_foreign_scripts_and_frames():
    for path in ("/", "/nothing"):
        headers = _client().get(path).headers
        policy = headers["content-security-policy"].split("; ")
        assert sorted(policy) == [
            "base-uri 'none'", "connect-src 'self'", "default-src 'none'", "form-action 'self'",
            "frame-ancestors 'none'", "img-src 'self'", "script-src 'self'", "style-src 'self'",
        ]  # fmt: skip
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        for name in (
            "referrer-policy",
            "cross-origin-resource-policy",
            "cross-origin-opener-policy",
        ):
            assert headers[name] == "same-origin"
        assert "access-control-allow-origin" not in headers


def test_long_addresses_and_forms_are_refused():
    assert _client().get("/?q=" + "a" * MAX_URL).status_code == 414
    assert _client().post("/form", data={"a": "b" * MAX_FORM}).status_code == 413
    assert _client().post("/form", data={f"a{i}": "" for i in range(99)}).status_code == 400
    assert _client().post("/form", json={"a": 1}).status_code == 415
    assert _client().post("/form", data={"a": "b" * 1000}).status_code == 200


def test_nothing_speaks_websocket():
    let_in = False
    with pytest.raises(WebSocketDisconnect) as refused, _client().websocket_connect("/socket"):
        let_in = True
    assert refused.value.code == 1008 and not let_in


def test_a_token_is_asked_for():
    ours, theirs = Token(), Token()
    ours.check({"token": ours.value})
    for form in ({}, {"token": ""}, {"token": theirs.value}, {"token": "é"}):
        with pytest.raises(HTTPException) as refused:
            ours.check(form)
        assert refused.value.status_code == 403


def test_loopback():
    assert all(map(is_loopback, ("127.0.0.1", "127.9.9.9", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.1", "example.org", "")))


def test_an_occupied_port_is_an_error_not_a_crash(capsys):
    from thalweg.cli import main

    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["web", "--port", str(taken.getsockname()[1])]) == 2
    assert "--port 0" in capsys.readouterr().err


def test_answers_do_not_wait_for_acknowledgements():
    with (
        listen("127.0.0.1", 0) as listening,
        socket.create_connection(listening.getsockname()) as c,
    ):
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.proto == socket.IPPROTO_TCP and c.fileno() > 0
