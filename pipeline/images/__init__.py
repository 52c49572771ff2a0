"""Images: a URI to bytes to pixels. This room does not know Ray, the model, the manifest or the output.

Read in this order:

- `reader`: blocks of rows to the same rows with pixels or an error; fetch and decode together.
- `fetch`: URIs to bytes. `pacing`: fewer requests to a store that throttles. `manifest_bytes`: images that the
  manifest itself holds.
- `options`: limits and policies of decoding. `decode`: bytes to pixels. `rgb`: an image of any mode to
  8-bit RGB. `resize`: pixels of any size to the model's input.
- `salvage`: complete images that a decoder refuses. `variants`, `headers`: why a file cannot be decoded.
  `jpeg_segments`: the segments of a JPEG, for these three.
- `sandbox`: decoding in a child process, so that one bad file costs only itself. `sandbox_processes`: handles of
  its server and worker. `sandbox_child`: the child process, which imports little, because every actor starts one.
  `sandbox_protocol`: what the two sides send each other.
- `pixels`: the one owner of "pixels are dense": image i belongs to the i-th row without an error.
"""
