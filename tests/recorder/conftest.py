import pytest


@pytest.fixture(autouse=True)
def _faults_of_the_recorder_fail_the_test(monkeypatch):
    monkeypatch.setenv("THALWEG_DEBUG", "1")
