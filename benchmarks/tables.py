"""Puts the figures of ``results/*.json`` into the tables of the docs.

python -m benchmarks.tables          # rewrite
python -m benchmarks.tables --check  # exit 1 if a table is not current
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"


def almanac() -> list[list[str]]:
    """Reading in and searching papers, beside plain tf-idf."""
    r = _load("almanac")
    rows = [["", "Thalweg", "tf-idf of arxiv-sanity-lite"]]
    papers, peer = f"{r['papers']:,} papers", r["tfidf"]
    rows.append([f"{papers}: reading in, scoring, relating", f"{r['ingest_s']:.1f} s", ""])
    rows.append([f"{papers}: reading in again", f"{r['ingest_again_s']:.1f} s", ""])
    rows.append([f"{papers}: index in memory", f"{r['index_s']:.1f} s", f"{peer['index_s']:.1f} s"])
    for key, label in (
        ("search_ms", "search"),
        ("search_filtered_ms", "search, one kind and one year"),
        ("related_ms", "entries related to a paper"),
    ):
        cells = [
            f"{q['p50']:.1f} ms, {q['p95']:.1f} ms" if q else "" for q in (r[key], peer.get(key))
        ]
        rows.append([f"{label}: middle, 95th percentile", *cells])
    rows.append(["all of it as Atom", f"{r['export_atom_s']:.2f} s", ""])
    rows.append(["peak memory of the process", f"{r['peak_rss_mb']} MB", ""])
    return rows


def overhead() -> list[list[str]]:
    """Recorded over bare, and the peer."""
    result = _load("overhead")
    rows = [["training", "parameters", "ms a step", "recorded ÷ bare", "of sums", "4 s run"]]
    for name, r in result["trainings"].items():
        rows.append(
            [
                name,
                f"{r['parameters']:,}",
                f"{r['bare_ms_per_step']:.2f}",
                _ratio(r),
                f"{r['ratio_of_sums']:.3f}",
                f"{r['short_run_ratio']:.3f}",
            ]
        )
    for peer, presets in result.items():
        if peer.startswith("cockpit"):
            label, _, training = peer.partition(", ")
            for preset, r in presets.items():
                rows.append([f"{label}, {preset}; {training}", "", "", _ratio(r), "", ""])
    return rows


def growth() -> list[list[str]]:
    """Overhead and memory against the size of the model."""
    rows = [["", "parameters", "ms a step", "recorded ÷ bare", "memory held ÷ parameter bytes"]]
    for name, r in _load("overhead")["growth"].items():
        rows.append(
            [
                name.replace("x", "×"),
                f"{r['parameters']:,}",
                f"{r['bare_ms_per_step']:.2f}",
                _ratio(r),
                f"{r['per_parameter_byte']:.2f}",
            ]
        )
    return rows


def read() -> list[list[str]]:
    """Reading beside TensorBoard, at the full size."""
    full = _load("read_run")["measurements"][-1]
    seconds = full["read_s_median"]
    names = {
        "table": "whole table",
        "all_series": "all series, one pass",
        "each_series": "all series, one call each",
        "one_series": "one series",
    }
    rows = [["reading", "Thalweg, s", "TensorBoard, s", "times faster"]]
    peer = seconds["tensorboard_event_accumulator"]
    for key, label in names.items():
        ratio = full["times_faster_than_event_accumulator"][key]
        rows.append([label, f"{seconds[key]:.3g}", f"{peer:.3g}", f"{ratio:,.0f}"])
    return rows


def curvature() -> list[list[str]]:
    """λ_max and products beside the peers."""
    result = _load("curvature")
    products, top = result["products"], result["lambda_max"]
    rows = [["", *(f"{name}, {c['parameters']:,} parameters" for name, c in top.items())]]
    for key, label in (
        ("retained", "one product ÷ two gradients, graph kept"),
        ("not_retained", "one product ÷ two gradients, loss evaluated anew"),
        ("forward_over_reverse", "the same by forward mode over reverse (not ours)"),
    ):
        ratios = [f"{c['methods'][key]['over_two_gradients']:.2f}" for c in products.values()]
        rows.append([label, *ratios])
    for peer in top["mlp"]["methods"]:
        cells = []
        for case in top.values():
            r = case["methods"][peer]
            spent = r["matvecs"] if r["matvecs"] is not None else "?"
            cells.append(
                f"{1e3 * r['wall_s']:.0f} ms, {spent} products, residual "
                f"{r['relative_residual']:.0e}, {r['over_thalweg']:.2f} × ours"
            )
        rows.append([f"λ_max, {peer}", *cells])
    return rows


def crashes() -> list[list[str]]:
    """Kills, a full disk, damaged and foreign directories."""
    result, damaged = _load("crashes"), _load("damaged_runs")
    kills, disk = result["kill"], result["full_disk"]
    torn, strange = damaged["damaged"], damaged["foreign"]
    return [
        ["what", "seen"],
        [
            f"{kills['kills']} × `kill -9` at random moments",
            f"{kills['lost_flushed_steps']} of {kills['flushed_steps']:,} flushed steps lost; the "
            f"oldest step lost was {kills['oldest_lost_s']:.2f} s old; "
            f"{kills['verbs_failed']} of {kills['verbs_run']} readings failed",
        ],
        [
            f"full disk ({disk['disk']})",
            f"exit code {disk['exit_code']}, output of the script "
            f"{'the same' if disk['same_output'] else 'changed'}, {disk['warnings']} warning, "
            f"{disk['tracebacks']} tracebacks",
        ],
        [
            "one file cut, overwritten, emptied, zeroed, replaced or deleted",
            f"{torn['cases']} damaged runs, {torn['readings']:,} readings, "
            f"{torn['failed']} with anything but a message",
        ],
        [
            "what is no run, read and recorded onto",
            f"{strange['cases']} kinds, {strange['readings']} attempts, {strange['failed']} with "
            f"anything but a message, {strange['touched']} changed",
        ],
    ]


def traces() -> list[list[str]]:
    """Products to a given standard error of the trace."""
    methods = {k: r for k, r in _load("curvature")["traces"].items() if isinstance(r, dict)}
    rows = [["products to a standard error of", *methods["thalweg xtrace"]]]
    for name, by_goal in methods.items():
        cells = [
            f"{r['matvecs']:g} (true error {100 * r['true_rms_error']:.1f} %)"
            for r in by_goal.values()
        ]
        rows.append([name, *cells])
    return rows


def kernels() -> list[list[str]]:
    """The eNTK beside a loop over gradients."""
    rows = [["eNTK, 100 inputs × 10 outputs", "Thalweg", "loop over gradients"]]
    for name, case in _load("curvature")["kernels"].items():
        methods = case["methods"]
        rows.append(
            [
                f"{name}, {case['parameters']:,} parameters",
                f"{1e3 * methods['thalweg']['wall_s']:.0f} ms",
                f"{methods['loop']['over_thalweg']:.0f} × ours",
            ]
        )
    return rows


def width() -> list[list[str]]:
    """Cost of λ_max with the number of parameters."""
    rows = [["parameters", "products", "λ_max, s", "λ_max, ns per parameter", "product, ns each"]]
    for r in _load("curvature")["growth"]:
        rows.append(
            [
                f"{r['parameters']:,}",
                f"{r['matvecs']}",
                f"{r['lambda_max_s']:.3g}",
                f"{r['lambda_max_ns_per_parameter']:.0f}",
                f"{r['product_ns_per_parameter']:.0f}",
            ]
        )
    return rows


def never_wrong() -> list[list[str]]:
    """How often λ_max is wrong without saying so."""
    rows = [["", "matrices", "runs", "say they converged", "wrong of these", "least probability"]]
    for name, r in _load("never_wrong")["found"].items():
        cells = (r["matrices"], r["runs"], r["converged"], r["wrong_while_converged"])
        rows.append([name, *map(str, cells), f"{r['least_probability']:.4f}"])
    return rows


def law_counts() -> list[list[str]]:
    """Laws counted by brackets beside theory."""
    result = _load("law_counts")
    rows = [["random networks", "counted as theory says", "largest D", "s"]]
    for name, r in result["kinds"].items():
        cells = f"{r['right']} of {r['networks']}", str(r["largest_dim"]), f"{r['wall_s']:.1f}"
        rows.append([name, *cells])
    whole = f"{result['right']} of {result['networks']}"
    rows.append([f"all; smallest gap {result['smallest_gap']:.0e}", whole, "", _s(result)])
    return rows


def law_roundoff() -> list[list[str]]:
    """What the prediction leaves of each law, beside round-off."""
    result = _load("law_monitor")["roundoff"]
    head = f"{result['parameters']:,} parameters, {result['steps']} steps"
    rows = [[head, "laws", "residual ÷ round-off, median", "largest", "largest drift ÷ scale"]]
    for name, r in result["kinds"].items():
        spread = f"{r['median_over_roundoff']:.2f}", f"{r['max_over_roundoff']:.2f}"
        rows.append([name, f"{r['laws']:,}", *spread, f"{r['max_relative_drift']:.2g}"])
    r = result["exact_laws"]
    spread = f"{r['median_over_roundoff']:.2f}", f"{r['max_over_roundoff']:.2f}"
    rows.append(["all but those with ε", f"{r['laws']:,}", *spread, ""])
    return rows


def law_cost() -> list[list[str]]:
    """Time of following all laws beside that of a step."""
    rows = [["parameters", "laws", "batch × context", "step, ms", "laws, ms", "share of the step"]]
    for r in _load("law_monitor")["cost"]:
        low, high = (f"{100 * q:.1f}" for q in r["share_quartiles"])
        rows.append(
            [
                f"{r['parameters']:,}",
                f"{r['laws']:,} in {r['families']} families",
                f"{r['batch']} × {r['context']}",
                f"{r['step_ms']:.0f}",
                f"{r['follow_ms']:.1f}",
                f"{100 * r['share']:.1f} % [{low}, {high}]",
            ]
        )
    return rows


def muon_steps() -> list[list[str]]:
    """A step of Muon beside torch's and AdamW."""
    sizes = _load("muon")["steps"]
    rows = [["", *(f"{name} parameters ({r['matrices']})" for name, r in sizes.items())]]
    for method in next(iter(sizes.values()))["methods"]:
        found = [r["methods"][method] for r in sizes.values()]
        cells = [
            f"{r['step_s']:.3g} s, {r['over_torch_muon']:.2g} × torch's Muon, "
            f"{r['over_adamw']:.3g} × AdamW"
            for r in found
        ]
        rows.append([method, *cells])
    return rows


