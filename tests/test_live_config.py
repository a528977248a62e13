"""Live configurations: what they hold, how they are refused, and that no secret passes."""

from __future__ import annotations

import re
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from stillframe.drivers import registry
from stillframe.drivers.vsphere_settings import parse_settings
from stillframe.errors import InputError, StillframeError
from stillframe.orchestrator.spec import StrategyName
from stillframe.scenarios.live import LiveConfig, load_live
from stillframe.scenarios.schema import EstateSource
from stillframe.sim.realtime import ModelledArraySettings
from stillframe.topology.yamlfile import validate

MINIMAL: dict[str, Any] = {
    "name": "tonight",
    "hypervisors": {"vc-1": {"driver": "vsphere", "host": "vc-1.example.com"}},
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "live.yaml"


def load(file: Path, data: dict[str, Any]) -> LiveConfig:
    """Write a configuration and read it."""
    file.write_text(yaml.safe_dump(data, sort_keys=False), encoding="utf-8")
    return load_live(file)


def refused(file: Path, data: dict[str, Any]) -> str:
    """The one line that a configuration is refused with."""
    with pytest.raises(InputError) as caught:
        load(file, data)
    return str(caught.value)


def test_what_is_left_out_has_defaults(file: Path) -> None:
    config = load(file, MINIMAL)
    assert config.source == str(file)
    assert config.label == "tonight"
    assert config.arrays == {}
    assert config.job.strategy is StrategyName.PER_COMPONENT
    assert [(section, key) for section, key, _ in config.systems()] == [("hypervisors", "vc-1")]


def test_the_journal_lies_beside_the_configuration_unless_it_says_otherwise(file: Path) -> None:
    assert load(file, MINIMAL).journal == file.parent / "tonight.journal"
    assert load(file, MINIMAL | {"journal_file": "x/y.db"}).journal == file.parent / "x" / "y.db"
    assert load(file, MINIMAL | {"journal_file": "/var/x.db"}).journal == Path("/var/x.db")


def test_settings_reach_the_driver_as_written_and_paths_from_the_file(file: Path) -> None:
    config = load(
        file,
        MINIMAL
        | {
            "arrays": {
                "flash": {"driver": "modelled-array", "estate": "estates/all.yaml", "seed": 4},
                "nas": {
                    "driver": "modelled-array",
                    "units": [{"name": "v", "capacity": "1 TiB", "kind": "nfs-volume"}],
                    "ca_file": "/etc/ssl/ca.pem",
                },
            }
        },
    )
    flash, nas = (config.settings(config.arrays[key]) for key in ("flash", "nas"))
    assert flash == {"estate": str(file.parent / "estates/all.yaml"), "seed": 4}
    assert nas["ca_file"] == "/etc/ssl/ca.pem"
    assert nas["units"][0]["capacity"] == "1 TiB"
    assert [key for _, key, _ in config.systems()] == ["vc-1", "flash", "nas"]


def test_another_strategy_and_the_twin_keep_the_rest(file: Path) -> None:
    job = {"strategy": "chunks", "chunk_vms": 3, "select": {"include": {"name": "web-*"}}}
    world = {"guests": [{"match": "*", "profile": "mine.npz"}]}
    config = load(file, MINIMAL | {"title": "All web servers", "job": job, "world": world})
    other = config.with_strategy(StrategyName.ALL_AT_ONCE)
    assert other.job.strategy is StrategyName.ALL_AT_ONCE
    assert other.job.select == config.job.select
    assert other.source == config.source
    twin = config.twin(EstateSource(file="pulled.yaml"), 7)
    assert (twin.seed, twin.job, twin.title) == (7, config.job, "Rehearsal: All web servers")
    assert twin.source == str(file)
    assert twin.world.guests[0].profile == str(file.parent / "mine.npz")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"hypervisors": {}}, "hypervisors: a mapping is not accepted"),
        ({"name": "To Night"}, "name: 'To Night' is not accepted"),
        ({"nmae": 1}, "nmae: unknown key with value 1 (did you mean 'name'?)"),
        ({"hypervisors": {"vc-1": {"host": "x"}}}, "hypervisors.vc-1.driver: is missing"),
        (
            {"hypervisors": {"vc-1": {"driver": "vspere"}}},
            "hypervisors.vc-1.driver: there is no driver 'vspere' (did you mean 'vsphere'?)",
        ),
        (
            {"arrays": {"a": {"driver": "floppy"}}},
            "arrays.a.driver: there is no driver 'floppy' (installed are ceph-rbd, modelled-array,",
        ),
        ({"hypervisors": {"vc 1": {"driver": "vsphere"}}}, "'vc 1' is not accepted"),
        ({"job": {"timeouts": {"create": 30}}}, "job.timeouts.create: 30 has no unit"),
        ({"job": {"retry": {"attempts": 0}}}, "job.retry.attempts: 0 is not accepted"),
        ({"world": {"arrays": {"a": {"profile": "warp"}}}}, "no array profile is called 'warp'"),
    ],
)
def test_a_mistake_is_named_with_file_field_and_value(
    file: Path, change: dict[str, Any], told: str
) -> None:
    line = refused(file, MINIMAL | change)
    assert line.startswith(f"{file}: ")
    assert told in line
    assert "\n" not in line


