"""Models: a name, folder or hub id to a loaded description. This room does not know devices, images or Ray.

Read in this order:

- `families`: the supported families of models, one record each.
- `model`: weights, preprocessing, labels, and the fingerprint of the embedding space.
- `processor`: the settings of a model's image processor, read as `Preprocessing`.
- `model_files`: the files of a model, brought to this machine. `hub`: from the Hugging Face hub.
- `text_tower`: the description of a model's text encoder. `weight_names`: names and single numbers from
  safetensors files.
- `int8`: the int8 model of an output. `comparison`: how well two sets of predictions agree.
"""
