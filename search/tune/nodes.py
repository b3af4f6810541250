"""The nodes of a cluster as a search sees them: how many trials they hold now, and which of them it leaves alone.

Nodes come and go while a search runs. A node that joins is used at once. One that does not see the run's folder gives
back the trial that it got, which costs the trial nothing, and gets no other for the rest of the search.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from search.spec.sections import SearchSpec
from search.tune.capacity import alive_nodes, capacity, startable, torch_uses_gpus, trials_at_once, usable_nodes

LOOK_S = 2.0  # between two looks at the cluster
PATIENCE_S = 300.0  # that a search waits for a node that sees its folder, once every node that is there does not
ENOUGH = 3  # nodes that do not see the folder: those that a launcher would start are no better
NODE_ID = "ray.io/node-id"  # label that Ray itself gives to each node


class Nodes:
    """Which nodes hold trials, and how many trials they hold together. It tells what changes in lines for people."""

    def __init__(
        self,
        spec: SearchSpec,
        say: Callable[[str], None] = print,
        autoscaled: bool = False,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """Look at the cluster.

        Args:
            say: takes one line.
            autoscaled: on a cluster that may start nodes, not on this machine alone.
            patience_s: how long the search may wait once all of its nodes are left alone.

        Raises:
            InputError: no node has what one trial asks for, and none that has it can be started.
        """
        capacity(spec.resources, autoscaled)
        self.resources, self.say = spec.resources, say
        self._most = min(spec.resources.concurrent or spec.budget.trials, spec.budget.trials)
        self._autoscaled, self._patience_s = autoscaled, patience_s
        self._left_alone: dict[str, str] = {}  # node -> why
        self._hopeless_since: float | None = None
        self._known: dict[str, str] = {}  # node -> address
        self._room, self._looked = 0, 0.0
        self.at_once()

    def at_once(self) -> int:
        """Trials that may run now: what the spec says or what fits, never more than fit or than are wanted.

        0 while no node holds one.
        """
        if time.monotonic() - self._looked > LOOK_S or not self._looked:
            self._look()
        return self._room

    def leave_alone(self, node: str, address: str, why: str) -> None:
        """Give the node no trial from now on."""
        if node in self._left_alone:
            return
        self._left_alone[node] = why
        self.say(f"node {address} is left alone from now on: {why}")
        self._look()

    def selector(self) -> dict[str, str]:
        """Labels that Ray asks of a node that gets a trial: none of those that are left alone."""
        return {NODE_ID: f"!in({','.join(sorted(self._left_alone))})"} if self._left_alone else {}

    def hopeless(self) -> str:
        """Why no node that is there will ever do, once the search has waited long enough for another; else empty."""
        if self._room or not self._left_alone:
            self._hopeless_since = None
            return ""
        if self._hopeless_since is None:
            self._hopeless_since = time.monotonic()
            if self._patience_s:
                self.say(f"no other node holds a trial: waiting {self._patience_s:.0f} s for one that does")
        if time.monotonic() - self._hopeless_since < self._patience_s:
            return ""
        return next(reversed(self._left_alone.values()))

    def _look(self) -> None:
        nodes = alive_nodes()
        self._looked = time.monotonic()
        left = self._left_alone.keys()
        here = [resources for node, (_, resources) in nodes.items() if node not in left]
        if not self._autoscaled:
            here = usable_nodes(here, torch_uses_gpus)
        room = trials_at_once(here, self.resources)
        if self._autoscaled and len(left) < ENOUGH:
            room = max(room, trials_at_once(startable(), self.resources))
        addresses = {node: address for node, (address, _) in nodes.items()}
        room, before = min(room, self._most), self._room
        if self._known:
            self._tell(self._known, addresses, before, room)
        self._known, self._room = addresses, room

    def _tell(self, before: Mapping[str, str], now: Mapping[str, str], was: int, room: int) -> None:
        """A line for nodes that came or went, with the number of trials where that makes it another."""
        changes = [f"node {now[node]} joined" for node in now if node not in before]
        changes += [f"node {before[node]} is gone" for node in before if node not in now]
        if not changes and was == room:
            return
        trials = {0: "no node holds a trial, waiting for one", 1: "1 trial at once"}.get(room, f"{room} trials at once")
        self.say(", ".join(changes or ["the cluster changed"]) + (f": {trials}" if was != room else ""))
