"""The start of a submitted run: a job may get another Python than the cluster's own, which lacks packages.

It has to be read by old versions of Python, and by those that have the standard library alone.
"""

import importlib
import sys

NEEDED = (3, 11)


def main() -> None:
    """Run a command, or say which Python this is, and what it lacks."""
    if sys.version_info < NEEDED:
        return _refuse("is version " + sys.version.split()[0] + ", and LakeLens needs 3.11 or newer")
    try:
        command = importlib.import_module("jobs.__main__")
        importlib.import_module("jobs." + sys.argv[1])
    except ModuleNotFoundError as error:
        return _refuse("has no package " + str(error.name).split(".")[0])
    command.main()


def _refuse(reason: str) -> None:
    message = "The Python of this job, " + sys.executable + ", " + reason + ": "
    message += "name one that has LakeLens's packages with `lakelens submit --python PATH`, or install them there."
    if sys.version_info >= NEEDED:
        from jobs import logs

        if logs.as_json():
            logs.event("failed", "error", message=message)
            sys.exit(2)
    sys.stderr.write("error: " + message + "\n")
    sys.exit(2)


if __name__ == "__main__":
    main()
