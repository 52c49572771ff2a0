"""SQL for manifest rows, in two steps after they are read.

    raw (what the manifest says, as text)  ->  resolved (uri, image_id, …)  ->  checked (why it is invalid)

Pure text; it does not know the files.
"""

from pipeline.column_names import (
    DATASET,
    IMAGE_ID,
    LENGTH,
    OFFSET,
    PROBLEM,
    ROW,
    SOURCE,
    UNREADABLE,
    URI,
)
from pipeline.storage import data_uris, uris
from pipeline.storage.sql import literal

MAX_DATASET_BYTES = 200
"""Longest percent-encoded dataset name: it is a folder name, and file systems stop at 255 bytes."""

RAW = {name: f"_lakelens_raw_{name}" for name in (URI, IMAGE_ID, DATASET, OFFSET, LENGTH)}
"""The raw column of each canonical column."""


def resolved(raw_rows: str, dataset: str, id_format: int) -> str:
    """Return a SELECT that resolves raw rows to the canonical columns; the other columns follow.

    `raw_rows` is a SELECT of the columns of `RAW`, `SOURCE`, `UNREADABLE`, `version` and more. `dataset` is the
    dataset of rows that name none. `id_format` is the format of the output: see `space.FORMAT`.
    """
    default_id = _DEFAULT_ID if id_format > 1 else "uri"
    return f"""
        SELECT {_RESOLVED_URI} AS uri,
            coalesce({RAW[IMAGE_ID]}, {default_id}) AS image_id,
            coalesce({RAW[DATASET]}, {literal(dataset)}) AS dataset,
            version,
            TRY_CAST({RAW[OFFSET]} AS BIGINT) AS "offset",
            TRY_CAST({RAW[LENGTH]} AS BIGINT) AS length,
            * EXCLUDE ({SOURCE}, {RAW[URI]}, {RAW[IMAGE_ID]}, {RAW[DATASET]}, version)
        FROM ({raw_rows})
    """


def checked(resolved_rows: str) -> str:
    """Return a SELECT that adds `PROBLEM`, the reason why a row is invalid."""
    return f"""
        SELECT * EXCLUDE ({RAW[OFFSET]}, {RAW[LENGTH]}, {UNREADABLE}), {_PROBLEM} AS {PROBLEM}
        FROM ({resolved_rows})
    """


_SOURCE_WITHOUT_QUERY = f"""
    CASE WHEN regexp_matches({SOURCE}, '{uris.HTTP_PATTERN}')
        THEN regexp_replace({SOURCE}, '{uris.QUERY_PATTERN}', '')
        ELSE {SOURCE} END
"""
"""The URI of the manifest file, without the signature of a URL."""
_CARRIED_URI = f"{_SOURCE_WITHOUT_QUERY} || '{uris.ROW_MARK}' || {ROW}"
_FOLDER = f"regexp_replace({_SOURCE_WITHOUT_QUERY}, '[^/]*$', '')"
_RESOLVED_URI = f"""
    CASE WHEN coalesce({RAW[URI]}, '') = '' AND {ROW} IS NOT NULL THEN {_CARRIED_URI}
        WHEN regexp_matches({RAW[URI]}, '{uris.ABSOLUTE_PATTERN}') OR {RAW[URI]} = '' THEN {RAW[URI]}
        ELSE {_FOLDER} || {RAW[URI]} END
"""

_MEDIA_TYPE = r"[\w!#$&^.+-]{1,127}/[\w!#$&^.+-]{1,127}"
_DATA_URI_TYPE = rf"nullif(regexp_extract(uri, '^(?i:data:)\s*({_MEDIA_TYPE})\s*[;,]', 1), '')"
_DATA_URI_ID = f"'data:' || coalesce({_DATA_URI_TYPE}, '{data_uris.DEFAULT_TYPE}') || ';sha256=' || sha256(uri)"
"""What `data_uris.hashed` returns."""
_FIRST_BYTE = f"TRY_CAST({RAW[OFFSET]} AS HUGEINT)"
_LAST_BYTE = f"({_FIRST_BYTE} + TRY_CAST({RAW[LENGTH]} AS HUGEINT) - 1)"
_BYTE_RANGE = f"coalesce('{uris.BYTES_MARK}' || {_FIRST_BYTE} || '-' || {_LAST_BYTE}, '')"
_DEFAULT_ID = (
    f"CASE WHEN regexp_matches(uri, '^(?i:data:)[^,]*,') THEN {_DATA_URI_ID} ELSE uri END || {_BYTE_RANGE}"
)

_WHOLE = r"\d+(\.0+)?"
_IS_NO_RANGE = f"""
    ({RAW[OFFSET]} IS NULL) <> ({RAW[LENGTH]} IS NULL)
    OR NOT regexp_full_match({RAW[OFFSET]}, '{_WHOLE}')
    OR NOT regexp_full_match({RAW[LENGTH]}, '{_WHOLE}')
    OR ({RAW[OFFSET]} IS NOT NULL AND ("offset" IS NULL OR length IS NULL))
"""
_PROBLEM = f"""
    CASE WHEN {UNREADABLE} IS NOT NULL THEN {UNREADABLE}
        WHEN uri IS NULL OR uri = '' THEN 'uri is missing'
        WHEN image_id = '' THEN 'image_id is empty'
        WHEN dataset IN ('', '__HIVE_DEFAULT_PARTITION__') THEN 'dataset is empty or a reserved name'
        WHEN strlen(url_encode(dataset)) > {MAX_DATASET_BYTES}
            THEN 'dataset is longer than {MAX_DATASET_BYTES} bytes percent-encoded'
        WHEN {_IS_NO_RANGE} THEN 'offset or length is missing, negative or not a whole number' END
"""
