"""The suite of hypervisor drivers: connect, find the scratch VMs, try every requirement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..drivers.contracts import HypervisorCapabilities, HypervisorDriver
from ..drivers.records import Vm
from ..errors import InputError
from .bench import TAG_PREFIX
from .hypervisor_bench import HypervisorBench
from .hypervisor_requirements import HYPERVISOR_REQUIREMENTS
from .hypervisor_target import PLAIN, ROLES, HypervisorTarget, ScratchVm
from .outcome import SuiteResult
from .recording import CallLog
from .requirement import Requirement
from .running import Connection, SuiteOptions, lacking, result_of, try_all
from .target import hooks_of

_METHODS = (
    "capabilities",
    "inventory",
    "create_snapshot",
    "list_snapshots",
    "remove_snapshot",
    "consolidate",
)


async def certify_hypervisor(
    target: HypervisorTarget,
    options: SuiteOptions,
    requirements: Sequence[Requirement[HypervisorBench]] = HYPERVISOR_REQUIREMENTS,
) -> SuiteResult:
    """Try the requirements on a hypervisor.

    Run it on the target's own loop: ``asyncio.Runner(loop_factory=target.new_loop)``.

    Raises
    ------
    InputError
        The target's driver lacks a method, or a scratch VM is not in the inventory.
    StillframeError
        The system cannot be brought up or does not answer.
    """
    async with target:
        log = CallLog()
        log.begin()
        connection = Connection(target, log, options.effort, _METHODS, HypervisorCapabilities)
        try:
            return await _certify(target, connection, log, options, requirements)
        finally:
            await connection.close()


async def _certify(
    target: HypervisorTarget,
    connection: Connection,
    log: CallLog,
    options: SuiteOptions,
    requirements: Sequence[Requirement[HypervisorBench]],
) -> SuiteResult:
    driver: HypervisorDriver = await connection.open()
    vms = await target.vms()
    found = await _found(driver, vms, type(target).__name__)
    ids = {role: vm.id for role, vm in found.items()}
    for state in await driver.list_snapshots(list(ids.values())):  # of a suite that was killed
        for old in reversed(state.snapshots):
            if old.tag.startswith(TAG_PREFIX):
                await driver.remove_snapshot(old)
    bench = HypervisorBench(
        driver, target, vms, ids, options.effort, options.limits, options.run, options.seed, log
    )
    bench.power_before = {role: vm.power_state for role, vm in found.items()}
    if target.offers("files_of"):
        bench.files_before = {role: len(await target.files_of(vm)) for role, vm in vms.items()}
    start_s = bench.now_s()

    async def heal() -> None:
        try:
            await bench.driver.list_snapshots(list(ids.values()))
        except Exception:  # noqa: BLE001  # whatever a driver raises: a new connection may help
            await connection.close()
            bench.driver = await connection.open()

    def ready(requirement: Requirement[HypervisorBench]) -> str:
        missing = [role for role in requirement.roles if role not in vms]
        if missing:
            return f"the target has no VM of role {', '.join(missing)}"
        return lacking(requirement, target)

    environment = dict(await target.environment())
    outcomes = await try_all(bench, requirements, ready, heal, options)
    took_s = bench.now_s() - start_s
    hooks = hooks_of(HypervisorTarget)
    return result_of(
        "hypervisor", target, connection.raw, options, environment, hooks, outcomes, took_s
    )


async def _found(
    driver: HypervisorDriver, vms: Mapping[str, ScratchVm], where: str
) -> dict[str, Vm]:
    """The scratch VMs in the driver's inventory, by role."""
    if PLAIN not in vms:
        raise InputError(where, "vms", f"has no VM of role {PLAIN}", "it is the one that all need")
    inventory = await driver.inventory()
    by_role = {}
    for role, vm in vms.items():
        if role not in ROLES:
            raise InputError(where, f"vms.{role}", "is no role", f"roles are {', '.join(ROLES)}")
        found = [one for one in inventory.vms if one.name == vm.name]
        if len(found) != 1:
            problem = f"the inventory has {len(found)} VMs called {vm.name!r}"
            raise InputError(where, f"vms.{role}", problem)
        by_role[role] = found[0]
    return by_role
