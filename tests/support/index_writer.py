"""A program that updates the index of an output, for tests that kill it."""

import sys

from tests.support.indexes import refreshed

if __name__ == "__main__":
    refreshed(sys.argv[1])