def muon_factors() -> list[list[str]]:
    """Error of polar factors per matrix product."""
    methods = _load("muon")["factors"]["methods"]
    spent = [r["matmuls"] for r in next(iter(methods.values())).values()]
    rows = [["error on a Gaussian, on a graded matrix", *(f"{n} products" for n in spent)]]
    for name, by_steps in methods.items():
        cells = [f"{r['error_gaussian']:.2g}, {r['error_graded']:.2g}" for r in by_steps.values()]
        rows.append([name, *cells])
    return rows


def attention() -> list[list[str]]:
    """Tiled linear attention beside softmax attention, by length."""
    result = _load("lightning_attention")
    head = ["tokens", "tiles, ms", "softmax, ms", "tiles ÷ softmax", "tiles, MiB", "softmax, MiB"]
    rows = [["", *head]]
    for part, label in (("forward", "forward"), ("training", "forward and gradients")):
        for n, r in result[part].items():
            peaks = [r.get(f"{m}_peak_mib") for m in ("tiles", "softmax")]
            rows.append(
                [
                    label,
                    f"{int(n):,}",
                    f"{r['tiles_ms']:.1f}",
                    f"{r['softmax_ms']:.1f}",
                    _ratio(r),
                    *("" if p is None else f"{p:.1f}" for p in peaks),
                ]
            )
    return rows


