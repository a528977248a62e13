"""What is in the figures: labels, units, limits, bounds on what is drawn; looked at as objects."""

from __future__ import annotations

import io
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib import image
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from support_reports import build_inputs, build_run

from stillframe.drivers.contracts import Window
from stillframe.reports import fig_array, fig_delta, fig_ecdf, fig_style, fig_topology, fig_windows
from stillframe.reports.figures import FIGURES, draw_all, png
from stillframe.reports.rundata import RunData
from stillframe.reports.topology_view import NAMED_VMS, ROWS, build_view

SIZES = (12, 200, 3000)


@pytest.fixture(scope="module")
def runs() -> dict[int, RunData]:
    return {size: build_run(size) for size in SIZES}


@dataclass
class Drawn:
    """All figures of one run, rendered once."""

    figures: dict[str, Figure]
    images: dict[str, bytes]


@pytest.fixture(scope="module")
def drawn(runs: dict[int, RunData]) -> dict[int, Drawn]:
    every = {}
    for size, run in runs.items():
        figures = draw_all(run)
        every[size] = Drawn(figures, {name: png(figure) for name, figure in figures.items()})
    return every


def texts(figure: Figure) -> str:
    return "\n".join(t.get_text() for t in figure.findobj(mpl.text.Text))


def panels(figure: Figure) -> list[Axes]:
    return [axes for axes in figure.axes if axes.axison and axes.get_label() != "<colorbar>"]


@pytest.mark.parametrize("size", SIZES)
def test_every_axis_names_its_quantity_and_unit(size: int, drawn: dict[int, Drawn]) -> None:
    assert list(drawn[size].figures) == [spec.name for spec in FIGURES]
    for name, figure in drawn[size].figures.items():
        for axes in panels(figure):
            assert "[" in axes.get_xlabel(), name
            # Rows of a Gantt chart or of bars are named one by one instead.
            rows = axes.yaxis_inverted() and name in ("windows", "waits")
            assert rows or "[" in axes.get_ylabel(), name


@pytest.mark.parametrize("size", SIZES)
def test_every_figure_has_a_sentence_for_a_title_and_ink(
    size: int, drawn: dict[int, Drawn]
) -> None:
    for name, figure in drawn[size].figures.items():
        assert len(figure.get_suptitle().split()) >= 5, name
        pixels = image.imread(io.BytesIO(drawn[size].images[name]))
        assert 0.005 < float((pixels[:, :, :3].min(axis=2) < 0.9).mean()) < 0.8, name


@pytest.mark.parametrize("size", SIZES)
def test_nothing_runs_out_of_the_picture_or_over_it(size: int, drawn: dict[int, Drawn]) -> None:
    for name, figure in drawn[size].figures.items():
        width = figure.bbox.width
        for text in figure.findobj(mpl.text.Text):
            if text.get_visible() and text.get_text().strip() and not text.get_clip_on():
                box = text.get_window_extent()
                assert box.x0 >= -2, (name, text.get_text())
                assert box.x1 <= width + 2, (name, text.get_text())
        for legend in figure.legends:
            for axes in figure.axes:
                assert not legend.get_window_extent().overlaps(axes.get_window_extent()), name


@pytest.mark.parametrize("size", SIZES)
def test_the_number_of_artists_does_not_grow_with_the_estate(
    size: int, drawn: dict[int, Drawn]
) -> None:
    for name, figure in drawn[size].figures.items():
        assert len(figure.findobj()) < 2500, name


def test_the_same_run_gives_the_same_picture(runs: dict[int, RunData]) -> None:
    assert png(fig_windows.windows(runs[12])) == png(fig_windows.windows(runs[12]))


def test_figures_leave_no_global_state(runs: dict[int, RunData]) -> None:
    before = dict(mpl.rcParams)
    draw_all(runs[12])
    assert dict(mpl.rcParams) == before


def test_the_three_limits_are_drawn_where_they_are_and_labelled(runs: dict[int, RunData]) -> None:
    figure = fig_ecdf.quiesce_ecdf(runs[200])
    (axes,) = figure.axes
    drawn = [line.get_xdata()[0] for line in axes.lines if len(set(line.get_xdata())) == 1]
    assert {10.0, 20.0, 60.0} <= set(drawn)
    low, high = axes.get_xlim()
    assert low < 10 < 60 < high
    words = texts(figure)
    for expected in ("10 s\nVSS I/O hold\n1 over", "20 s\nExchange\nnone over", "60 s\nVSS freeze"):
        assert expected in words


