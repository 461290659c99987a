"""What each command prints at its end: for people a few lines or a table, for machines JSON.

The JSON of each command is described in ``docs/cli.md`` and is stable: fields may be added.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from docket.commands.terminal import rate, say, say_json, say_table, size, warn
from docket.progress import ENGINE, HELD, HTTP, MISSING, SWARM

if TYPE_CHECKING:
    from docket.transfer.pull import LayerPlan, PulledLayer, PullReport, Resolved
    from docket.transfer.push import PushReport


def show_push(report: PushReport, *, as_json: bool) -> None:
    """What a push uploaded."""
    if as_json:
        say_json(
            {
                "name": str(report.reference),
                "digest": str(report.digest),
                "config": str(report.config),
                "uploaded": report.uploaded,
                "seconds": round(report.seconds, 3),
                "layers": [
                    {
                        "digest": str(layer.digest),
                        "diff_id": str(layer.diff_id),
                        "size": layer.size,
                        "plain_size": layer.plain_size,
                        "source": layer.source,
                    }
                    for layer in report.layers
                ],
            }
        )
        return
    new = {layer.digest: layer for layer in report.layers if layer.source != HELD}
    if new:
        plain = sum(layer.plain_size for layer in new.values())
        say(
            f"pushed {report.reference} in {report.seconds:.1f} s: {len(new)} of "
            f"{len(report.layers)} layers uploaded, {size(report.uploaded)} "
            f"({size(plain)} unpacked)"
        )
    else:
        say(f"pushed {report.reference}: the registry has all layers, 0 B uploaded")
    say(str(report.digest))


def show_pull(report: PullReport, *, as_json: bool, to_stderr: bool) -> None:
    """What a pull moved; *to_stderr* when standard output carries the archive."""
    if as_json and not to_stderr:
        say_json(pull_json(report))
        return
    tell = warn if to_stderr else say
    moved = report.swarm_bytes + report.http_bytes
    total = sum({layer.digest: layer.size for layer in report.layers}.values())
    seconds = report.seconds.get("fetch", 0.0)
    speed = f" at {rate(moved / seconds)}" if moved and seconds else ""
    tell(
        f"pulled {report.reference}: {size(moved)} moved of {size(total)}{speed} "
        f"({_count(report.layers, HELD)} layers held, {_count(report.layers, SWARM)} from peers, "
        f"{_count(report.layers, HTTP)} from the registry over HTTP)"
    )
    tell(str(report.digest))


def pull_json(report: PullReport) -> dict[str, Any]:
    """A pull for machines."""
    return {
        "name": str(report.reference),
        "digest": str(report.digest),
        "config": str(report.config),
        "payload": {
            "swarm": report.swarm_bytes,
            "http": report.http_bytes,
        },
        "loaded_layers": report.loaded_layers,
        "seconds": {name: round(value, 3) for name, value in report.seconds.items()},
        "layers": [_pulled_layer_json(layer) for layer in report.layers],
    }


def _pulled_layer_json(layer: PulledLayer) -> dict[str, Any]:
    row: dict[str, Any] = {
        "digest": str(layer.digest),
        "diff_id": str(layer.diff_id),
        "size": layer.size,
        "source": layer.source,
        "seconds": round(layer.seconds, 3),
    }
    if layer.blocks:
        row["from"] = {"registry": layer.blocks.registry, "hosts": layer.blocks.hosts}
    return row


def show_plan(image: Resolved, rows: list[LayerPlan], *, as_json: bool) -> None:
    """Where each layer would come from."""
    missing = {row.descriptor.digest: row.descriptor.size for row in rows if row.place == MISSING}
    total = {row.descriptor.digest: row.descriptor.size for row in rows}
    if as_json:
        say_json(
            {
                "name": str(image.reference),
                "digest": str(image.digest),
                "size": sum(total.values()),
                "to_move": sum(missing.values()),
                "layers": [
                    {
                        "digest": str(row.descriptor.digest),
                        "diff_id": str(row.diff_id),
                        "size": row.descriptor.size,
                        "place": row.place,
                    }
                    for row in rows
                ],
            }
        )
        return
    words = {MISSING: "to be fetched", ENGINE: "in the engine", HELD: "held here"}
    say_table(
        ["LAYER", "SIZE", "WHERE"],
        [
            [row.descriptor.digest.short, size(row.descriptor.size), words[row.place]]
            for row in rows
        ],
        right=frozenset({"SIZE"}),
    )
    say(f"a pull would move {size(sum(missing.values()))} of {size(sum(total.values()))}")


def show_images(rows: list[dict[str, Any]], *, as_json: bool) -> None:
    """The images of a registry."""
    if as_json:
        say_json({"images": rows})
        return
    if not rows:
        say("no images; docket push NAME:TAG brings one")
        return
    say_table(
        ["NAME", "TAG", "DIGEST", "PLATFORM", "LAYERS", "SIZE", "UNIQUE", "SHARED"],
        [
            [
                row["name"],
                row["tag"],
                row["digest"].partition(":")[2][:12],
                ", ".join(row["platforms"]),
                str(row["layers"]),
                size(row["size"]),
                size(row["unique"]),
                size(row["shared"]),
            ]
            for row in rows
        ],
        right=frozenset({"LAYERS", "SIZE", "UNIQUE", "SHARED"}),
    )


def show_inspect(found: dict[str, Any], *, as_json: bool) -> None:
    """An image's manifest, layers and torrent."""
    if as_json:
        say_json(found)
        return
    for name in ("name", "digest", "config", "platform", "info_hash", "tracker"):
        say(f"{name.replace('_', '-'):10} {found[name]}")
    say_table(
        ["LAYER", "SIZE", "DIFF-ID", "TYPE"],
        [
            [
                layer["digest"].partition(":")[2][:12],
                size(layer["size"]),
                layer["diff_id"].partition(":")[2][:12],
                layer["media_type"].rpartition(".")[2],
            ]
            for layer in found["layers"]
        ],
        right=frozenset({"SIZE"}),
    )