def hierarchical_kernel() -> list[list[str]]:
    """Kernel matrices of wide CNNs beside the authors' code."""
    rows = [["1,024 × 1,024 inputs", "method", "s", "÷ thalweg", "MiB"]]
    for tree, case in _load("hierarchical_kernel")["kernels"].items():
        for name, r in case["methods"].items():
            cells = f"{r['wall_s']:.2f}", _ratio(r), f"{r['peak_mib']:,.0f}"
            rows.append([tree, name, *cells])
    return rows


def empirical_kernel() -> list[list[str]]:
    """The limit beside the kernel of one finite network."""
    r = _load("hierarchical_kernel")["empirical"]
    head = [f"{r['inputs']} inputs, filters 2, 2, 2", "ms", "distance from the limit"]
    finite = f"one network of width {r['width']}, torch.func"
    return [
        head,
        ["limit, `HierarchicalKernel`", f"{1e3 * r['limit_s']:.1f}", "0"],
        [finite, f"{1e3 * r['torch_func_s']:.0f}", f"{100 * r['relative_error']:.0f} %"],
    ]


def attention_gradients() -> list[list[str]]:
    """Peak memory of the gradients: derivatives as sweeps, or autograd through every block."""
    rows = [["tokens", "sweeps, MiB", "autograd through the blocks, MiB"]]
    for n, r in _load("lightning_attention")["training"].items():
        if "tiles_peak_mib" in r:
            peaks = (r["tiles_peak_mib"], r["through blocks_peak_mib"])
            rows.append([f"{int(n):,}", *(f"{p:.1f}" for p in peaks)])
    return rows


