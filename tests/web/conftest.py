import pytest
from starlette.testclient import TestClient

from thalweg.web import create_app

BASE = "http://127.0.0.1:8000"


@pytest.fixture
def runs(tmp_path):
    folder = tmp_path / "runs"
    folder.mkdir()
    return folder


@pytest.fixture
def client(runs, tmp_path, monkeypatch):
    monkeypatch.setenv("THALWEG_DATA", str(tmp_path / "data"))
    app = create_app(runs)
    return TestClient(app, base_url=BASE, raise_server_exceptions=False)
