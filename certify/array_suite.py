"""The suite of array drivers: connect, find the scratch units, try every requirement."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from ..drivers.contracts import ArrayCapabilities, ArrayDriver
from ..drivers.records import StorageUnit, UnitKind
from ..errors import InputError
from .array_bench import ArrayBench, BenchUnit
from .array_requirements import ARRAY_REQUIREMENTS
from .array_target import ArrayTarget, ScratchUnit
from .bench import TAG_PREFIX
from .outcome import SuiteResult
from .recording import CallLog
from .requirement import Requirement
from .running import Connection, SuiteOptions, lacking, result_of, try_all
from .target import hooks_of

_METHODS = ("capabilities", "resolve", "snapshot_group", "list_snapshots", "delete_snapshot")
_FEWEST_UNITS = 3


async def certify_array(
    target: ArrayTarget,
    options: SuiteOptions,
    requirements: Sequence[Requirement[ArrayBench]] = ARRAY_REQUIREMENTS,
) -> SuiteResult:
    """Try the requirements on an array.

    Run it on the target's own loop: ``asyncio.Runner(loop_factory=target.new_loop)``.

    Raises
    ------
    InputError
        The target's driver lacks a method, or the target gives too few units.
    StillframeError
        The system cannot be brought up or does not answer.
    """
    async with target:
        log = CallLog()
        log.begin()
        connection = Connection(target, log, options.effort, _METHODS, ArrayCapabilities)
        try:
            return await _certify(target, connection, log, options, requirements)
        finally:
            await connection.close()


async def _certify(
    target: ArrayTarget,
    connection: Connection,
    log: CallLog,
    options: SuiteOptions,
    requirements: Sequence[Requirement[ArrayBench]],
) -> SuiteResult:
    driver: ArrayDriver = await connection.open()
    scratch = await target.units()
    if len(scratch) < _FEWEST_UNITS:
        where, problem = type(target).__name__, f"gives {len(scratch)} units"
        raise InputError(where, "units", problem, f"{_FEWEST_UNITS} at least are needed")
    for old in await driver.list_snapshots(TAG_PREFIX):  # of a suite that was killed
        await driver.delete_snapshot(old.ref)
    units = await _bench_units(driver, scratch)
    bench = ArrayBench(
        driver, target, units, options.effort, options.limits, options.run, options.seed, log
    )
    if target.offers("snapshots_on_device"):
        bench.before = await target.snapshots_on_device()
    start_s = bench.now_s()

    async def heal() -> None:
        try:
            await bench.driver.list_snapshots(bench.tag_prefix)
        except Exception:  # noqa: BLE001  # whatever a driver raises: a new connection may help
            await connection.close()
            bench.driver = await connection.open()

    def ready(requirement: Requirement[ArrayBench]) -> str:
        if requirement.units > len(units):
            return f"it takes {requirement.units} scratch units, and there are {len(units)}"
        return lacking(requirement, target)

    environment = dict(await target.environment())
    outcomes = await try_all(bench, requirements, ready, heal, options)
    took_s = bench.now_s() - start_s
    hooks = hooks_of(ArrayTarget)
    return result_of("array", target, connection.raw, options, environment, hooks, outcomes, took_s)


async def _bench_units(driver: ArrayDriver, scratch: Sequence[ScratchUnit]) -> list[BenchUnit]:
    """The driver's units for the scratch units, as well as can be told if it maps wrongly."""
    devices = [device for one in scratch for device in one.devices]
    known = await driver.resolve(devices)
    units = []
    for number, one in enumerate(scratch):
        found = [known[device] for device in one.devices if device in known]
        right = [unit for unit in found if unit.id == one.unit_id]
        if right:
            units.append(BenchUnit(number, one, right[0]))
        elif one.unit_id is not None:
            array_id = found[0].array_id if found else ""
            name, size = one.unit_id, one.capacity_bytes
            made = StorageUnit(name, array_id, name, UnitKind.LUN, size, one.devices)
            units.append(BenchUnit(number, one, made))
        elif found:
            (likeliest, _), *_ = Counter(unit.id for unit in found).most_common(1)
            unit = next(unit for unit in found if unit.id == likeliest)
            units.append(BenchUnit(number, one, unit))
        else:
            where = f"unit {number} ({one.devices[0]})"
            problem = "the driver does not know it"
            raise InputError(where, "devices", problem, "give the identities that hosts see")
    return units
