"""Scripts as people write them without hrseg, run as files of their own; `tools/benchmark.py jobs` times them."""
