"""On a cluster of this machine: a head with one CPU, and a node that is killed while it works."""

import sys
import time
from dataclasses import fields

import pytest
import ray
from ray.cluster_utils import Cluster

from thalweg import ThalwegError
from thalweg.almanac import get
from thalweg.studies import LocalExecutor, RayExecutor, broken_laws, ray_executor, run_study
from thalweg.studies.executor import Task
from thalweg.studies.made_evidence import evidence_of
from thalweg.studies.ray_executor import _largest, perform_if_same, stated

# Read once before the training and once after it; on nodes other than the head it never comes back.
MARKING = """
import os, time
from dataclasses import dataclass
from pathlib import Path
import torch
from thalweg.studies.broken_laws import Config

@dataclass(frozen=True)
class Marking(Config):
    def __getattribute__(self, name):
        if name == "num_steps" and "MARKS" in os.environ:
            import ray
            folder, node = Path(os.environ["MARKS"]), ray.get_runtime_context().get_node_id()
            with (folder / "marks").open("a") as file:
                file.write(f"{torch.initial_seed()} {node}\\n")
            while node != (folder / "head").read_text():
                time.sleep(0.1)
        return super().__getattribute__(name)
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ray")
    (folder / "marking.py").write_text(MARKING)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder), prepend=":")
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.syspath_prepend(folder)
        nodes = {"object_store_memory": 80 * 2**20, "include_dashboard": False}
        with patch.context() as inner:
            inner.setenv("MARKS", str(folder))  # for the nodes, not for this process
            started = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, **nodes})
            second = started.add_node(num_cpus=1, **nodes)
        yield started, second, folder
        started.shutdown()


def test_a_node_killed_mid_run_loses_nothing_and_counts_nothing_twice(cluster, monkeypatch):
    started, second, folder = cluster
    from marking import Marking  # type: ignore[import-not-found]

    config = Marking(hidden=8, num_steps=30)
    monkeypatch.setitem(broken_laws.PRESETS, "quick", config)
    marks, told = folder / "marks", []

    def kill(done, total, seed, seconds):
        told.append(seed)
        if len(told) == 1:
            while not any(head not in line for line in marks.read_text().splitlines()):
                time.sleep(0.1)
            started.remove_node(second, allow_graceful=False)

    with RayExecutor(started.address) as executor:
        head = next(n["NodeID"] for n in ray.nodes() if "node:__internal_head__" in n["Resources"])
        (folder / "head").write_text(head)
        run = run_study("broken_laws", seeds=range(3), executor=executor, progress=kill)
    assert sorted(told) == [0, 1, 2]
    lines = [line.split() for line in marks.read_text().splitlines()]
    finished = [seed for seed, node in lines if node == head]
    assert sorted(finished) == [str(s) for s in range(3) for _ in "ab"]  # begun, ended, once each
    lost = {seed for seed, node in lines if node != head}
    assert lost and lost < set("012")
    here = run_study("broken_laws", seeds=range(3), executor=LocalExecutor(), fresh=True)
    one, other = (evidence_of(r, get("conservation-laws")) for r in (run, here))
    for field in fields(one):
        if field.name not in ("run_at", "wall_s"):
            assert getattr(one, field.name) == getattr(other, field.name), field.name


def test_failing_studies_and_nodes_that_differ(cluster, monkeypatch):
    started, _, _ = cluster
    good = broken_laws.Config(hidden=8, num_steps=5)
    tasks = [Task("broken_laws", c, seed=0, memory=10**15) for c in (None, good)]
    with RayExecutor(started.address, workers=1) as executor:
        first, second = sorted(executor.run(tasks), key=lambda o: o.index)
        assert first.figures is None and "AttributeError" in first.error
        assert second.figures is not None and second.error == ""
        for what, value, said in (
            ("torch", "0.1", r"node \S+ has torch \S+, this machine 0.1"),
            ("code", "x", r"node \S+ has other code of Thalweg"),
        ):
            with monkeypatch.context() as patch:
                patch.setattr(ray_executor, "stated", lambda w=what, v=value: {**stated(), w: v})
                with pytest.raises(ThalwegError, match=said):
                    list(executor.run(tasks))
    assert not ray.is_initialized()


def test_addresses_that_lead_nowhere(monkeypatch):
    for address in ("here", "http://h:1/x", "h:port", ":1"):
        with (
            pytest.raises(ThalwegError, match="must be HOST:PORT or auto"),
            RayExecutor(address),
        ):
            pass
    with pytest.raises(ThalwegError, match="nothing answers at"), RayExecutor("127.0.0.1:1"):
        pass


def test_something_else_listens_there(monkeypatch):
    import socket

    monkeypatch.setattr(ray_executor, "PATIENCE_S", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(ThalwegError, match="no Ray cluster answers"), RayExecutor(address):
            pass


def test_without_ray(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ThalwegError, match=r"pip install 'thalweg\[ray\]'"), RayExecutor():
        pass


def test_a_task_is_placed_where_there_is_room():
    small, large = ({"CPU": 1.0, "memory": 4.0}, {"CPU": 8.0, "memory": 2.0})
    nodes = [{"Alive": True, "Resources": r} for r in (small, large)]
    assert (_largest(nodes, 1), _largest(nodes, 4)) == (4, 2)
    with pytest.raises(ThalwegError, match="none of the 2 nodes of the cluster has 9 CPU"):
        _largest([*nodes, {"Alive": False, "Resources": {"CPU": 99.0}}], 9)


def test_no_worker_and_no_difference():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        RayExecutor(workers=0)
    assert set(stated()) >= {"python", "torch", "numpy", "package", "platform", "code"}
    assert perform_if_same(0, b"", {"torch": "0.1"}) != ""
