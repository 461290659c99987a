"""The model: hosts that connect, request and send blocks, until all have the image."""

from __future__ import annotations

import random
from operator import add

from benchmarks.bound import HEADERS
from benchmarks.simulate import tracker
from benchmarks.simulate.event_queue import EventQueue
from benchmarks.simulate.piece_picker import PiecePicker
from benchmarks.simulate.policy import (
    IMPATIENT_SECONDS,
    Policy,
    Priority,
    View,
)
from benchmarks.simulate.scenario import MESSAGE, Scenario
from benchmarks.simulate.state import Host, Link, all_pieces, only
from benchmarks.simulate.tracker import SimulatedTracker
from docket.torrent.hash_exchange import PEER_SECONDS
from docket.torrent.peer.session_tuning import REQUEST_DEPTH, SWARM_DEPTH
from docket.torrent.peer_id import GATEWAY_PEER, HOST_PEER, REGISTRY_PEER
from docket.torrent.tracker.announce import COMPLETED

_MOST_PEERS = 4000
"""Connections of one host: ``connections_limit`` in `docket.torrent.peer.session`."""

_SLOW_START_SECONDS = 2.0

_QUIET_LOOK_SECONDS = 1.0
"""A host for which no piece came, none got less rare, and nobody came or went, looks as often."""

_SHAKES = 3
"""Words until two peers know what each of them has."""


