"""Charts and tables from a result file: ``python -m benchmarks.report RESULT.json --out DIR``."""
