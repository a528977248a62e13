"""The guests' writer, run on the host: what it writes, where it goes on, what its check finds."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from support_lab import needs_lab

from stillframe.lab.pattern import FACTOR, HEADER_WORDS, MAGIC, PATTERN_FILE, SALT

pytestmark = needs_lab("qemu")
SOURCE = Path(__file__).resolve().parents[1] / "lab" / "guest" / "writer.c"
RECORD = 4096
SLOTS = 16
FAST = 100_000


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program, compiled as for a guest but with every warning an error."""
    out = tmp_path_factory.mktemp("writer") / "writer"
    strict = ("-Wall", "-Wextra", "-Werror", "-O2", "-static")
    subprocess.run(["gcc", *strict, "-o", out, SOURCE], check=True)
    return out


@contextmanager
def writing(writer: Path, folders: Sequence[Path], rate: float = FAST) -> Iterator[Iterator[int]]:
    """The numbers that a running writer acknowledges; it is asked to stop at the end."""
    argv = [writer, "write", str(RECORD), str(rate), str(SLOTS * RECORD), "/dev/stdout", *folders]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield (int(line.split()[0]) for line in process.stdout)
        process.send_signal(signal.SIGTERM)
        process.stdout.read()
    assert process.returncode == 0


def write_to(writer: Path, folders: Sequence[Path], last: int) -> None:
    """Write until the record ``last`` is acknowledged; some more may follow."""
    with writing(writer, folders) as acks:
        assert last in acks


def check(writer: Path, *folders: Path) -> list[dict[str, int]]:
    """What its check prints."""
    argv = [writer, "check", str(RECORD), str(SLOTS * RECORD), *folders]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    found: list[dict[str, int]] = json.loads(done.stdout)
    return found


def words(folder: Path, slot: int) -> list[int]:
    """A record as numbers."""
    data = (folder / PATTERN_FILE).read_bytes()[slot * RECORD : (slot + 1) * RECORD]
    return [int.from_bytes(data[at : at + 8], "little") for at in range(0, RECORD, 8)]


def test_a_record_is_laid_out_as_described(writer: Path, tmp_path: Path) -> None:
    write_to(writer, [tmp_path], 3)
    seq = words(tmp_path, 3)[1]
    assert seq % SLOTS == 3
    record = words(tmp_path, 3)
    assert (record[0], record[3]) == (MAGIC, seq ^ SALT)
    assert record[HEADER_WORDS:] == [
        (seq * FACTOR + word) % 2**64 for word in range(HEADER_WORDS, RECORD // 8)
    ]


def test_the_ring_holds_the_newest_records(writer: Path, tmp_path: Path) -> None:
    write_to(writer, [tmp_path], 3 * SLOTS)
    assert (tmp_path / PATTERN_FILE).stat().st_size == SLOTS * RECORD
    (found,) = check(writer, tmp_path)
    assert (found["records"], found["bad"], found["missing"]) == (SLOTS, 0, 0)
    assert found["max_seq"] >= 3 * SLOTS


def test_it_goes_on_behind_what_is_there(writer: Path, tmp_path: Path) -> None:
    write_to(writer, [tmp_path], 5)
    (before,) = check(writer, tmp_path)
    with writing(writer, [tmp_path]) as acks:
        assert next(acks) == before["max_seq"] + 1


def test_a_pair_goes_on_behind_what_both_have(writer: Path, tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    one.mkdir()
    other.mkdir()
    write_to(writer, [one], 5)
    (ahead,) = check(writer, one)
    (other / PATTERN_FILE).write_bytes((one / PATTERN_FILE).read_bytes()[: 3 * RECORD])
    assert ahead["max_seq"] > 2
    with writing(writer, [one, other]) as acks:
        assert next(acks) == 3
        assert ahead["max_seq"] + 1 in acks
    assert [(found["bad"], found["missing"]) for found in check(writer, one, other)] == [(0, 0)] * 2


@pytest.mark.parametrize("at", [0, 8, 24, 40, RECORD - 1])
def test_a_damaged_byte_is_found_wherever_it_is(writer: Path, tmp_path: Path, at: int) -> None:
    write_to(writer, [tmp_path], SLOTS)
    (before,) = check(writer, tmp_path)
    slot = (before["max_seq"] - 2) % SLOTS
    with (tmp_path / PATTERN_FILE).open("r+b") as file:
        file.seek(slot * RECORD + at)
        byte = file.read(1)[0]
        file.seek(slot * RECORD + at)
        file.write(bytes([byte ^ 1]))
    (found,) = check(writer, tmp_path)
    assert (found["records"], found["bad"], found["missing"]) == (SLOTS - 1, 1, 1)


def test_a_record_that_was_never_written_is_missing_and_not_bad(
    writer: Path, tmp_path: Path
) -> None:
    write_to(writer, [tmp_path], SLOTS)
    with (tmp_path / PATTERN_FILE).open("r+b") as file:
        file.write(bytes(RECORD))
    (found,) = check(writer, tmp_path)
    assert (found["bad"], found["missing"]) == (0, 1)


def test_an_old_record_in_place_of_a_new_one_is_missing(writer: Path, tmp_path: Path) -> None:
    write_to(writer, [tmp_path], 4)
    old = (tmp_path / PATTERN_FILE).read_bytes()[:RECORD]
    write_to(writer, [tmp_path], 4 * SLOTS)
    with (tmp_path / PATTERN_FILE).open("r+b") as file:
        file.write(old)
    (found,) = check(writer, tmp_path)
    assert (found["records"], found["bad"], found["missing"]) == (SLOTS, 0, 1)


def test_a_file_that_is_not_there_holds_no_record(writer: Path, tmp_path: Path) -> None:
    assert check(writer, tmp_path) == [{"records": 0, "bad": 0, "missing": 0, "max_seq": -1}]


def test_it_says_in_one_line_what_it_cannot_do(writer: Path, tmp_path: Path) -> None:
    argv = [writer, "write", str(RECORD), "1", str(RECORD), "/dev/stdout", tmp_path / "absent"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        f"writer: {tmp_path}/absent/{PATTERN_FILE}: No such file or directory"
    ]
