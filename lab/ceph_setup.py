"""Prepare a new Ceph cluster of a lab: a script for an interpreter with ``rados`` and ``rbd``.

::

    ceph_setup.py CONF osd UUID              tell the monitor of the OSD to come
    ceph_setup.py CONF pool NAME N BYTES     wait for the OSD, make a pool with N images
    ceph_setup.py CONF wait NAME             wait for the OSD
    ceph_setup.py CONF fence NAME            and cut off the dead clients that still hold images

It imports nothing of Stillframe. The error, if any, is the last line on stderr.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import rados  # type: ignore[import-not-found,unused-ignore]
import rbd  # type: ignore[import-not-found,unused-ignore]

_LIMIT_S = 20
_POLL_S = 0.01
_FENCED_S = 3600


class Cluster:
    """A connection with time limits to the cluster of a configuration."""

    def __init__(self, conf: str) -> None:
        limits = dict.fromkeys(
            ("client_mount_timeout", "rados_mon_op_timeout", "rados_osd_op_timeout"), str(_LIMIT_S)
        )
        self._rados = rados.Rados(conffile=conf, rados_id="admin", conf=limits)
        self._rados.connect(timeout=_LIMIT_S)
        # Another cluster may have got hold of the port: without authentication it would serve us.
        wanted = self._rados.conf_get("fsid")
        if self._rados.get_fsid() != wanted:
            raise SystemExit(f"another cluster than {wanted} answers at the monitor's port")

    def tell(self, prefix: str, **what: Any) -> Any:
        """A command to the monitor; its answer."""
        request = json.dumps({"prefix": prefix, "format": "json", **what})
        code, out, said = self._rados.mon_command(request, b"", timeout=_LIMIT_S)
        if code:
            raise SystemExit(f"the monitor refuses `{prefix}`: {said or code}")
        return json.loads(out) if out else None

    def make_pool(self, name: str, images: int, size_bytes: int) -> None:
        """A pool with images ``unit-0``, ``unit-1``, ..., once the OSD is up."""
        self.tell("osd pool create", pool=name)
        self.await_osd()
        ioctx = self._rados.open_ioctx(name)
        pool = rbd.RBD()
        pool.pool_init(ioctx, False)
        features = (
            rbd.RBD_FEATURE_LAYERING
            | rbd.RBD_FEATURE_EXCLUSIVE_LOCK
            | rbd.RBD_FEATURE_OBJECT_MAP
            | rbd.RBD_FEATURE_FAST_DIFF
        )
        for number in range(images):
            pool.create(ioctx, f"unit-{number}", size_bytes, old_format=False, features=features)
        ioctx.close()

    def await_osd(self) -> None:
        """Until the OSD is up."""
        deadline_s = time.monotonic() + _LIMIT_S
        while not self.tell("osd stat")["num_up_osds"]:
            if time.monotonic() > deadline_s:
                raise SystemExit(f"the OSD is not up after {_LIMIT_S} s")
            time.sleep(_POLL_S)

    def fence(self, name: str) -> None:
        """Refuse whatever the clients that have images of a pool open may still send.

        Otherwise their locks and watches stand until they time out, after half a minute.
        """
        self.await_osd()
        ioctx = self._rados.open_ioctx(name)
        ours = self._rados.get_addrs()
        for image in rbd.RBD().list(ioctx):
            with rbd.Image(ioctx, image, read_only=True) as opened:
                others = {one["addr"] for one in opened.watchers_list()}
            for address in sorted(others):
                if address != ours:
                    self._rados.blocklist_add(address, _FENCED_S)
        ioctx.close()


def main(conf: str, do: str, *rest: str) -> None:
    """See the module."""
    cluster = Cluster(conf)
    if do == "osd":
        cluster.tell("osd new", uuid=rest[0])
    elif do == "pool":
        cluster.make_pool(rest[0], int(rest[1]), int(rest[2]))
    elif do == "wait":
        cluster.await_osd()
    elif do == "fence":
        cluster.fence(rest[0])
    else:
        raise SystemExit(f"there is no command {do!r}")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (rados.Error, rbd.Error) as error:
        raise SystemExit(str(error)) from None
