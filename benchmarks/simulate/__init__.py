"""A fleet that pulls one image at once, simulated by events: for fleets too large for the lab.

The policy is docket's own code: `PieceAssignment` looks at each host's pieces as often as a
download does, and `Tracker` chooses the peers that each announce returns. Modelled is the rest:

- Every host has one link of the same rate, so has the registry. An uplink sends one block after the
  other, in turn to each peer that has asked; a downlink takes in one after the other. Headers cost
  5 % of the payload, a message about a piece 80 bytes for each peer. Nothing is lost, and no TCP
  has to find its rate.
- Peers receive messages about pieces, and about each other, some milliseconds later.
- Blocks are picked as libtorrent does it with docket's settings: of what a peer has, the rarest of
  the highest priority, begun pieces first; a block from one peer only, but for the end game.
  Requests ahead are 4 and one more for each block that comes in a connection's first two seconds,
  then 2 in a large swarm, else what came in a second, up to 64.
- Hosts begin within some seconds, stay as seeds when done, and hash and write in no time. One for
  which nothing is new looks once a second instead of every 0.2 s.

With *grain* 1 the model moves blocks of 16 KiB; with more, that many blocks at once. In one network
of 50 hosts grains of 1, 2 and 4 gave medians and last hosts within 6 %; whole pieces (8) ended a
tenth sooner, since a piece that comes from one peer in one go can be sent on sooner. What looks
cost is docket's own code, and with hundreds of peers most of the time: *look* makes them rarer.
Figures of zones with the registry outside hang on both, and are to be had with 1 and 0.2 s only.
"""
