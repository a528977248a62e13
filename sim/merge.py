"""Merging a delta into its base: the transfers, pass by pass, in the arrays' bandwidth.

With delta d, merge rate R and guest write rate W (``W`` here stands for what the guest's write
profile says about the span in question):

* **mirror**: t = d / R. The guest's writes go to delta and base meanwhile, so nothing is left over
  and one pass is enough. Then the VM stops for a moment to switch to the base.
* **iterative**: pass k merges d_k while d_{k+1} = W d_k / R grows beside it. That converges if and
  only if W < R. When what is left takes at most a threshold, or after so many passes, it is merged
  with the VM stopped: stun = d_n / R, on top of the switch. (VMware KB 2039754: 9 iterations.)

R is the most that one merge moves. On a busy array a pass takes longer, which is felt as a smaller
R; intermediate stops of the helper snapshots (0.5 to 4 s in that article) are not modelled.
"""

from __future__ import annotations

from collections.abc import Callable

from .env import SimEnv
from .fabric import Routes
from .profiles import MergeAlgorithm

_SAME_INSTANT_S = 1e-6
"""A transfer that ends this much before its single-stream time counts as exactly that long."""


class Transfer:
    """Bytes on their way through one or several arrays at once, as one stream.

    Parameters
    ----------
    env:
        The world's clock.
    routes:
        Servers with their share of the bytes; none means that no array is involved and the
        transfer takes its single-stream time.
    size_bytes:
        What to move.
    rate_bytes_per_s:
        The most that the stream moves, however idle the arrays are.
    done:
        Called once when everything has moved, never before the constructor returns.
    """

    __slots__ = ("_done", "_env", "_missing", "_not_before_s")

    def __init__(
        self,
        env: SimEnv,
        routes: Routes,
        size_bytes: float,
        rate_bytes_per_s: float,
        done: Callable[[], None],
    ) -> None:
        alone_s = size_bytes / rate_bytes_per_s
        self._env = env
        self._done = done
        self._missing = len(routes)
        self._not_before_s = env.now + alone_s
        if not routes:
            env.after(alone_s, done)
        for server, share in routes:
            server.submit(size_bytes * share, self._arrived)

    @property
    def then(self) -> Callable[[], None]:
        """What is called when everything has moved."""
        return self._done

    def _arrived(self) -> None:
        self._missing -= 1
        if self._missing:
            return
        early_s = self._not_before_s - self._env.now
        if early_s > _SAME_INSTANT_S:
            self._env.after(early_s, self._done)
        else:
            self._done()


class Merge:
    """The passes of one merge while the VM runs, up to the point at which it has to stop.

    Parameters
    ----------
    env, routes, rate_bytes_per_s:
        See :class:`Transfer`.
    algorithm:
        ``MIRROR`` or ``ITERATIVE``.
    delta_bytes:
        Size of the delta as the merge starts.
    grown:
        ``grown(since_s, now_s)``: distinct bytes that the guest wrote in a span; asked by the
        iterative algorithm after every pass.
    most_passes, stun_below_s:
        Iterative: passes before the rest is forced; the rest is left for the stop as soon as it
        takes at most this long.
    ready:
        Called once with this merge when the VM has to stop.

    Attributes
    ----------
    passes:
        Passes made with the VM running.
    merged_bytes:
        What they moved.
    rest_bytes:
        What is left to be moved with the VM stopped; 0 for a mirrored merge.
    """

    __slots__ = (
        "_algorithm",
        "_env",
        "_grown",
        "_most_passes",
        "_pass_bytes",
        "_rate",
        "_ready",
        "_routes",
        "_started_s",
        "_stun_below_s",
        "merged_bytes",
        "passes",
        "rest_bytes",
    )

    def __init__(
        self,
        env: SimEnv,
        routes: Routes,
        rate_bytes_per_s: float,
        algorithm: MergeAlgorithm,
        delta_bytes: float,
        grown: Callable[[float, float], float],
        most_passes: int,
        stun_below_s: float,
        ready: Callable[[Merge], None],
    ) -> None:
        self._env = env
        self._routes = routes
        self._rate = rate_bytes_per_s
        self._algorithm = algorithm
        self._grown = grown
        self._most_passes = most_passes
        self._stun_below_s = stun_below_s
        self._ready = ready
        self.passes = 0
        self.merged_bytes = 0.0
        self.rest_bytes = 0.0
        self._start(delta_bytes)

    @property
    def then(self) -> Callable[[Merge], None]:
        """What is called when the VM has to stop."""
        return self._ready

    def _start(self, size_bytes: float) -> None:
        self._started_s = self._env.now
        self._pass_bytes = size_bytes
        Transfer(self._env, self._routes, size_bytes, self._rate, self._passed)

    def _passed(self) -> None:
        self.passes += 1
        self.merged_bytes += self._pass_bytes
        if self._algorithm is MergeAlgorithm.MIRROR:
            self._ready(self)
            return
        left = self._grown(self._started_s, self._env.now)
        if left / self._rate <= self._stun_below_s or self.passes >= self._most_passes:
            self.rest_bytes = left
            self._ready(self)
        else:
            self._start(left)
