"""The command that hands out the seeds is killed: the cluster goes on, and so does the command."""

import os
import subprocess
import sys
import time
from dataclasses import replace

import ray
from ray.cluster_utils import Cluster

from thalweg.studies import RayExecutor, load, run_study

STEPS = 2000


def test_finished_seeds_are_kept_and_nothing_runs_on(monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    nodes = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args=nodes)
    try:
        words = ["study", "run", "broken_laws", "--set", f"num_steps={STEPS}", "--seeds", "3"]
        command = [sys.executable, "-m", "thalweg", *words, "--on", "ray"]
        with subprocess.Popen(
            [*command, "--address", cluster.address],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONWARNINGS": "default"},
        ) as driver:
            assert driver.stderr is not None
            said = [driver.stderr.readline() for _ in range(2)]
            driver.kill()
        assert "seed 0 took" in said[1], said
        told = []
        config = replace(load("broken_laws").config("quick"), num_steps=STEPS)
        with RayExecutor(cluster.address) as executor:
            deadline = time.monotonic() + 60
            while ray.available_resources().get("CPU") != 1:
                assert time.monotonic() < deadline, "a task of the killed command still runs"
                time.sleep(0.2)
            run = run_study(
                "broken_laws",
                seeds=range(3),
                config=config,
                executor=executor,
                progress=lambda done, total, seed, seconds: told.append(seed),
            )
    finally:
        cluster.shutdown()
    kept = told.count(None)
    assert 1 <= kept < 3 and told[kept:] == list(range(kept, 3))
    assert len(run.figures) == 3