def decoding() -> list[list[str]]:
    """What decoding keeps after so many tokens."""
    rows = [["tokens so far", "state, kB", "resident, MiB", "ms a token", "softmax's cache, kB"]]
    for n, r in _load("lightning_attention")["decoding"].items():
        rows.append(
            [
                f"{int(n):,}",
                f"{r['state_bytes'] / 1024:.0f}",
                f"{r['resident_mib']:.0f}",
                f"{r['ms_per_token']:.2f}",
                f"{r['softmax_cache_bytes'] / 1024:,.0f}",
            ]
        )
    return rows


def low_bit() -> list[list[str]]:
    """A small transformer in INT4, each method at its learning rates."""
    result = _load("low_bit")
    lrs = next(iter(next(iter(result["found"].values())).values()))["losses"]
    rows = [["held-out loss, mean (largest)", *(f"lr {lr}" for lr in lrs)]]
    for kind, methods in result["found"].items():
        for name, r in methods.items():
            cells = []
            for lr, losses in r["losses"].items():
                text = f"{sum(losses) / len(losses):.3f} ({max(losses):.3f})"
                cells.append(f"**{text}**" if lr == r["best_lr"] else text)
            rows.append([f"{kind}, {name}", *cells])
    return rows


def stable_spam() -> list[list[str]]:
    """A step of StableSPAM beside AdamW and the peers."""
    sizes = _load("stable_spam")["steps"]
    rows = [["ms a step, ÷ AdamW(foreach)", *(f"{name} parameters" for name in sizes)]]
    for method in next(iter(sizes.values()))["methods"]:
        found = [r["methods"][method] for r in sizes.values()]
        rows.append([method, *(f"{1e3 * r['step_s']:.3g}, {_ratio(r)}" for r in found)])
    return rows


def mup_equality() -> list[list[str]]:
    """Largest relative differences from microsoft/mup."""
    found = _load("mup")["equality"]
    kinds = [k for k in next(iter(found.values())) if k != "parameters"]
    rows = [["largest relative difference", *(f"width {w}, base 32" for w in found)]]
    for kind in kinds:
        rows.append([kind, *(f"{r[kind]:.1g}" for r in found.values())])
    return rows


def mup_steps() -> list[list[str]]:
    """A step of MuAdam beside microsoft/mup's and plain Adam."""
    rows = [["parameters", "ours, ms", "microsoft/mup, ms", "Adam, ms", "÷ mup", "÷ Adam"]]
    for r in _load("mup")["steps"].values():
        quartiles = (r["over_mup_quartiles"], r["over_adam_quartiles"])
        rows.append(
            [
                f"{r['parameters']:,}",
                *(f"{ms:.3g}" for ms in r["step_ms"].values()),
                *(f"{mid:.2f} [{low:.2f}, {high:.2f}]" for low, mid, high in quartiles),
            ]
        )
    return rows


