"""Names of columns are known without Arrow, and are those of the schemas."""

import subprocess
import sys

from pipeline import column_names, schema


def test_the_reserved_names_are_those_of_the_schemas() -> None:
    assert {*schema.PREDICTIONS.names, *schema.PENDING.names, schema.PIXELS} == column_names.RESERVED


def test_a_config_is_read_without_arrow() -> None:
    code = "import pipeline.config, sys; sys.exit('pyarrow' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
