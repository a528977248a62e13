"""How an estate file abbreviates: default ids, default paths, and names used as references."""

from __future__ import annotations

FIRST_DISK_KEY = 2000
"""The device key that vSphere gives to the first disk of the first SCSI controller."""


def default_id(owner_id: str, name: str) -> str:
    """The id of a thing that was given none: that of its vCenter or array, and its name."""
    return f"{owner_id}/{name}"


def default_disk_path(datastore_name: str | None, vm_name: str, index: int) -> str:
    """The path that vSphere would give to a VM's ``index``-th disk (from 0)."""
    file = f"{vm_name}.vmdk" if index == 0 else f"{vm_name}_{index}.vmdk"
    return f"[{datastore_name or ''}] {vm_name}/{file}"


class Names:
    """Things of one kind under their ids and names."""

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._named: dict[str, list[tuple[str, str | None]]] = {}

    def add(self, identifier: str, name: str, vcenter_id: str | None) -> None:
        """Enter one thing; names may repeat, ids may not."""
        self._ids.add(identifier)
        self._named.setdefault(name, []).append((identifier, vcenter_id))

    def find(self, text: str, vcenter_id: str | None = None) -> list[str]:
        """The ids that a reference can mean: the id itself, else names, nearest vCenter first."""
        if text in self._ids:
            return [text]
        named = self._named.get(text, [])
        near = [identifier for identifier, vcenter in named if vcenter == vcenter_id]
        return near or [identifier for identifier, _ in named]

    def shortest(self, identifier: str, name: str, vcenter_id: str | None) -> str:
        """The name, if it means this thing and no other, else the id."""
        return name if self.find(name, vcenter_id) == [identifier] else identifier

    def all_names(self) -> list[str]:
        """Everything that :meth:`find` knows, names first."""
        return [*self._named, *sorted(self._ids)]