def steering() -> list[list[str]]:
    """A steering vector and a steered pass beside steering-vectors."""
    found = _load("steering")
    rows = [["", "alone, ms", "thalweg ÷ alone", "steering-vectors ÷ alone"]]
    for label, key, alone in (
        ("vector of 64 pairs", "vector", "two passes alone"),
        ("steered pass of one sequence", "steered pass", "a pass alone"),
    ):
        cells = []
        for name in ("thalweg", "steering-vectors"):
            low, high = found[key][name]["ratio_quartiles"]
            cells.append(f"{found[key][name]['ratio']:.2f} [{low:.2f}, {high:.2f}]")
        rows.append([label, f"{1e3 * found[key][alone]['wall_s']:.3g}", *cells])
    return rows


def adamo() -> list[list[str]]:
    """A step of AdamO beside AdamW and its Gram products."""
    sizes = _load("adamo")["steps"]
    rows = [["ms a step", *(f"{n} parameters, {h}" for n in sizes for h in ("ms", "÷ AdamW"))]]
    rows[0] += [f"{n}, ÷ (AdamW + products)" for n in sizes]
    for method in next(iter(sizes.values()))["methods"]:
        found = [r["methods"][method] for r in sizes.values()]
        cells = [c for r in found for c in (f"{1e3 * r['step_s']:.3g}", _ratio(r))]
        name = "over_adamw_and_products"
        both = [
            _ratio({"ratio": r[name], "ratio_quartiles": r[f"{name}_quartiles"]})
            if name in r
            else ""
            for r in found
        ]
        rows.append([method, *cells, *both])
    return rows


def unit_replacement() -> list[list[str]]:
    """A training step with units replaced, beside bare Adam and the public code."""
    sizes = _load("unit_replacement")["sizes"]
    rows = [["ms a training step, ÷ Adam", *sizes]]
    for method in next(iter(sizes.values()))["methods"]:
        found = [r["methods"][method] for r in sizes.values()]
        rows.append([method, *(f"{1e3 * r['step_s']:.3g}, {_ratio(r)}" for r in found)])
    return rows


def plasticity_treatments() -> list[list[str]]:
    """The doctor's finding and the accuracy on new tasks, with each treatment."""
    chosen = [r for r in _load("treatments")["rows"].values() if r["rule"] == "loss_of_plasticity"]
    rule, seeds = chosen[0]["rule"], len(chosen[0]["seeds"])
    rows = [["trained with", f"`{rule}` found", f"accuracy, mean of {seeds} seeds", "least"]]
    for name, r in [("Adam", chosen[0]["before"])] + [
        (r["prescribed"], r["after"]) for r in chosen
    ]:
        times = sum(rule in found for found in r["findings"])
        mean = sum(r["figures"]) / len(r["figures"])
        rows.append([name, f"{times} of {seeds}", f"{mean:.2f}", f"{min(r['figures']):.2f}"])
    return rows


def elr() -> list[list[str]]:
    """The ELR loss beside cross-entropy."""
    found = _load("elr")["found"]
    rows = [["ms, ÷ cross-entropy", *found]]
    for method in next(iter(found.values())):
        cells = [case[method] for case in found.values()]
        rows.append([method, *(f"{1e3 * r['wall_s']:.3g}, {_ratio(r)}" for r in cells)])
    return rows


def hypernetwork() -> list[list[str]]:
    """A step of a hypernetwork beside hyperlight."""
    found = _load("hypernetwork")["found"]
    rows = [["ms, ÷ HyperModule", *(f"primary {name}" for name in found)]]
    for method in next(iter(found.values())):
        cells = [case[method] for case in found.values()]
        rows.append([method, *(f"{1e3 * r['wall_s']:.3g}, {_ratio(r)}" for r in cells)])
    return rows


