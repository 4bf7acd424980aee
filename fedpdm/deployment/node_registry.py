"""Which Flower node is which site: the nodes are asked, and keys checked.

A node is asked once, when it first appears. A supernode that restarts may come back as
another node, so the list is looked through before every round.

A key that was registered with ``flwr supernode register KEY --name SITE`` is bound to this site:
its node can be no other. As soon as one key has a name, keys without names are refused.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from flwr.app import Message, RecordDict

from fedpdm.deployment.envelope import DESCRIBE_QUERY, Description, why
from fedpdm.deployment.grid import DeployedGrid
from fedpdm.errors import ConfigError, SiteError

Event = dict[str, Any]

LOOK_SECONDS = 0.5
"""Between two looks at the list of nodes while waiting."""
ANSWER_SECONDS = 60.0
"""A node that does not say who it is within this time is asked again."""
ASK_AGAIN_SECONDS = 15.0
"""A node that was refused is asked again after this time: its operator may have fixed it."""


@dataclass
class NodeRegistry:
    """The sites of a deployed run. A ``fedpdm.server.dispatch.Roster``.

    Args:
        grid: to the nodes.
        sites: the sites of the run, in the order of the config.
        patience: seconds that a round waits for a site that is just connecting, and that
            the run waits if no site is left at all.
        tell: where events go; they are kept until it is set.

    Attributes:
        described: what each site that was here said of itself.
    """

    grid: DeployedGrid
    sites: tuple[str, ...]
    patience: float = 20.0
    empty_patience: float = 600.0
    tell: Callable[[Event], None] | None = None
    described: dict[str, Description] = field(default_factory=dict)
    _nodes: dict[int, Description] = field(default_factory=dict)
    _asked: dict[str, Message] = field(default_factory=dict)
    _since: dict[int, float] = field(default_factory=dict)
    _refused: dict[int, tuple[str, float]] = field(default_factory=dict)
    _present: dict[int, str] = field(default_factory=dict)
    _named: bool = False
    _told: list[Event] = field(default_factory=list)
    _last: dict[str, int] = field(default_factory=dict)
    _rested: dict[int, int] = field(default_factory=dict)

    def wait(self, least: int, timeout: float) -> None:
        """Wait until ``least`` sites are connected.

        Raises:
            SiteError: they are not after ``timeout`` seconds; names who is missing, and why
                those that came were refused.
        """
        deadline = time.monotonic() + timeout
        while len(here := self._look()) < least:
            # Where every site refuses, the run is at fault, and waiting would not help.
            hopeless = not here and len(self._refused) >= least and not self._asked
            if hopeless or time.monotonic() >= deadline:
                missing = [site for site in self.sites if site not in here]
                reasons = [reason for reason, _ in self._refused.values()]
                if hopeless:
                    raise SiteError(
                        f"every site was refused: {'; '.join(reasons)}. Correct that there, "
                        "then submit the run again; the supernodes may go on"
                    )
                why = f" Refused: {'; '.join(reasons)}." if reasons else ""
                raise SiteError(
                    f"{len(here)} of {len(self.sites)} sites are connected after {timeout:g} s, "
                    f"{least} are needed; missing: {', '.join(missing)}.{why} Start their "
                    "supernodes (clients/README.md), or begin with fewer: deployment.min_plants=…"
                )
            time.sleep(LOOK_SECONDS)

    def connected(self) -> dict[str, int]:
        """Return the node of each site that can be reached now, in the order of the config.

        A node that left the last message unanswered rests for one turn: the evaluation of
        a round does not wait for it again, the next round does.

        Raises:
            SiteError: no site is connected, and none came back within ``empty_patience``.
        """
        here = self._look()
        deadline = time.monotonic() + self.patience
        while self._asked and len(here) < len(self.sites) and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)
            here = self._look()
        if not here:
            self._event("timeout", "no site is connected; waiting for one to come back")
            self.wait(1, self.empty_patience)
            here = self._look()
        silences = self.grid.silent
        resting = {node for node, count in silences.items() if self._rested.get(node) != count}
        self._rested = dict(silences)
        awake = {site: node for site, node in here.items() if node not in resting}
        return awake or here

    def agreed(self) -> Description:
        """Return what all sites have in common, as the first one says it.

        Raises:
            ConfigError: two sites cannot be in one federation; names both, and on what.
        """
        first, *others = (self.described[site] for site in self.sites if site in self.described)
        for other in others:
            if difference := other.differs(first):
                raise ConfigError(f"{difference}; all sites of a run must agree on it")
        return first

    def listen(self, tell: Callable[[Event], None]) -> None:
        """Hand over the events so far, and from now on each as it comes."""
        self.tell = tell
        while self._told:
            tell(self._told.pop(0))

    # Looking ----------------------------------------------------------------------------

    def _look(self) -> dict[str, int]:
        """Look who is there, ask newcomers who they are, and return the sites' nodes."""
        now = time.monotonic()
        self._present = {node.node_id: node.name for node in self.grid.get_nodes()}
        self._named = self._named or any(self._present.values())
        for node, said in list(self._nodes.items()):
            if node in self._present and (foreign := self._foreign(node, said.site)):
                self._nodes.pop(node)  # it came before the first key with a name
                self._refuse(node, foreign, said.site)
        while self.grid.strangers:
            self._nodes.pop(self.grid.strangers.pop(), None)
        for reply in self.grid.collect(self._asked):
            self._introduce(reply)
        waiting = {message.metadata.dst_node_id for message in self._asked.values()}
        for node in [n for n, (_, when) in self._refused.items() if now - when > ASK_AGAIN_SECONDS]:
            self._since.pop(node, None)
        for node in sorted(set(self._present) - set(self._nodes)):
            if node in waiting and now - self._since.get(node, now) < ANSWER_SECONDS:
                continue
            if node in self._refused and node in self._since:
                continue
            self._since[node] = now
            question = Message(RecordDict(), node, DESCRIBE_QUERY)
            self._asked |= self.grid.leave([question], ANSWER_SECONDS)
        here = self._sites()
        self._notice(here)
        self.grid.names = {node: site for site, node in here.items()}
        return here

    def _introduce(self, reply: Message) -> None:
        node = reply.metadata.src_node_id
        if node not in self._present:
            return  # it is gone again
        if reply.has_error():
            self._refuse(node, f"node {node}: {reply.error.reason}", None)
            return
        try:
            said = Description.of(reply.content)
        except Exception as error:  # a stranger must not end the run
            reason = f"node {node}: what it says of itself cannot be read ({why(error)})"
            self._refuse(node, reason, None)
            return
        if said.site not in self.sites:
            names = ", ".join(self.sites[:20])
            self._refuse(node, f"node {node} says it is {said.site}; the run has {names}", None)
            return
        if foreign := self._foreign(node, said.site):
            self._refuse(node, foreign, said.site)
            return
        peers = [d for site, d in self.described.items() if site != said.site]
        difference = next((d for peer in peers if (d := said.differs(peer))), None)
        if difference is not None and self.tell is not None:  # the run has begun without it
            self._refuse(node, difference, said.site)
            return
        self._refused.pop(node, None)
        self.grid.silent.pop(node, None)
        self._nodes[node] = said
        before = self.described.setdefault(said.site, said)
        if before.shape.get("sha256") != said.shape.get("sha256"):
            changed = f"{said.site} has come back with other data than it had before"
            self._event("warning", changed, said.site)

    def _foreign(self, node: int, site: str) -> str | None:
        """Return why a node's key does not belong to a site, or None."""
        name = self._present[node]
        if name == site or not (name or self._named):
            return None
        return (
            f"node {node} says it is {site} and its key is registered "
            f"{f'as {name}' if name else 'without a name'}; a site's key is registered with flwr "
            f"supernode register KEY --name {site}"
        )

    def _sites(self) -> dict[str, int]:
        """Return one node per site: of two that claim to be it, the first that answers."""
        here: dict[str, int] = {}
        for site in self.sites:
            claims = [n for n, said in self._nodes.items() if said.site == site]
            claims = [n for n in claims if n in self._present]
            if not claims:
                continue
            answering = [n for n in claims if n not in self.grid.silent]
            here[site] = (answering or claims)[0]
            for other in answering[1:]:
                reason = f"node {other} also says it is {site}; the first one stays"
                if self._refused.get(other, ("", 0.0))[0] != reason:
                    self._refuse(other, reason, site)
        return here

    def _notice(self, here: dict[str, int]) -> None:
        """Note who has gone and who has come back since the last look."""
        for site, node in here.items():
            if site in self._last and self._last[site] != node:
                self._event("connected", f"{site} is connected again, as node {node}", site)
        for site in [s for s in self._last if s not in here and self._last[s] in self._nodes]:
            self._event("disconnected", f"{site} has disconnected", site)
            self._nodes.pop(self._last[site])  # asked again when it is back
            self._last[site] = -1
        self._last |= here

    def _refuse(self, node: int, reason: str, site: str | None) -> None:
        if self._refused.get(node, ("", 0.0))[0] != reason:
            self._event("plant-refused", reason, site)
        self._refused[node] = (reason, time.monotonic())

    def _event(self, kind: str, message: str, site: str | None = None) -> None:
        event = {"kind": kind, "site": site, "message": message}
        if self.tell is None:
            print(f"note: {message}", flush=True)
            self._told.append(event)
        else:
            self.tell(event)