def test_the_ecdf_ends_at_all_guests_and_has_a_step_for_each(runs: dict[int, RunData]) -> None:
    line = fig_ecdf.quiesce_ecdf(runs[200]).axes[0].lines[0]
    assert line.get_ydata()[-1] == 100.0
    assert len(line.get_xdata()) == 192 + 1


def test_upper_bounds_are_dashed_and_said(runs: dict[int, RunData]) -> None:
    exact = fig_ecdf.quiesce_ecdf(runs[12])
    bound = fig_ecdf.quiesce_ecdf(build_run(12, sees_all=False))
    assert (exact.axes[0].lines[0].get_linestyle(), bound.axes[0].lines[0].get_linestyle()) == (
        "-",
        "--",
    )
    assert "upper bounds" in texts(bound)
    assert "upper bounds" not in texts(exact)
    assert "at most" in bound.get_suptitle()


def labelled(figure: Figure, label: str) -> list[mpl.collections.Collection]:
    return [
        collection
        for axes in figure.axes
        for collection in axes.collections
        if collection.get_label() == label
    ]


def test_each_vm_has_its_bars_and_the_cuts_are_marked(runs: dict[int, RunData]) -> None:
    run, figure = runs[12], fig_windows.windows(runs[12])
    for phase, column in (("open", "open_s"), ("merge", "merge_s"), ("create", "opened_s")):
        (bars,) = labelled(figure, phase)
        assert len(bars.get_paths()) == run.vms[column].count()
    (bars,) = labelled(figure, "open")
    widths = [np.ptp(path.vertices[:, 0]) for path in bars.get_paths()]
    assert sum(widths) == pytest.approx(run.vms["open_s"].sum())
    (cuts,) = labelled(figure, "array snapshot")
    assert len(cuts.get_segments()) == run.calls["cut_s"].count()
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert sorted(names) == sorted(run.vms["name"].to_list())


def test_a_quantity_that_nobody_saw_is_not_drawn() -> None:
    figure = fig_windows.windows(build_run(12, sees_all=False))
    assert labelled(figure, "stun") == labelled(figure, "stun_create_start_s") == []
    assert "stun" not in texts(figure)
    delta = fig_delta.delta_growth(build_run(12, sees_all=False, with_series=False))
    assert "No driver in this run sees" in texts(delta)


def test_failed_and_left_behind_vms_are_crossed() -> None:
    inputs = build_inputs(12)
    assert "left behind" not in texts(fig_windows.windows(inputs.run()))
    inputs.result.vms[0].left_behind = True
    assert "left behind" in texts(fig_windows.windows(inputs.run()))


def test_many_vms_are_counted_and_the_worst_keep_rows(runs: dict[int, RunData]) -> None:
    run, figure = runs[3000], fig_windows.windows(runs[3000])
    assert "VMs in this phase" in figure.axes[0].get_ylabel()
    for axes in figure.axes[1:]:
        assert len(axes.get_yticklabels()) == fig_windows.WORST_ROWS
    longest = run.vms.sort("quiesce_s", descending=True, nulls_last=True)["name"][0]
    assert longest in [label.get_text() for label in figure.axes[2].get_yticklabels()]


def test_names_that_look_like_mathematics_or_lack_glyphs_are_drawable() -> None:
    assert fig_style.printable("$x^2$\r日") == r"\$x^2\$?"
    assert fig_style.printable("abcdefgh", 5) == "abcd…"
    inputs = build_inputs(12)
    for vm in inputs.result.vms:
        vm.name, vm.quiesce = "$\\frac{1}{0}$ 日本", Window(vm.requested_s or 0, vm.opened_s or 0)
    png(fig_windows.windows(inputs.run()))


def test_a_level_holds_until_the_next_record() -> None:
    level = fig_delta.held(np.array([1.0, 3.0]), np.array([5.0, 7.0]), np.array([0.0, 1, 2, 3, 9]))
    assert level.tolist() == [0.0, 5.0, 5.0, 7.0, 7.0]