def grokalign() -> list[list[str]]:
    """A training step with the penalty beside one without, and the public codes."""
    found = _load("grokalign")["found"]
    rows = [["ms a step, ÷ no penalty", *found]]
    for method in next(iter(found.values()))["methods"]:
        cells = [case["methods"][method] for case in found.values()]
        rows.append([method, *(f"{1e3 * r['wall_s']:.3g}, {_ratio(r)}" for r in cells)])
    return rows


def grokking_on_digits() -> list[list[str]]:
    """Held-out accuracy of digits from large weights, with and without the penalty."""
    result = _load("grokking_on_digits")
    steps = result["steps"]
    held = [f"held out {when}" for when in ("then", f"at {steps // 4}", f"at {steps}")]
    rows = [["weight of the penalty", "memorised at step", *held]]
    for weight, seeds in result["found"].items():
        cells = [f"{min(s['memorised_at'] for s in seeds)}–{max(s['memorised_at'] for s in seeds)}"]
        for when in ("then", "quarter", "end"):
            values = [s[when] for s in seeds]
            cells.append(f"{min(values):.2f}–{max(values):.2f}")
        rows.append([weight, *cells])
    return rows


def bilevel() -> list[list[str]]:
    """A hypergradient in gradients of the lower loss."""
    found = _load("bilevel")["found"]
    rows = [["gradients, ÷ ours, error", *found]]
    for method in next(iter(found.values())):
        cells = []
        for case in found.values():
            r = case[method]
            median, low, high = r["in_gradients"]
            cells.append(
                f"{median:.0f} [{low:.0f}, {high:.0f}], {r['over_thalweg'][0]:.2f} ×, "
                f"{r['relative_error']:.0e}"
            )
        rows.append([method, *cells])
    return rows


def treatments() -> list[list[str]]:
    """The symptom before and after the prescribed treatment."""
    rows = [["training", "rule", "treatment", "found before", "after", "figure, mean (worst seed)"]]
    for name, r in _load("treatments")["rows"].items():
        found, figures = [], []
        for when in ("before", "after"):
            said, values = r[when]["findings"], r[when]["figures"]
            others = sorted({rule for rules in said for rule in rules} - {r["rule"]})
            beside = f"; also {', '.join(f'`{o}`' for o in others)}" if others else ""
            found.append(f"{sum(r['rule'] in rules for rules in said)}/{len(said)}{beside}")
            worst = max(values) if r["lower"] else min(values)
            figures.append(f"{sum(values) / len(values):.3g} ({worst:.3g})")
        figure = f"{r['figure']} {figures[0]} → {figures[1]}"
        rows.append([name, f"`{r['rule']}`", r["prescribed"], *found, figure])
    return rows


def fastfood() -> list[list[str]]:
    """The fastfood map forward and backward, beside the public code."""
    sizes = _load("fastfood")["sizes"]
    head = [f"D = {r['D']:,}, d = {r['d']:,}" for r in sizes]
    rows = [["ms forward and backward, ÷ thalweg", *head]]
    for method in sizes[0]["methods"]:
        found = [r["methods"][method] for r in sizes]
        rows.append([method, *(f"{1e3 * r['step_s']:.3g}, {_ratio(r)}" for r in found)])
    return rows


def minilm() -> list[list[str]]:
    """A real language model in subspaces of its last layer."""
    result = _load("minilm")
    found = result["accuracy"]
    rows = [["test accuracy", *(f"d = {d:,}" for d in result["dims"]), "full", "head alone"]]
    for name, head in (("pretrained", found["MiniLM, head alone"]), ("random last layer", None)):
        scores, full = found[f"MiniLM, {name}"], found[f"MiniLM, {name}, full"]
        last = f"{head[0]:.3f}" if head else ""
        rows.append([name, *(f"{s:.3f}" for s in scores), f"{full[0]:.3f}", last])
    return rows