class Model:
    """One run of a scenario."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        # of a model, so that a run can be had again
        self._chance = random.Random(scenario.seed)  # noqa: S311
        self._event_queue = EventQueue()
        self._picker = PiecePicker(scenario.pieces, scenario.units, self._chance)
        self._crowd_depth = max(SWARM_DEPTH // scenario.grain, 1)
        self._unit_seconds = scenario.unit_seconds
        self.registry = self._host(-1)
        self.registry.announced = all_pieces(scenario.pieces)
        self.registry.announced_count = scenario.pieces
        self.registry.done = 0.0
        self.hosts = [self._host(number) for number in range(scenario.hosts)]
        self._tracker = SimulatedTracker(
            self.registry, self.hosts, lambda: self._event_queue.now, scenario.seed
        )
        self._fetching = scenario.hosts

    @property
    def now(self) -> float:
        """Seconds since the beginning."""
        return self._event_queue.now

    def run(self) -> None:
        """Until all hosts that live are done, or the limit is reached."""
        for host in self.hosts:
            self._event_queue.at(self._chance.uniform(0, self.scenario.spread), self._begin, host)
        self._event_queue.run(lambda: not self._fetching, self.scenario.limit)

    def _host(self, number: int) -> Host:
        pieces, units = self.scenario.pieces, self.scenario.units
        is_registry = number < 0
        peer_id = (REGISTRY_PEER if is_registry else HOST_PEER) + b"%012x" % (
            self._chance.getrandbits(48)
        )
        return Host(
            number=number,
            peer_id=peer_id,
            compact=tracker.endpoint(number),
            zone=tracker.zone(number, self.scenario.zone),
            policy=self._policy(peer_id),
            have=[is_registry] * pieces,
            availability=[0] * pieces,
            missing=[0 if is_registry else units] * pieces,
            speed=self.scenario.registry_speed if is_registry else 1.0,
        )

    def _policy(self, peer_id: bytes) -> Policy:
        pieces = self.scenario.pieces
        return Policy(peer_id, pieces, self.scenario.payload / pieces)

    def _begin(self, host: Host) -> None:
        """*host* requests the piece hashes; the registry sends them, or names a host that does."""
        host.began = self.now
        for number, seconds in self.scenario.deaths:
            if number == host.number:
                self._event_queue.at(self.now + seconds, self._die, host)
        admission = self._tracker.join(host)
        if admission.is_gateway:
            host.peer_id = GATEWAY_PEER + host.peer_id[len(GATEWAY_PEER) :]
        asked_at = self.now + 2 * self.scenario.delay
        if admission.hash_peer:
            server = self.hosts[int(admission.hash_peer.partition(":")[0])]
            asked_at += 2 * self.scenario.delay
            if not server.dead and max(server.knows, server.sends_until) < asked_at + PEER_SECONDS:
                self._receive_hashes(host, server, asked_at)
                return
            asked_at += PEER_SECONDS + 2 * self.scenario.delay
        self._receive_hashes(host, self.registry, asked_at)

    def _receive_hashes(self, host: Host, sender: Host, asked_at: float) -> None:
        """*sender* serves requests for hashes in turn, and its blocks wait for that."""
        size = self.scenario.torrent * HEADERS
        busy = self.scenario.seconds(size) / sender.speed
        sender.sends_until = max(sender.sends_until, sender.knows, asked_at) + busy
        sender.pending += busy
        sender.egress += size
        host.knows = max(sender.sends_until, asked_at + self.scenario.seconds(size))
        self._event_queue.at(host.knows, self._join, host)

    def _join(self, host: Host) -> None:
        if host.dead:
            return
        host.policy = self._policy(host.peer_id)
        host.lacking = host.open = all_pieces(self.scenario.pieces)
        host.joined = host.moved = self.now
        self._announce(host, "started")
        self._look(host)

    def _announce(self, host: Host, event: str) -> None:
        """Ask the tracker; the answer, and then the handshakes, take their time."""
        if host.dead:
            return
        for peer in self._tracker.announce(host, event):
            if peer.number not in host.takes and not (
                host.is_disconnected and peer is self.registry
            ):
                # after a request and its response
                soon = self.now + (2 + _SHAKES) * self.scenario.delay
                self._event_queue.at(soon, self._connect, host, peer)
        if event in ("", "started"):
            self._event_queue.at(self.now + self._tracker.interval, self._announce, host, "")

    def _connect(self, host: Host, neighbour: Host) -> None:
        if neighbour.number in host.takes or host.dead or neighbour.dead:
            return
        if max(len(host.takes), len(neighbour.takes)) >= _MOST_PEERS:
            return
        for taker, giver in ((host, neighbour), (neighbour, host)):
            link = Link(taker, giver)
            taker.takes[giver.number] = link
            taker.has_changed = True
            giver.gives.append(link)
            if giver is self.registry:
                self._tracker.connected(taker)
            if giver.announced_count == self.scenario.pieces:
                taker.seeds += 1
            if giver.announced:
                flags = giver.announced.to_bytes(self.scenario.pieces, "little")
                taker.availability = list(map(add, taker.availability, flags))
                self._ask(link)

    def _disconnect_registry(self, host: Host) -> None:
        """Disconnect from the registry while the policy is idle; then reconnect."""
        link = host.takes.get(self.registry.number)
        if host.policy.is_idle and link:
            host.is_disconnected = True
            back = self.registry.takes[host.number]
            host.gives.remove(back)
            self._lose(back, host)
            self._lose(link, self.registry)
        elif host.is_disconnected and not host.policy.is_idle:
            host.is_disconnected = False
            self._event_queue.at(
                self.now + _SHAKES * self.scenario.delay, self._connect, host, self.registry
            )

    # what is asked

    def _look(self, host: Host) -> None:
        """What docket's download does every 0.2 s."""
        if host.done is not None or host.dead:
            return
        self._event_queue.at(self.now + self.scenario.look, self._look, host)
        givers = (link.giver for link in host.takes.values())
        others = {
            link.peer_id: link.announced_count
            for link in givers
            if link.announced_count < self.scenario.pieces
        }
        view = View(
            have=host.have,
            availability=host.availability,
            seeds=host.seeds,
            others=others,
            now=self.now,
            rate=host.came / self.scenario.units / max(self.now - host.joined, self.scenario.look),
            quiet=self.now - host.moved,
        )
        host.is_shallow = host.policy.depth(view) == SWARM_DEPTH
        stalled = host.policy.stalled(view)
        if (
            host.has_changed
            or stalled != host.is_urgent
            or self.now - host.looked > _QUIET_LOOK_SECONDS
        ):
            host.has_changed = False
            host.looked = self.now
            if changes := host.policy.update(view):
                self._prioritize(host, changes)
            self._disconnect_registry(host)
        if stalled != host.is_urgent:
            host.is_urgent = stalled
            if stalled:
                self._ask_all(host, list(host.takes.values()))
        if host.called < host.moved < self.now - IMPATIENT_SECONDS:
            host.called = self.now
            self._announce(host, " ")

    def _prioritize(self, host: Host, changes: list[tuple[int, Priority]]) -> None:
        for piece, priority in changes:
            bit = only(piece)
            host.first = host.first | bit if priority == Priority.HIGH else host.first & ~bit
            if not priority:
                host.kept |= bit
                host.open &= ~bit
            elif host.kept & bit:
                host.kept &= ~bit
                self._picker.reopen(host, piece)
        self._ask_all(host, list(host.takes.values()))

    def _ask_all(self, host: Host, links: list[Link]) -> None:
        """Ask on those of *links* on which there may be something to ask."""
        in_end_game = self._picker.in_end_game(host)
        for link in links:
            if link.giver.announced & host.open or (in_end_game and not link.outstanding):
                self._ask(link)

    def _ask(self, link: Link) -> None:
        """Fill the line at the giver."""
        taker = link.taker
        if link.gone or taker.done is not None:
            return
        depth = self._depth(link)
        while link.outstanding < depth:
            unit = self._picker.pick(link)
            if unit is None:
                break
            taker.asked.setdefault(unit, []).append(link)
            link.outstanding += 1
            link.requests.append(unit)
            self._queue(link)
        if link.outstanding:
            taker.idle.pop(link.giver.number, None)
        else:
            taker.idle[link.giver.number] = link

    def _depth(self, link: Link) -> int:
        """Parts that may be on their way from one peer."""
        if link.is_slow_start and 0 <= link.began < self.now - _SLOW_START_SECONDS:
            link.is_slow_start = False
        if link.is_slow_start:
            blocks = min(link.ahead, REQUEST_DEPTH)
        elif link.taker.is_shallow:
            return self._crowd_depth
        else:
            blocks = min(max(link.before, SWARM_DEPTH), REQUEST_DEPTH)
        return max(blocks // self.scenario.grain, 1)

    # what moves

    def _queue(self, link: Link) -> None:
        giver = link.giver
        if not link.in_turn:
            link.in_turn = True
            giver.turn.append(link)
        if not giver.sending:
            giver.sending = True
            self._event_queue.at(self.now + self.scenario.delay, self._send, giver)

    def _send(self, giver: Host) -> None:
        turn = giver.turn
        while turn and not giver.dead:
            link = turn.popleft()
            if link.requests:
                unit = link.requests.pop(0)
                end = self.now + self._unit_seconds / giver.speed + giver.pending
                giver.pending = 0.0
                self._event_queue.at(end, self._sent, link, unit)
                return
            link.in_turn = False
        giver.sending = False

    def _sent(self, link: Link, unit: int) -> None:
        giver, taker = link.giver, link.taker
        giver.egress += self.scenario.unit_bytes * HEADERS
        if link.requests:
            giver.turn.append(link)
        else:
            link.in_turn = False
        arrival = taker.down_free + self._unit_seconds
        if arrival <= self.now:
            taker.down_free = self.now
            self._arrive(link, unit)
        else:
            taker.down_free = arrival
            self._event_queue.at(arrival, self._arrive, link, unit)
        self._send(giver)

    def _arrive(self, link: Link, unit: int) -> None:
        taker = link.taker
        if link.gone or taker.done is not None:
            return
        link.outstanding -= 1
        self._count(link)
        askers = taker.asked.pop(unit, None)
        if askers is not None:
            taker.moved = self.now
            taker.came += 1
            for asker in askers:
                if unit in asker.requests:
                    asker.requests.remove(unit)
                    asker.outstanding -= 1
                    self._ask(asker)
            piece = unit // self.scenario.units
            taker.missing[piece] -= 1
            if not taker.missing[piece]:
                self._complete(taker, piece)
        self._ask(link)

    def _count(self, link: Link) -> None:
        if link.began < 0:
            link.began = self.now
        link.ahead += self.scenario.grain
        second = int(self.now)
        if second != link.second:
            link.before = link.came if second == link.second + 1 else 0
            link.second, link.came = second, 0
        link.came += self.scenario.grain

    def _complete(self, host: Host, piece: int) -> None:
        """A piece is here."""
        bit = only(piece)
        host.have[piece] = True
        host.has_changed = True
        host.lacking &= ~bit
        messages = self.scenario.seconds(MESSAGE * len(host.gives))
        host.pending += messages
        # about as many arrive from others
        host.down_free = max(host.down_free, self.now) + messages
        self._event_queue.at(self.now + self.scenario.delay, self._announce_piece, host, piece)
        if not host.lacking:
            self._end(host)
            return
        self._ask_all(host, [link for link in host.idle.values() if link.giver.announced & bit])

    def _announce_piece(self, host: Host, piece: int) -> None:
        """All peers learn that *host* has *piece*."""
        if host.dead:
            return
        before = host.announced
        bit = only(piece)
        host.announced |= bit
        host.announced_count += 1
        is_seed = host.announced_count == self.scenario.pieces
        for link in host.gives:
            taker = link.taker
            if taker.done is not None:
                continue
            taker.availability[piece] += 1
            if taker.availability[piece] <= taker.seeds + 1:
                taker.has_changed = True
            if is_seed:
                taker.has_changed = True
                taker.seeds += 1
            # one that was interesting before isn't asked anew by libtorrent
            if (
                not link.outstanding
                and taker.open & bit
                and not before & taker.lacking & ~taker.kept
            ):
                self._ask(link)

    # who comes to an end

    def _end(self, host: Host) -> None:
        """*host* has all, and goes on as a seed."""
        host.done = self.now
        self._fetching -= 1
        for link in host.takes.values():
            link.requests.clear()
        host.idle.clear()
        host.asked.clear()
        self._announce(host, COMPLETED)

    def _die(self, host: Host) -> None:
        """*host* is gone, and its peers see that at once, as when a program is killed."""
        if host.done is None:
            self._fetching -= 1
        host.dead = True
        for link in host.takes.values():
            link.gone = True
            link.requests.clear()
        for link in host.gives:
            self._lose(link, host)

    def _lose(self, link: Link, host: Host) -> None:
        taker = link.taker
        link.gone = True
        link.requests.clear()
        taker.has_changed = True
        del taker.takes[host.number]
        taker.idle.pop(host.number, None)
        if host.announced_count == self.scenario.pieces:
            taker.seeds -= 1
        flags = host.announced.to_bytes(self.scenario.pieces, "little")
        taker.availability = [
            count - flag for count, flag in zip(taker.availability, flags, strict=True)
        ]
        for unit, links in list(taker.asked.items()):
            if link in links:
                links.remove(link)
                if not links:
                    del taker.asked[unit]
                    self._picker.give_back(taker, unit)
        self._ask_all(taker, list(taker.takes.values()))