@pytest.mark.parametrize("size", [12, 200, 3000])
def test_every_vm_is_in_the_topology_or_counted_as_hidden(
    size: int, runs: dict[int, RunData]
) -> None:
    run = runs[size]
    view = build_view(run)
    assert sum(n.size for n in view.vms) + view.hidden_vms == run.placements["vm_id"].n_unique()
    assert max(len(view.vms), len(view.datastores), len(view.units)) <= max(ROWS, NAMED_VMS)
    assert view.single == (size == 12)
    assert view.collapsed == (size == 3000)


def test_collateral_vms_are_marked_and_components_coloured(runs: dict[int, RunData]) -> None:
    run = runs[12]
    figure = fig_topology.topology(run)
    words = texts(figure)
    collateral = run.placements.filter(run.placements["role"] == "collateral")["vm_name"]
    for name in collateral:
        assert f"{name} (collateral)" in words
    assert "collateral: not selected, but on a targeted unit" in words
    numbers = run.placements["component"].drop_nulls().unique().to_list()
    for number in numbers:
        assert f"C{number}" in words
    view = build_view(run)
    assert {view.component[u] for u in view.units} == {*numbers, None}


def test_collapsing_keeps_every_count(runs: dict[int, RunData]) -> None:
    view, placed = build_view(runs[200]), runs[200].placements
    for role in ("selected", "collateral", "other"):
        shown = sum(node.counts[role] for node in view.vms)
        assert shown == placed.filter(placed["role"] == role)["vm_id"].n_unique()


def test_a_raw_device_hangs_on_its_vm_without_a_datastore() -> None:
    inputs = build_inputs(12)
    inputs.placements.append(
        ("vc-a/vm-1000", "app-000", None, None, "array-2/raw-1", "array-2", 2005, 1, "selected")
    )
    view = build_view(inputs.run())
    index = next(i for i, node in enumerate(view.vms) if "app-000" in node.names)
    assert (index, "array-2/raw-1") in view.vm_edges
    assert not [edge for edge in view.unit_edges if edge[1] == "array-2/raw-1"]
    fig_topology.topology(inputs.run())


def test_no_series_means_no_pool_figure() -> None:
    names = set(draw_all(build_run(12, with_series=False)))
    assert {spec.name for spec in FIGURES} - names == {"pools", "array-load"}


def test_deltas_that_nobody_sampled_grow_evenly_and_stay_until_they_are_merged() -> None:
    inputs = build_inputs(12, with_series=False)
    for vm in inputs.result.vms:
        vm.delta_bytes = None
    vm = inputs.result.vms[0]
    vm.opened_s, vm.removal_s, vm.merged_s, vm.delta_bytes = 100.0, 104.0, 106.0, 1000
    run = inputs.run()
    at = np.array([99.0, 100.0, 101.0, 104.0, 105.9, 106.0])
    assert fig_delta.grown_evenly(run, run.vms, at).tolist() == [0, 0, 250, 1000, 1000, 0]
    assert "interpolated" in texts(fig_delta.delta_growth(run))
    assert "interpolated" not in texts(fig_delta.delta_growth(build_run(12)))


def test_a_pool_peak_between_two_steps_is_seen() -> None:
    inputs = build_inputs(12, with_series=False)
    inputs.series = [
        (100.0, "pool.capacity_bytes", "array-1", 1000.0),
        (100.5, "pool.used_bytes", "array-1", 100.0),
        (101.00001, "pool.used_bytes", "array-1", 970.0),
        (101.00002, "pool.used_bytes", "array-1", 200.0),
    ]
    figure = fig_array.pools(inputs.run())
    assert figure is not None
    assert "reached 97\u00a0% of its capacity" in figure.get_suptitle()
    used = figure.axes[0].lines[0]
    assert used.get_xdata()[0] == 0.5  # nothing is drawn before the first record
    assert np.asarray(used.get_ydata()).tolist() == [10.0, 97.0, 20.0]
    assert used.get_drawstyle() == "default"  # between two records a pool fills evenly


def test_a_datastore_on_no_known_unit_is_drawn_without_one() -> None:
    inputs = build_inputs(12)
    row = ("vc-a/vm-5", "stray", "local-1", "vmfs", None, None, 2000, None, "other")
    inputs.placements.append(row)
    view = build_view(inputs.run())
    assert "local-1" in view.datastores
    assert None not in view.units
    fig_topology.topology(inputs.run())
    large = build_inputs(3000)
    large.placements.append(row)
    assert "no known unit: 1 ×" in build_view(large.run()).datastores
