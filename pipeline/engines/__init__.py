"""Engines: pixels to labels and embeddings on one kind of device. This room does not know Ray or the output.

Read in this order:

- `base`: the interface of an engine, and the results of a batch. `choice`: the engine that a run uses.
- `loading`: a model on a device. It imports an engine only when that engine is asked for: importing torch takes
  seconds, and a package that is not installed must not hinder runs that use another engine.
- `pretrained`: a model as transformers loads it, and its embedding. `network`: the same model from uint8 pixels,
  in one forward pass.
- `openvino`: the engine for CPUs. `convert`: the graph that it runs. `quantize`: the graph in int8.
- `torch`: the engine for CUDA. `xla`: the engine for TPUs. `reference`: plain transformers, to compare with.
- `text`: texts to embeddings in the space of a model's images.
- `feeder`: blocks of several threads, one after the other on the device. `batching`: the size of blocks, and their
  micro-batches. `batch_sizer`: the search for the fastest size of micro-batches. `batch_size_cache`: sizes that a
  node remembers.
"""
