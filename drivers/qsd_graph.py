"""What a running qemu-storage-daemon holds: exports, nodes, and the chain under each export."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .qsd_monitor import Monitor

_IMAGES = ("raw", "qcow2")


@dataclass(frozen=True, slots=True)
class Chain:
    """The images under one export, the one that takes its writes first."""

    node: str
    images: tuple[Path, ...]
    capacity_bytes: int

    def under(self, overlay: Path) -> Path:
        """The image right under this one."""
        return self.images[self.images.index(overlay) + 1]


@dataclass(frozen=True, slots=True)
class Graph:
    """One look at the daemon.

    Attributes
    ----------
    exports:
        The chain of each FUSE export, by the export's name.
    nodes:
        The name of the node of each image that is open.
    """

    exports: Mapping[str, Chain]
    nodes: Mapping[Path, str]


async def read_graph(monitor: Monitor, operation: str) -> Graph:
    """Ask the daemon.

    Raises
    ------
    DidNotHappenError
        It did not answer.
    """
    exports = await monitor.call(operation, "query-block-exports")
    nodes = {
        one["node-name"]: one for one in await monitor.call(operation, "query-named-block-nodes")
    }
    return Graph(
        {
            one["id"]: _chain(nodes[one["node-name"]])
            for one in exports
            if one["type"] == "fuse" and not one["shutting-down"] and one["node-name"] in nodes
        },
        {
            Path(one["image"]["filename"]): name
            for name, one in nodes.items()
            if one["drv"] in _IMAGES
        },
    )


def _chain(node: Mapping[str, Any]) -> Chain:
    image = node["image"]
    # While a merge is under way a filter stands in the chain, under the name of what it filters.
    names = dict.fromkeys(Path(one["filename"]) for one in _images(image))
    return Chain(node["node-name"], tuple(names), image["virtual-size"])


def _images(image: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    while image is not None:
        yield image
        image = image.get("backing-image")