def trajectory() -> list[list[str]]:
    """Gram matrices and a rank-1 fit of 40 checkpoints, beside reading the files, and RELEX."""
    found = _load("trajectory")
    rows = [
        [
            "weights",
            "read once, s (cold; warm)",
            "fit, s (cold; warm)",
            "fit ÷ read, cold",
            "MB for the fit",
            "predict and write, s; MB",
            "official, s; MB",
            "largest difference",
        ]
    ]
    for r in found["rows"]:
        rows.append(
            [
                f"{r['weights'] / 1e6:g} M",
                f"{r['read_cold_s']:.1f}; {r['read_warm_s']:.1f}",
                f"{r['fit_cold_s']:.1f}; {r['fit_warm_s']:.1f}",
                f"{r['fit_over_read_cold']:.2f}",
                f"{r['fit_mb']:.0f}",
                f"{r['predict_warm_s']:.1f}; {r['predict_mb']:.0f}",
                f"{r['official_warm_s']:.1f}; {r['official_mb']:.0f}",
                f"{r['largest_difference']:.0e}",
            ]
        )
    far = found["projected"]
    read, fit = far["read_cold_s"], far["fit_cold_s"]
    line = [f"{far['weights'] / 1e6:g} M, by a line", f"{read:.0f}", f"{fit:.0f}"]
    rows.append([*line, f"{fit / read:.2f}", f"{far['fit_mb']:.0f}", "", "", ""])
    return rows


def checkpoint_diff() -> list[list[str]]:
    """Two checkpoints of 110 million parameters."""
    result = _load("checkpoint_diff")
    rows = [[f"{result['parameters']:,} parameters", "wall, s", "processor, s", "peak, MB", "load"]]
    for name, r in result["tasks"].items():
        peak = f"{r['peak_mb']:,.0f}"
        rows.append([name, f"{r['wall_s']}", f"{r['cpu_s']}", peak, f"{r['load_before']}"])
    if agreed := result.get("agreement"):
        apart = f"{agreed['drift_relative']:.1e}", f"{agreed['share_equal']:.1e}"
        rows.append(
            ["drift of a matrix, largest relative difference of the two", apart[0], *3 * [""]]
        )
        rows.append(["share of equal weights, largest difference", apart[1], *3 * [""]])
    return rows


def web() -> list[list[str]]:
    """Times of the page, and memory of its server."""
    r = _load("web")
    run, readers = r["long_run"], r["readers"]

    def times(q: dict[str, float]) -> list[str]:
        return [f"{q['median_ms']:.0f} ms", f"{q['p95_ms']:.0f} ms"]

    rows = [["", "median", "95 % below"]]
    rows += [[f"page: {name}", *times(q)] for name, q in r["pages"]["each"].items()]
    rows.append(["all pages", *times(r["pages"]["all"])])
    chart = f"{run['series_in_chart']} of {r['run']['series']} series"
    rows.append(["long run, page, first time", f"{run['cold_page_ms']:.0f} ms", ""])
    rows.append([f"long run, chart of {chart}, first time", f"{run['cold_chart_ms']:.0f} ms", ""])
    rows.append(["long run, page, again", f"{run['page_ms']:.0f} ms", ""])
    for share, q in run["zooms"].items():
        rows.append([f"long run, zoom to {100 * float(share):g} % of it", *times(q)])
    label = f"{readers['readers']} readers for {readers['seconds']:.0f} s: "
    label += f"{readers['requests']:,} requests, {readers['errors']} errors"
    rows.append([label, *times(readers)])
    rows.append(["most memory of the server", f"{r['peak_rss_mb']} MB", ""])
    return rows


def live_page() -> list[list[str]]:
    """A long run in a browser, beside TensorBoard and trackio."""
    r = _load("live_page")
    tools = ("thalweg", "tensorboard", "trackio")
    wrote, found = r["wrote"], r["median"]

    def row(said: str, value: Callable[[str], str]) -> list[str]:
        return [said, *map(value, tools)]

    def zoom(tool: str) -> str:
        if "zoom_ms" not in found[tool]:
            return "sends nothing"
        return f"{found[tool]['zoom_ms']:.0f} ms, at most {found[tool]['zoom_most_ms']} ms"

    def spike(tool: str) -> str:
        return f"{found[tool]['spike_sent']} of {found[tool]['repeats']} times"

    return [
        ["", "Thalweg", "TensorBoard", "trackio"],
        row("writing the figures", lambda t: f"{wrote[t]['total_s']:.0f} s"),
        row("on disk", lambda t: f"{wrote[t]['bytes'] / 1e6:,.0f} MB"),
        row("the server has its data after", lambda t: f"{found[t]['ready_s']:.1f} s"),
        row("first contentful paint", lambda t: f"{found[t]['paint_ms']:,.0f} ms"),
        row("first curve", lambda t: f"{found[t]['drawn_ms']:,.0f} ms"),
        row("zoom, until it is drawn", zoom),
        row("sent until three seconds later", lambda t: f"{found[t]['sent_kb']:,.0f} kB"),
        row("most memory of the server", lambda t: f"{found[t]['rss_mb']:,.0f} MB"),
        row("a spike of one step is in what is sent", spike),
    ]


