"""The contestants of `benchmarks.bench`: each measures the images/s of one way to do the same work.

- `lakelens`: the bare engine, whole jobs, and the feed (read, decode, resize, hand over).
- `hf_pipeline`: the pipeline of transformers. `ray_data`: a job as Ray Data documents it.
- `pillow`: bare processes with Pillow. `daft_feed`: Daft, in an environment of its own (`daft_process`).
"""
