"""The face: what programs and notebooks call. This room does not know how anything is done.

Read in this order:

- `api`: load a config, plan it, run it. `opened_space`: read an output. `pipeline/__init__` gives their names.
- `ray_rows`: the rows of an output for Ray Data.
- `interrupts`: Ctrl-C as a request to stop. `notebook`: progress in a notebook or on stderr. `progress_text`:
  progress as a line of text.
"""
