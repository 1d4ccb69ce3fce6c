"""Benchmarks beside peers. Each module has ``main()`` and writes ``results/<name>.json``."""
