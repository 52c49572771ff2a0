"""A Pillow plug-in that does what its files say. Python imports it in any process with this folder on its path.

b"HOSTILE exit 3" ends the process, "kill 11" sends it a signal, "loop" and "sleep" never end, "eat 8" allocates so
many GB, "leak 100" keeps so many MB and decodes, "slow 0.3" takes so many seconds and decodes.
"""

import os
import time

from PIL import Image, ImageFile

MAGIC = b"HOSTILE "
kept = []


class HostileImageFile(ImageFile.ImageFile):
    format = "HOSTILE"

    def _open(self) -> None:
        self._size, self._mode, self.tile = (8, 8), "RGB", []
        self._words = self.fp.read().decode().split()[1:]

    def load(self):  # type: ignore[no-untyped-def]
        action, value = [*self._words, "0", "0"][:2]
        self._words = []  # Pillow loads more than once
        if action == "exit":
            os._exit(int(value))
        if action == "kill":
            os.kill(os.getpid(), int(value))
        while action == "loop":
            pass
        if action in ("sleep", "slow"):
            time.sleep(float(value) or 1e6)
        if action == "eat":
            kept.extend(bytearray(b"x" * (1 << 30)) for _ in range(int(value)))
        if action == "leak":
            kept.append(b"x" * (int(value) << 20))
        self._im = Image.core.fill("RGB", (8, 8), (1, 2, 3))
        return super().load()


Image.register_open(HostileImageFile.format, HostileImageFile, lambda prefix: prefix.startswith(MAGIC))
