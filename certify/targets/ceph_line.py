"""Between the driver for Ceph and the process that asks the cluster for it: a script.

It starts that process and passes on every request and every answer, but for what a file of rules
says just then: requests that are passed on later, and answers after which the line is cut::

    {"slow": {"snapshot": 2.5}, "lose": ["delete"]}

What was passed on is finished, whoever still listens. It imports nothing of Stillframe.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any


class Line:
    """One process and the requests that it has not answered yet.

    Parameters
    ----------
    rules:
        The file of rules.
    argv:
        What to start.
    """

    def __init__(self, rules: Path, argv: list[str]) -> None:
        self._rules = rules
        self._asked: dict[int, str] = {}
        self._writing = threading.Lock()
        self._worker = subprocess.Popen(  # noqa: S603  # what the target gives
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def serve(self) -> int:
        """Until whoever asks, or the process, has ended."""
        answering = threading.Thread(target=self._answers)
        answering.start()
        asking = threading.Thread(target=self._requests, daemon=True)
        asking.start()
        answering.join()
        return self._worker.wait()

    def _requests(self) -> None:
        passing = [self._pass_on(line) for line in sys.stdin]
        for thread in passing:
            thread.join()
        self._hang_up()

    def _pass_on(self, line: str) -> threading.Thread:
        thread = threading.Thread(target=self._ask, args=(json.loads(line), line))
        thread.start()
        return thread

    def _ask(self, request: dict[str, Any], line: str) -> None:
        time.sleep(self._rule()["slow"].get(request["do"], 0.0))
        self._asked[request["id"]] = request["do"]
        assert self._worker.stdin is not None  # noqa: S101  # a pipe was asked for
        with self._writing:
            self._worker.stdin.write(line)
            self._worker.stdin.flush()

    def _answers(self) -> None:
        assert self._worker.stdout is not None  # noqa: S101
        for line in self._worker.stdout:
            if self._asked.pop(json.loads(line)["id"], "") in self._rule()["lose"]:
                self._hang_up()
                return
            try:
                sys.stdout.write(line)
                sys.stdout.flush()
            except BrokenPipeError:
                continue  # nobody listens any more; what was begun is finished

    def _hang_up(self) -> None:
        assert self._worker.stdin is not None  # noqa: S101
        with self._writing:
            self._worker.stdin.close()

    def _rule(self) -> dict[str, Any]:
        return {"slow": {}, "lose": [], **json.loads(self._rules.read_text(encoding="utf-8"))}


if __name__ == "__main__":
    sys.exit(Line(Path(sys.argv[1]), sys.argv[2:]).serve())
