"""Labels without pixels: heads, and the labels that they give to stored embeddings.

This room does not know images, devices, or how the embeddings were computed.

Read in this order:

- `head`: a linear classifier on the embedding, as a folder. `scoring`: vectors to labels and scores.
- `truth`: labels that people gave. `fitting`: a head learned from them. `measuring`: how right a head is.
  `comparing`: where two heads differ.
- `word_head`: a head made of words. `own_head`: the head of the model itself.
- `relabelling`: brings the labels of a head to the newest version of the predictions. `label_plan`: which files of
  labels that takes. `label_files`: one of them, made from one file of predictions.
"""
