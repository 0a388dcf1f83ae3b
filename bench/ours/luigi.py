"""Luigi's own command line and workers, with Kobza in the place of luigid."""

from __future__ import annotations

from ours.sides import Side
from peers.luigi import Luigi


class KobzaLuigi(Luigi):
    key = "kobza-luigi"
    name = "Kobza, Luigi workers"

    place = "bench-luigi"
    own_footprint = False

    def start(self) -> None:
        self.side = Side(self.kobza)
        self.side.start()
        self.healthy_after = self.side.healthy_after
        self.scheduler = f"http://127.0.0.1:{self.side.server.port}/luigi"

    def memory(self) -> float:
        return self.side.memory()

    def stop(self) -> None:
        self.side.stop()
        super().stop()
