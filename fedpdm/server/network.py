"""How long sites work and messages travel in a simulated network, and what goes wrong there.

A site gets a message after the latency and the time that its bytes take, waits until it is on and
done with what it was given before, makes its local steps, and answers:

    down = latency + bytes down / bandwidth
    work = local steps * step_seconds / speed * (straggle_factor, of a straggler)
    up   = latency + bytes up / bandwidth + (delay, of a late reply)

A site that drops out breaks its work off; so does one that goes off before its reply is sent. Its
signs of life stop then, and the server gives it up heartbeat_timeout after the last one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fedpdm.errors import ConfigError
from fedpdm.seeding import numpy_generator
from fedpdm.server.availability import Always, Availability, diurnal, read_trace
from fedpdm.server.clock import Clock

OWN = ("speed", "bandwidth", "latency")
"""Settings that a site may have of its own."""


@dataclass(frozen=True)
class SiteTimes:
    """What a site's durations are made of: speed, bytes a second (infinite: no limit), seconds."""

    speed: float
    bandwidth: float
    latency: float


@dataclass(frozen=True)
class Fate:
    """What comes of a message. Times are simulated seconds.

    Attributes:
        arrives: when the reply is at the server; None for never.
        copy: when a copy of it is; None for no copy.
        gives_up: when the server stops waiting; None for never.
        free: when the site is done with it.
    """

    arrives: float | None
    copy: float | None
    gives_up: float | None
    free: float