def show_gc(report: dict[str, Any], *, as_json: bool) -> None:
    """What was freed, and why the rest stays."""
    if as_json:
        say_json(report)
        return
    verb, removed = ("would free", "would remove") if report["dry_run"] else ("freed", "removed")
    if report["tags"]:
        say(f"{removed} {len(report['tags'])} tags: {', '.join(report['tags'])}")
    say(
        f"{verb} {size(report['freed'])}: {report['blobs']} blobs of {report['manifests']} "
        "images that no tag names"
    )
    if report["orphans"] or report["leftovers"]:
        say(
            f"of that, {report['orphans']} files that a crash left, and "
            f"{size(report['leftovers'])} of broken-off pulls and old quarantine"
        )
    say(
        f"kept {size(report['kept'])}: {report['kept_blobs']} blobs that images need, which "
        f"{report['kept_tags']} tags name"
    )
    _say_kept(report, "young", "they are younger than the grace time")
    _say_kept(report, "pinned", "someone was just told that the registry has them")


def _say_kept(report: dict[str, Any], kind: str, why: str) -> None:
    manifests, blobs = report[f"{kind}_manifests"], report[f"{kind}_blobs"]
    if manifests:
        say(f"{manifests} images that no tag names stay, with their blobs: {why}")
    if blobs:
        say(f"kept {size(report[kind])}: {blobs} blobs that no image needs; {why}")


def show_fsck(report: dict[str, Any], *, as_json: bool) -> None:
    """What a check found, and what became of it."""
    if as_json:
        say_json(report)
        return
    if report["findings"]:
        say_table(
            ["FOUND", "WHAT", "NOW"],
            [[one["kind"], one["what"], one["outcome"]] for one in report["findings"]],
            right=frozenset(),
        )
    found = len(report["findings"])
    say(
        f"checked {report['blobs']} blobs, {report['read_blobs']} of them byte by byte "
        f"({size(report['read'])}), and {report['rows']} rows: "
        f"{f'{found} findings' if found else 'all is well'}"
    )


def _count(layers: tuple[PulledLayer, ...], source: str) -> int:
    return len({layer.digest for layer in layers if layer.source == source})