@pytest.mark.parametrize("section", ["hypervisors", "arrays"])
@pytest.mark.parametrize(
    "key",
    ["password", "Password", "vc_password", "passwd", "pwd", "api_key", "apikey", "auth-token",
     "client_secret", "secrets", "credentials", "passphrase"],
)  # fmt: skip
def test_a_secret_is_refused_and_never_repeated(file: Path, section: str, key: str) -> None:
    systems = {"s": {"driver": "vsphere", "host": 5, key: "hunter2"}}
    line = refused(file, MINIMAL | {section: systems, "wrong": True})
    assert f"{file}: {section}.s.{key}: a secret does not belong in a configuration" in line
    assert "docs/live.md" in line
    assert "hunter2" not in line


def test_a_secret_is_found_at_any_depth(file: Path) -> None:
    systems = {"s": {"driver": "vsphere", "login": [{"user": "u", "password": "hunter2"}]}}
    line = refused(file, MINIMAL | {"hypervisors": systems})
    assert "hypervisors.s.login[0].password" in line
    assert "hunter2" not in line


@given(key=st.sampled_from(["password_env", "password_file", "keyring", "bypass", "tokens_file"]))
def test_where_a_secret_lies_may_be_said(
    key: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("live") / "live.yaml"
    systems = {"token": {"driver": "vsphere", key: "somewhere"}}
    assert load(file, MINIMAL | {"hypervisors": systems}).hypervisors["token"].driver == "vsphere"


def test_sections_of_another_shape_are_refused(file: Path) -> None:
    assert "hypervisors: a list is not accepted" in refused(file, MINIMAL | {"hypervisors": [1]})
    assert "arrays.a: 'x' is not accepted" in refused(file, MINIMAL | {"arrays": {"a": "x"}})


def test_the_documented_example_is_accepted(file: Path) -> None:
    page = Path(__file__).resolve().parents[1] / "docs" / "live.md"
    examples = re.findall(r"^```yaml\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
    assert len(examples) == 1
    file.write_text(examples[0], encoding="utf-8")
    config = load_live(file)
    assert list(config.hypervisors) == ["vc-1", "vc-2"]
    for key, entry in config.hypervisors.items():
        parse_settings(key, config.settings(entry))
    array = config.settings(config.arrays["array-a"])
    chosen = validate(ModelledArraySettings, array, "array-a")
    assert chosen.profile.snapshot_base == 1.0
    assert config.world.guests[0].scale_median == 2.0


# -- the registry ------------------------------------------------------------------------------


def test_the_drivers_that_ship_are_registered() -> None:
    assert set(registry.driver_names()) >= {"modelled-array", "vsphere"}
    assert registry.driver_factory("modelled-array").__name__ == "open_modelled_array"


def test_a_driver_that_is_not_installed_is_told_with_those_that_are() -> None:
    with pytest.raises(
        StillframeError, match=r"no driver 'x': installed are ceph-rbd, modelled-array"
    ):
        registry.driver_factory("x")


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("no_such_module_anywhere:open", "needs 'no_such_module_anywhere', which is not installed"),
        ("stillframe.errors:no_such_name", "cannot be loaded"),
        ("stillframe.errors:__doc__", "is not a factory"),
    ],
)
def test_a_driver_that_cannot_be_loaded_is_an_error_of_its_own(
    value: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = EntryPoint("broken", value, registry.GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: [broken])
    with pytest.raises(StillframeError, match=f"driver 'broken' .*{told}"):
        registry.driver_factory("broken")


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = next(one for one in registry.entry_points(group=registry.GROUP) if one.dist)
    broken = EntryPoint("vsphere", "no_such_module_anywhere:open", registry.GROUP)
    broken = broken._for(shipped.dist)
    monkeypatch.setattr(registry, "entry_points", lambda group: [broken])
    with pytest.raises(StillframeError, match=r"install stillframe\[vsphere\]"):
        registry.driver_factory("vsphere")