class SimulatedNetwork(Clock):
    """Clocks that know how long sites work and messages travel.

    Args:
        step_seconds: of one local step at a site of speed 1.
        bandwidth: bytes a second, each way; null: no limit.
        latency: seconds, each way.
        spread: deviation of the logarithm of a site's speed and of its bandwidth; 0: all alike.
        slow_share: share of the sites, drawn from the seed, that are always slow.
        slow_factor: how many times slower those are.
        straggle_share: share of the jobs that take longer than usual at their site.
        straggle_factor: how many times longer.
        dropout: share of the jobs that a site breaks off.
        late: share of the replies that are delayed.
        duplicate: share of the replies that come twice.
        delay: mean seconds of such a delay, and until a copy comes.
        heartbeat_interval: seconds between two signs of life of a site at work; null: none.
        heartbeat_timeout: so many seconds after the last one a site is given up.
        availability: always, diurnal, or a CSV of intervals: site,on,off in seconds.
        on_hours: of availability=diurnal: for how many hours a day a site is on.
        sites: speed, bandwidth and latency of single sites, by name.

    Raises:
        ConfigError: a value is out of its range.
    """

    def __init__(
        self,
        step_seconds: float = 1.0,
        bandwidth: float | None = 125_000.0,
        latency: float = 0.1,
        spread: float = 0.0,
        slow_share: float = 0.0,
        slow_factor: float = 10.0,
        straggle_share: float = 0.0,
        straggle_factor: float = 10.0,
        dropout: float = 0.0,
        late: float = 0.0,
        duplicate: float = 0.0,
        delay: float = 60.0,
        heartbeat_interval: float | None = 10.0,
        heartbeat_timeout: float = 30.0,
        availability: str = "always",
        on_hours: float = 12.0,
        sites: dict[str, dict[str, float | None]] | None = None,
    ) -> None:
        super().__init__()
        self._step_seconds = _within("step_seconds", step_seconds, 0.0)
        self._slow = _within("slow_share", slow_share, 0.0, 1.0), _factor("slow", slow_factor)
        self._straggle = (
            _within("straggle_share", straggle_share, 0.0, 1.0),
            _factor("straggle", straggle_factor),
        )
        self._dropout = _within("dropout", dropout, 0.0, 0.95)
        self._late, self._duplicate = (
            _within("late", late, 0.0, 1.0), _within("duplicate", duplicate, 0.0, 1.0)
        )  # fmt: skip
        self._delay = _within("delay", delay, 0.0)
        self._heartbeat = heartbeat_interval, _within("heartbeat_timeout", heartbeat_timeout, 0.0)
        if heartbeat_interval is not None and not 0 < heartbeat_interval <= heartbeat_timeout:
            raise ConfigError(
                f"clock.heartbeat_interval={heartbeat_interval} must be above 0 and at most "
                f"heartbeat_timeout ({heartbeat_timeout:g}): else sites at work were given up"
            )
        self._availability = availability
        self._on_hours = _within("on_hours", on_hours, 0.1, 24.0)
        self._spread = _within("spread", spread, 0.0, 5.0)
        self._common = SiteTimes(1.0, *_link("", bandwidth, latency))
        self._own = {str(site): _own(str(site), said) for site, said in (sites or {}).items()}
        self._presence: Availability = Always()
        self._steps: Callable[[int], int] = lambda examples: 0
        self._seed = 0
        self._timeout: float | None = None
        self._times: dict[str, SiteTimes] = {}
        self._trace: str | None = None

    def prepare(
        self,
        sites: Sequence[str],
        seed: int,
        steps: Callable[[int], int],
        timeout: float | None,
    ) -> None:
        self._seed, self._steps, self._timeout = seed, steps, timeout
        if unknown := sorted(set(self._own) - set(sites)):
            raise ConfigError(f"clock.sites.{unknown[0]}: there is no such site in this run")
        losing = self._dropout > 0 or self._availability != "always"
        if losing and self._heartbeat[0] is None and timeout is None:
            raise ConfigError(
                "clock.heartbeat_interval=null: a site that drops out would be waited for for "
                "ever; set it, or round_timeout"
            )
        if self._availability == "diurnal":
            self._presence = diurnal(sites, self._on_hours, seed)
        elif self._availability != "always":
            self._presence, self._trace = read_trace(Path(self._availability), sites)
        share, factor = self._slow
        count = round(share * len(sites))
        drawn = numpy_generator(seed, "clock", "slow").permutation(len(sites))[:count]
        slow = {sites[place] for place in drawn}
        for site in sites:
            made = self._common
            draw = numpy_generator(seed, "clock", "site", site)
            speed, bandwidth = np.exp(draw.normal(0.0, self._spread, 2)) if self._spread else (1, 1)
            made = SiteTimes(
                float(speed) / (factor if site in slow else 1.0),
                made.bandwidth * float(bandwidth),
                made.latency,
            )
            own = self._own.get(site, {})
            self._times[site] = replace(made, **own)

    def fate(
        self,
        site: str,
        key: tuple[int | str, ...],
        now: float,
        free: float,
        sizes: tuple[int, int],
        examples: int,
    ) -> Fate:
        """Return what comes of a message to a site.

        Args:
            site: its name.
            key: of the message: what is drawn is drawn for it.
            now: when it is sent.
            free: when the site is done with what it was given before.
            sizes: bytes down and up.
            examples: that the site trained on.
        """
        draw = numpy_generator(self._seed, "clock", "message", site, *key)
        chance = draw.random(5)  # always as many, so that one setting does not change the others
        waits = draw.exponential(1.0, 2) * self._delay
        times = self._times[site]
        work = self._steps(examples) * self._step_seconds / times.speed
        if chance[0] < self._straggle[0]:
            work *= self._straggle[1]
        down, up = (times.latency + size / times.bandwidth for size in sizes)
        begin = self._presence.next_on(site, max(now + down, free))
        off, done = self._presence.off(site, begin), begin + work
        broken = begin + float(chance[2]) * work if chance[1] < self._dropout else math.inf
        broken = min(broken, off if off < done + up else math.inf)
        gives_up = self._gives_up(now, broken)
        if broken < math.inf:
            return Fate(None, None, gives_up, broken)
        arrives = done + up + (float(waits[0]) if chance[3] < self._late else 0.0)
        copy = arrives + float(waits[1]) if chance[4] < self._duplicate else None
        return Fate(arrives, copy, gives_up, done)

    def _gives_up(self, sent: float, broken: float) -> float | None:
        """Return when the server stops waiting for a site that breaks its work off, or never."""
        limits = [] if self._timeout is None else [sent + self._timeout]
        interval, timeout = self._heartbeat
        if broken < math.inf and interval is not None:
            limits.append(sent + math.floor((broken - sent) / interval) * interval + timeout)
        return min(limits, default=None)


def _within(name: str, value: float, least: float, most: float = 1e12) -> float:
    if not least <= value <= most:
        bound = f" and at most {most:g}" if most < 1e12 else ""
        raise ConfigError(f"clock.{name}={value} must be at least {least:g}{bound}")
    return float(value)


def _factor(name: str, value: float) -> float:
    return _within(f"{name}_factor", value, 1.0, 1e6)


def _link(place: str, bandwidth: float | None, latency: float | None) -> tuple[float, float]:
    speed = math.inf if bandwidth is None else _within(f"{place}bandwidth", bandwidth, 1e-3)
    return speed, _within(f"{place}latency", 0.0 if latency is None else latency, 0.0)


def _own(site: str, said: Mapping[str, float | None]) -> dict[str, float]:
    """Return the settings of one site, checked."""
    place = f"sites.{site}."
    if unknown := sorted(set(said) - set(OWN)):
        raise ConfigError(f"clock.{place}{unknown[0]}: a site has {', '.join(OWN)} of its own")
    own: dict[str, float] = {}
    if (speed := said.get("speed")) is not None:
        own["speed"] = _within(f"{place}speed", speed, 1e-6)
    if "bandwidth" in said:
        own["bandwidth"] = _link(place, said["bandwidth"], None)[0]
    if (latency := said.get("latency")) is not None:
        own["latency"] = _link(place, None, latency)[1]
    return own
