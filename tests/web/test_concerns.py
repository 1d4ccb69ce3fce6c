"""Papers beside what the runs show: on digests, in search, on the page of a diagnosis."""

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from thalweg.almanac import ingest, papers
from thalweg.almanac.kept_diagnoses import keep_diagnosis, kept_diagnosis
from thalweg.web import concerns

EVIL = "<img src=x onerror=alert(1)>"
TITLE = "Spike-aware Adam stabilizes low-precision training of language models"
ABSTRACT = (
    "StableSPAM: adaptive spike-aware clipping of gradient spikes stabilizes Adam in four-bit "
    "training of language models, where the gradient norm of low-precision training is unstable."
)


def finding(symptom="spikes"):
    code = "`thalweg.optim.StableSPAM`"
    return SimpleNamespace(rule="gradient_spikes", symptom=symptom, entry="relex", treatment=code)


@pytest.fixture
def planted(client, runs, plant, tmp_path, monkeypatch):
    monkeypatch.setattr(concerns, "STILL_S", 0.0)
    plant(runs / "spiky", {("loss", ""): np.ones(40)})
    plant(runs / "quiet", {("loss", ""): np.ones(40)})
    listed = [
        {"id": "2401.00001", "title": TITLE, "summary": ABSTRACT, "publishedAt": "2024-01-02"},
        {"id": "2401.00002", "title": "Bicycle lanes", "publishedAt": "2024-01-02"},
    ]
    (tmp_path / "papers.json").write_text(json.dumps(listed))
    ingest(tmp_path / "papers.json")
    assert "stable-spam" in [n.slug for n in papers()[1].near]  # what the tests rest on
    keep_diagnosis(runs / "spiky", [finding()], "x")
    return runs


SERVER = """
import sys
from starlette.testclient import TestClient
from thalweg.web import create_app
client = TestClient(create_app(sys.argv[1]), base_url="http://127.0.0.1:8000")
for path in ("/digest/2024-W01", "/search?q=adam+training", "/api/digest/2024-W01.json"):
    assert "your run spiky shows spikes" in client.get(path).text, path
assert not {"torch", "thalweg.doctor.examination"} & set(sys.modules)
"""
SAID = "your run spiky shows spikes; this paper is near stable-spam, which treats it"


def test_a_digest_says_which_run_a_paper_concerns(client, planted):
    data = client.get("/api/digest/2024-W01.json").json()["data"]
    assert data["concerns"] == {"arxiv:2401.00001": SAID} and data["undiagnosed"] == ["quiet"]
    page = client.get("/digest/2024-W01").text
    assert SAID in page and "thalweg doctor" in page and 'href="/runs/quiet/diagnosis"' in page
    assert "your run spiky shows spikes" in " ".join(
        client.get("/digest/2024-W01.txt").text.split()
    )
    keep_diagnosis(planted / "quiet", [], "x")
    keep_diagnosis(planted / "spiky", [finding(symptom="other")], "x")
    page = client.get("/digest/2024-W01").text
    assert SAID not in page and "your run spiky shows other" in page
    assert "thalweg doctor" not in page


def test_hits_say_it_too(client, planted):
    data = client.get("/api/search.json?q=adam+training&kind=paper").json()["data"]
    assert data["concerns"] == {"arxiv:2401.00001": SAID}
    assert client.get("/search?q=adam+training").text.count(SAID) == 1


def test_the_page_of_a_diagnosis_names_papers(client, planted, plant):
    usual = np.exp(np.random.default_rng(0).normal(0, 0.05, 400))
    usual[[100, 250]] *= 500
    plant(planted / "real", {("loss", ""): np.linspace(2, 1, 400), ("grad_norm", ""): usual})
    data = client.get("/api/runs/real/diagnosis.json").json()["data"]
    assert "gradient_spikes" in [f["rule"] for f in data["findings"]]
    assert [p["id"] for p in data["papers"]] == ["arxiv:2401.00001"]
    assert data["papers"][0]["why"].endswith("this paper is near stable-spam, which treats it")
    page = client.get("/runs/real/diagnosis").text
    assert "Read in papers on this" in page and "https://arxiv.org/abs/2401.00001" in page
    # What the page had the doctor say is kept, and the digest knows of it.
    assert kept_diagnosis(planted / "real") is not None
    assert "real" not in client.get("/api/digest/2024-W01.json").json()["data"]["undiagnosed"]


def test_all_of_it_is_escaped(client, planted, plant):
    plant(planted / EVIL, {("loss", ""): np.ones(40)})
    plant(planted / f"{EVIL}2", {("loss", ""): np.ones(40)})
    keep_diagnosis(planted / "spiky", [], "x")
    keep_diagnosis(planted / EVIL, [finding(symptom=EVIL)], "x")
    for path in ("/digest/2024-W01", "/search?q=adam+training"):
        page = client.get(path).text
        assert "<img" not in page and "&lt;img" in page and "which treats it" in page, path
    mail = client.get("/digest/2024-W01.eml").text
    assert "<img" not in mail.partition("<!doctype html>")[2]


def test_a_link_out_of_the_folder_is_not_asked(client, planted, plant, tmp_path):
    plant(tmp_path / "outside", {("loss", ""): np.ones(9)})
    keep_diagnosis(tmp_path / "outside", [finding(symptom="secret")], "x")
    (planted / "link").symlink_to(tmp_path / "outside")
    for path in ("/digest/2024-W01", "/search?q=adam+training"):
        page = client.get(path).text
        assert "secret" not in page and "link</a>" not in page


def test_a_server_asks_nobody_and_imports_no_torch(planted):
    command = [sys.executable, "-c", SERVER, str(planted)]
    subprocess.run(command, check=True, timeout=120)
