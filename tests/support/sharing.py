"""How pytest processes share the files: one gets all that have Ray, and a test that ends its process is over.

Two clusters at once are too much for two cores.
"""

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest


@cache
def has_ray(file: Path) -> bool:
    """By its text: the process that hands out the files has not imported them."""
    return bool(re.search(r"local_cluster|mark\.ray", file.read_text()))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """For pytest-xdist, if it is there."""
    from xdist.scheduler import LoadScopeScheduling

    class Sharing(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "ray" if has_ray(config.rootpath / file) else file

        def remove_node(self, node: Any) -> str | None:
            """The test at which a process has ended; xdist's own would run it again, and again."""
            units = [unit for unit in self.assigned_work.pop(node).values() if not all(unit.values())]
            if not units:
                return None
            ended = next(test for test, done in units[0].items() if not done)
            units[0][ended] = True
            left = {self._split_scope(next(iter(unit))): unit for unit in units if not all(unit.values())}
            self.workqueue.update(left)
            for name in reversed(left):
                self.workqueue.move_to_end(name, last=False)
            for other in self.assigned_work:
                self._reschedule(other)
            return ended

    return Sharing(config, log)
