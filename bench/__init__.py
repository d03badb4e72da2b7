"""Side-by-side measurements against named peers; `python -m bench.NAME [--quick]`, results in bench/results/."""