def guards() -> list[list[str]]:
    """Guards of the page by what they are for, and how many removals a test noticed."""
    kinds: dict[str, list[dict[str, str]]] = {}
    for guard in _load("guards")["guards"]:
        kinds.setdefault(guard["kind"], []).append(guard)
    rows = [["guards", "taken out", "noticed by a test"]]
    for kind, found in kinds.items():
        rows.append([kind, f"{len(found)}", f"{sum(bool(g['noticed_by']) for g in found)}"])
    return rows


TABLES: dict[str, Callable[[], list[list[str]]]] = {
    "overhead": overhead,
    "web": web,
    "live_page": live_page,
    "guards": guards,
    "growth": growth,
    "read": read,
    "curvature": curvature,
    "crashes": crashes,
    "steering": steering,
    "traces": traces,
    "kernels": kernels,
    "width": width,
    "never_wrong": never_wrong,
    "attention": attention,
    "attention_gradients": attention_gradients,
    "decoding": decoding,
    "hierarchical_kernel": hierarchical_kernel,
    "empirical_kernel": empirical_kernel,
    "law_counts": law_counts,
    "law_roundoff": law_roundoff,
    "law_cost": law_cost,
    "muon_steps": muon_steps,
    "muon_factors": muon_factors,
    "low_bit": low_bit,
    "stable_spam": stable_spam,
    "mup_equality": mup_equality,
    "mup_steps": mup_steps,
    "adamo": adamo,
    "unit_replacement": unit_replacement,
    "plasticity_treatments": plasticity_treatments,
    "elr": elr,
    "fastfood": fastfood,
    "trajectory": trajectory,
    "minilm": minilm,
    "hypernetwork": hypernetwork,
    "grokalign": grokalign,
    "grokking_on_digits": grokking_on_digits,
    "bilevel": bilevel,
    "almanac": almanac,
    "treatments": treatments,
    "checkpoint_diff": checkpoint_diff,
}


def render(text: str) -> str:
    """A page with each of its tables filled in."""

    def fill(match: re.Match[str]) -> str:
        rows = TABLES[match[1]]()
        lines = [f"| {' | '.join(row)} |" for row in rows]
        lines.insert(1, "|" + "---|" * len(rows[0]))
        return "\n".join([f"<!-- table: {match[1]} -->", *lines, "<!-- end -->"])

    return re.sub(r"<!-- table: (\w+) -->.*?<!-- end -->", fill, text, flags=re.DOTALL)


def stale() -> list[Path]:
    """Pages whose tables differ from the results."""
    pages = sorted((ROOT / "docs").rglob("*.md"))
    return [p for p in pages if render(p.read_text()) != p.read_text()]


def main() -> int:
    """Rewrites or checks."""
    pages = stale()
    if "--check" in sys.argv:
        for page in pages:
            print(f"{page.relative_to(ROOT)} is not current: python -m benchmarks.tables")
        return int(bool(pages))
    for page in pages:
        page.write_text(render(page.read_text()))
        print(f"wrote {page.relative_to(ROOT)}")
    return 0


def _load(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text())


def _s(result: dict[str, Any]) -> str:
    return f"{result['wall_s']:.1f}"


def _ratio(r: dict[str, Any]) -> str:
    low, high = r["ratio_quartiles"]
    return f"{r['ratio']:.3f} [{low:.3f}, {high:.3f}]"


if __name__ == "__main__":
    raise SystemExit(main())
