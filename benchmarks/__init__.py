"""Benchmarks, each run as `python -m benchmarks.NAME`; README.md describes them, RESULTS.md has what they
measured.

- `bench`: LakeLens against other ways, which are in `contestants`. `report`: its table, JSON and chart.
- `busy`: an accelerator behind the real feed. `ceiling`: the predictor stage alone, with ready pixels.
- `first_commit`: the time until the first rows are committed. `commits`: what commits cost, and what a kill loses.
- `driver`: what the driver of a long run needs. `plan`: what planning a large lake costs.

They share `inputs` (images, models, configs), `s3_images`, `steady_rate`, `fake_stages` and `fixed_rate_device`.
"""
