"""The commands of LakeLens, one file each; `python -m jobs` is the same as `lakelens`."""
