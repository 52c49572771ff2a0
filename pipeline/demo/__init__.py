"""The demo: a generated image lake, and two small models that are trained on its classes.
This room does not know how a run works.

Read in this order:

- `drawing`: pictures of twelve classes. `lake`: image files of them, some bad ones, and a manifest.
- `train`: training of the model in `model/`. `accuracy`: how many of its labels are right.
- `train_words`: training of the CLIP in `words/`, which knows pictures by their names.
- `settings`: the configs of its two runs. `neighbours`: how many of the images nearest to new drawings, and to
  words, show the same.
"""
