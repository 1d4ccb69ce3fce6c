"""Benchmarks beside their peers; each writes a JSON file under ``benchmarks/results``."""
