"""Start a submitted run. A job may get another Python than the cluster's, without LakeLens's packages.

Old versions of Python must be able to read this file, with the standard library alone.
"""

import importlib
import sys

NEEDED = (3, 11)


def main() -> None:
    """Run a command, or report which Python this is and what it lacks."""
    if sys.version_info < NEEDED:
        return _refuse("is version " + sys.version.split()[0] + ", but LakeLens needs 3.11 or newer")
    try:
        command = importlib.import_module("jobs.__main__")
        importlib.import_module("jobs." + sys.argv[1])
    except ModuleNotFoundError as error:
        return _refuse("has no package " + str(error.name).split(".")[0])
    command.main()


def _refuse(reason: str) -> None:
    message = "The Python of this job, " + sys.executable + ", " + reason + ". "
    message += "Install LakeLens's packages there, or name a Python that has them: lakelens submit --python PATH."
    if sys.version_info >= NEEDED:
        from jobs import logs

        if logs.as_json():
            logs.event("failed", "error", message=message)
            sys.exit(2)
    sys.stderr.write("error: " + message + "\n")
    sys.exit(2)


if __name__ == "__main__":
    main()
