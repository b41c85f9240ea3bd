"""The page in a browser: all of it is there, works by mouse and by keyboard, and needs no network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
import json
import math
from pathlib import Path
import re
import time
from typing import Any
from typing import TYPE_CHECKING

import optuna
from optuna.artifacts import FileSystemArtifactStore
from optuna.distributions import CategoricalDistribution
from optuna.distributions import FloatDistribution
from optuna.trial import create_trial
import pytest

from studies.publish.gallery import STORED
from studies.report.content import Report
from studies.report.page import build_page
from studies.report.page_data import page_trials
from studies.report.runs import load_contents
from studies.report.runs import Run
from studies.report.transcripts import load_transcripts
from studies.storage.open import opened
from tests.conftest import watched_page
from tests.studies.report.synthetic import add_library_study
from tests.studies.report.synthetic import add_repetitions
from tests.studies.report.synthetic import add_study
from tests.studies.report.synthetic import runs_of


if TYPE_CHECKING:
    from playwright.sync_api import Browser
    from playwright.sync_api import Page


SEEDS = 8  # enough for intervals; each page of 40 took Chromium six seconds
HOSTILE = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>"


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of five methods, all plots in it, with a hostile reply and a hostile name."""
    folder = tmp_path_factory.mktemp("page")
    storage = optuna.storages.InMemoryStorage()
    for seed in range(SEEDS):
        for method in ("random", "tpe", "cma-es"):
            add_study(storage, method, seed)
        for ratio, model in ((0.3, "small"), (0.1, "small")):
            name = f"centaur-{ratio}-{model}-{seed}"
            study = add_study(
                storage,
                "centaur",
                seed,
                gap=-0.01,
                name=name,
                said={2: f"{HOSTILE} seed {seed}"} if seed < 3 else {},
                folder=folder,
                llm_ratio=ratio,
                model=model,
            )
            if seed < 3:
                add_repetitions(storage, study, [1.0, 1.1])
    add_study(storage, "centaur", 0, name="other", llm_ratio=0.3, model=f"{HOSTILE}")
    runs = runs_of(storage)
    said = load_transcripts(runs, storage, FileSystemArtifactStore(folder))
    file = folder / "report.html"
    file.write_text(build_page(Report(runs, "random", said=said)), encoding="utf-8")
    return file


@contextmanager
def opened_page(browser: Browser, file: Path, width: int = 1200) -> Iterator[Page]:
    """A page that has loaded; an error of a script or any request fails the test, too."""
    requests: list[str] = []
    with watched_page(browser, width, 900) as page:
        page.on("request", lambda r: requests.append(r.url))
        start = time.monotonic()
        page.goto(file.as_uri())
        page.locator("table").first.wait_for()
        print(f"opened in {time.monotonic() - start:.2f} s")
        yield page
        assert page.evaluate("window.hacked") is None
        assert [url for url in requests if not re.match(r"file:|data:|blob:", url)] == []


@pytest.fixture
def page(browser: Browser, page_file: Path) -> Iterator[Page]:
    with opened_page(browser, page_file) as page:
        yield page


@pytest.fixture(scope="module")
def shared_page(browser: Browser, page_file: Path) -> Iterator[Page]:
    """For tests that change nothing that another one of them looks at."""
    with opened_page(browser, page_file) as page:
        yield page


@pytest.fixture(scope="module")
def phone(browser: Browser, page_file: Path) -> Iterator[Page]:
    """The same on a small screen."""
    with opened_page(browser, page_file, width=390) as page:
        yield page


def figure(page: Page, name: str) -> Any:
    """The drawn plot of the section that the link of this name leads to."""
    section = page.get_by_role("navigation").get_by_role("link", name=name, exact=True)
    found = page.locator(f"{section.get_attribute('href')} .figure")
    found.scroll_into_view_if_needed()
    found.locator(".main-svg").first.wait_for()
    return found


def traces(plot: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = plot.evaluate(
        "div => div.data.map(t => ({name: t.name, n: (t.x ?? []).length, visible: t.visible}))"
    )
    return found


@pytest.mark.browser
def test_every_plot_is_there(shared_page: Page) -> None:
    names = shared_page.locator("nav a").all_inner_texts()
    assert names == [
        "Findings", "Methods", "Tests", "Time", "Trials", "Differences", "Seeds", "Runs", "Ratio",
        "Models", "Sources", "Failures", "Importance", "Tokens", "Failure map", "Traces", "Table",
        "Parameters", "Pairs", "Parallel", "Prompts",
    ]  # fmt: skip
    for name in set(names[3:-1]) - {"Table"}:
        assert traces(figure(shared_page, name)), name
    marked = {trace["name"] for trace in traces(figure(shared_page, "Traces"))}
    assert marked >= {"llm", "base", "failed: oom", "best so far", "incumbent"}


@pytest.mark.browser
def test_hidden_methods_leave_every_table_and_comparison(page: Page) -> None:
    time_plot, runs_plot = figure(page, "Time"), figure(page, "Runs")
    assert any("random: " in t["name"] for t in traces(time_plot) if t["name"])
    points = sum(t["n"] for t in traces(runs_plot) if t["name"] == "best")
    rows = page.locator("tr[data-method=random]")
    assert rows.first.is_visible()
    page.get_by_role("checkbox", name="random", exact=True).press("Space")
    assert not any("random: " in t["name"] for t in traces(time_plot) if t["name"])
    left = sum(t["n"] for t in traces(runs_plot) if t["name"] == "best")
    assert left == points - (SEEDS + 1)  # and their mean
    assert not any(row.is_visible() for row in rows.all())
    page.get_by_role("button", name="none").press("Enter")
    assert traces(time_plot) == traces(runs_plot) == []
    page.get_by_role("button", name="all", exact=True).press("Enter")
    assert any("random: " in t["name"] for t in traces(time_plot) if t["name"])
    assert rows.first.is_visible()


@pytest.mark.browser
def test_hovering_and_arrow_keys_tell_of_a_trial(page: Page) -> None:
    plot = figure(page, "Traces")
    plot.locator(".scatterlayer .trace").last.locator(".points path").last.hover(force=True)
    plot.locator(".hoverlayer .hovertext").first.wait_for()
    assert "LR = " in plot.locator(".hoverlayer").text_content()
    plot.focus()
    spoken: list[str] = []
    for key in ("ArrowRight", "ArrowRight", "ArrowDown"):
        page.keyboard.press(key)
        page.wait_for_function(
            "said => document.getElementById('spoken').textContent !== said",
            arg=spoken[-1] if spoken else "",
        )
        spoken.append(page.locator("#spoken").inner_text())
    assert all(re.match(r"trial \d+ ", text) and "LR = " in text for text in spoken)
    assert len(set(spoken)) == 3


def spoken_after(page: Page, key: str) -> str:
    """Return the text that is announced when a key is pressed; "" if none is."""
    page.evaluate("document.getElementById('spoken').textContent = ''")
    page.keyboard.press(key)
    return page.locator("#spoken").text_content() or ""


@pytest.mark.browser
def test_every_plot_that_promises_arrow_keys_has_them(shared_page: Page) -> None:
    silent = []
    names = shared_page.locator("nav a").all_inner_texts()[3:-1]
    for name in [name for name in names if name != "Table"]:
        plot = figure(shared_page, name)
        plot.focus()
        promised = "Arrow keys" in (plot.get_attribute("aria-label") or "")
        assert bool(spoken_after(shared_page, "ArrowRight")) == promised, name
        silent += [] if promised else [name]
    assert silent == ["Parallel"]


@pytest.mark.browser
def test_arrow_keys_step_through_the_cells_of_a_map(page: Page) -> None:
    plot = figure(page, "Failure map")
    plot.focus()
    first = spoken_after(page, "ArrowRight")
    assert re.fullmatch(r"LR 0.0001 to \S+: \d+ of \d+ failed", first)
    plot.locator(".hoverlayer", has_text=first).wait_for()
    assert spoken_after(page, "ArrowRight").startswith("LR 0.000316 to ")
    below = spoken_after(page, "ArrowDown")
    assert below.startswith("WIDTH 0.125 to 0.25: ")
    plot.locator(".hoverlayer", has_text=below).wait_for()  # the label is where the words are
    assert spoken_after(page, "ArrowDown").startswith("PATTERN L: ")
    assert spoken_after(page, "ArrowRight").startswith("PATTERN L: ")  # it has two choices only
    assert spoken_after(page, "ArrowDown").startswith("LR ")


@pytest.mark.browser
def test_menus_choose_runs_parameters_and_measures(page: Page) -> None:
    pair = figure(page, "Pairs")
    menus = pair.locator("xpath=..")
    before = sum(t["n"] for t in traces(pair))
    assert before == 30
    menus.get_by_label("Run").select_option("all of tpe")
    assert sum(t["n"] for t in traces(pair)) == SEEDS * 30
    menus.get_by_label("x", exact=True).select_option("PATTERN")
    assert pair.evaluate("div => div.layout.xaxis.title.text") == "PATTERN"
    assert set(pair.evaluate("div => div.data[0].x")) == {"S", "L"}
    parallel = figure(page, "Parallel")
    lines = "div => div.data[0].dimensions[0].values.length"
    every = parallel.evaluate(lines)
    share = parallel.locator("xpath=..").get_by_label("Best %")
    share.fill("50")
    share.press("Enter")
    assert parallel.evaluate(lines) == -(-every // 2)
    tokens = figure(page, "Tokens")
    tokens.locator("xpath=..").get_by_label("Measure").select_option("seconds")
    assert tokens.evaluate("div => div.layout.yaxis.title.text").startswith("seconds ")
    assert len(traces(tokens)) == 3


@pytest.fixture(scope="module")
def library_page(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """The report of a study that was made with Optuna alone; no test changes what another sees."""
    storage = optuna.storages.InMemoryStorage()
    add_library_study(storage)
    file = tmp_path_factory.mktemp("library") / "report.html"
    file.write_text(build_page(Report(runs_of(storage), "alone")), encoding="utf-8")
    with opened_page(browser, file) as page:
        yield page


@pytest.mark.browser
@pytest.mark.parametrize("name", ["Traces", "Parameters", "Pairs"])
def test_pruned_trials_are_told_apart_from_failed_ones(library_page: Page, name: str) -> None:
    looks = figure(library_page, name).evaluate(
        "div => div.data.map(t => [(t.name ?? '').split(':')[0], t.x.length, t.marker?.color])"
    )
    found = {look: (n, color) for look, n, color in looks}
    assert (found["failed"], found["pruned"]) == ((1, "#B00000"), (4, "#7F7F7F"))


@pytest.mark.browser
def test_every_choice_has_its_place_and_what_a_trial_lacks_is_not_said(library_page: Page) -> None:
    pair = figure(library_page, "Pairs")
    menus = pair.locator("xpath=..")
    menus.get_by_label("x", exact=True).select_option("depth")
    menus.get_by_label("y", exact=True).select_option("dropout")
    places = pair.evaluate("div => div.data.flatMap(t => t.x.map((x, i) => [x, t.y[i]]))")
    assert len(places) == 12 and {x for x, _ in places} == {"None", 5, 10}
    assert {y for _, y in places} == {0.015625, 0.0625}
    assert pair.evaluate("div => div._fullLayout.xaxis._categories") == ["None", "5", "10"]
    said = pair.evaluate("div => div.data.flatMap(t => t.hovertext)")
    assert sum("depth = None" in text for text in said) == 4
    assert sum("momentum = 0.9" in text for text in said) == 6
    assert not any("null" in text for text in said)
    axes = figure(library_page, "Parallel").evaluate(
        "div => div.data[0].dimensions.map(d => [d.label, Math.min(...d.values)])"
    )
    labels = [label for label, _ in axes]
    assert labels == ["LR", "WIDTH", "depth", "dropout", "state", "reason", "value"]
    assert all(least >= 0 for label, least in axes if label in ("depth", "dropout"))
    cells = library_page.locator("#table tbody").inner_text()
    assert "None" in cells and "0.015625" in cells


@pytest.mark.browser
def test_without_times_nothing_is_drawn_against_time_and_no_column_tells_it(
    library_page: Page,
) -> None:
    plot = figure(library_page, "Traces")
    assert plot.locator("xpath=..").get_by_label("Against").inner_text() == "trials"
    assert plot.evaluate("div => div.layout.xaxis.title.text") == "trials that ended"
    headings = library_page.locator("#table th").all_inner_texts()
    assert "source" in headings and "time (s)" not in headings


@pytest.mark.browser
def test_a_parameter_named_like_a_column_has_one_of_its_own(library_page: Page) -> None:
    names = library_page.locator("#table th").all_inner_texts()
    cells = library_page.locator("#table tbody tr").nth(4).locator("td").all_inner_texts()
    row = dict(zip(names, cells, strict=True))
    assert (row["state"], row["param:state"]) == ("crash", "0.25")
    assert (row["reason"], row["param:reason"]) == ("no luck", "0.75")


@pytest.mark.browser
def test_a_logarithmic_axis_between_round_numbers_has_labels(library_page: Page) -> None:
    axis = "div => [div.layout.yaxis.ticktext, div.layout.yaxis.tickvals]"
    found = figure(library_page, "Parameters").evaluate(axis)
    assert found == [["0.0012", "0.0018"], [0.0012, 0.0018]]


@pytest.mark.browser
def test_the_pointer_over_all_parameters_is_no_error(library_page: Page) -> None:
    event = {"x": 0, "y": 0, "dataIndex": 0, "curveNumber": 0}  # as plotly tells it of its lines
    figure(library_page, "Parallel").evaluate(
        "(div, event) => div.emit('plotly_hover', event)", event
    )


def test_the_baseline_is_called_that_and_what_a_user_enqueued_is_not(
    memory: optuna.storages.InMemoryStorage,
) -> None:
    study = add_study(memory, "tpe", 0, trials=0)
    for source in ("enqueued", "enqueued", "base"):
        study.add_trial(create_trial(value=1.0, user_attrs={"status": "ok", "source": source}))
    (run,) = page_trials(runs_of(memory))["runs"]
    assert run["source"] == ["baseline", "enqueued", "base"]


def test_an_axis_of_steps_may_be_one_of_percent_where_a_script_says_of_how_many(
    memory: optuna.storages.InMemoryStorage,
) -> None:
    add_library_study(memory)
    assert page_trials(runs_of(memory))["steps"] == "step"
    memory = optuna.storages.InMemoryStorage()
    add_study(memory, "tpe", 0)
    assert page_trials(runs_of(memory))["steps"].startswith("percent of the training, or step")


def test_a_choice_of_one_run_or_of_a_rule_is_one_too(
    memory: optuna.storages.InMemoryStorage,
) -> None:
    runs: list[tuple[str, list[str | float], str | None]] = [
        ("a", ["S", math.nan], None),
        ("b", ["S", "L"], "auto"),
    ]
    for name, choices, ran in runs:
        study = add_study(memory, name, 0, trials=0)
        for choice in choices:
            attrs = {"status": "ok", "effective": json.dumps({"PATTERN": ran} if ran else {})}
            study.add_trial(
                create_trial(
                    value=1.0,
                    params={"PATTERN": choice},
                    distributions={"PATTERN": CategoricalDistribution(choices)},
                    user_attrs=attrs,
                )
            )
    data = page_trials(runs_of(memory))
    assert data["parameters"][0]["choices"] == ["S", "nan", "L", "auto"]
    assert [run["params"] for run in data["runs"]] == [[[0, 1]], [[3, 3]]]


@pytest.mark.browser
def test_the_incumbents_of_a_code_study_are_what_was_kept(
    browser: Browser, code_run: Run, tmp_path: Path
) -> None:
    file = tmp_path / "code.html"
    file.write_text(build_page(Report([code_run], "karpathy-code")), encoding="utf-8")
    with opened_page(browser, file) as page:
        plot = figure(page, "Traces")
        plot.locator("xpath=..").get_by_label("Against").select_option("trials")
        found = plot.evaluate(
            "div => Object.fromEntries(div.data.map(t => [t.name, [[...t.x], [...t.y]]]))"
        )
    assert found["incumbent"] == [[1, 3, 4], [2.0, 1.7, 0.4]]
    assert found["best so far"] == [[1, 3, 4, 5], [2.0, 1.7, 0.4, 0.4]]


@pytest.mark.browser
def test_tables_sort_by_keyboard_with_empty_cells_last(shared_page: Page) -> None:
    table = shared_page.locator("table", has_text="Values").first
    button = table.get_by_role("button", name="revalidated (mean)")
    column = table.locator("th").all_inner_texts().index("revalidated (mean)") + 1
    cells = table.locator(f"tbody td:nth-child({column})")
    for order in ("ascending", "descending"):
        button.press("Enter")
        assert button.locator("xpath=..").get_attribute("aria-sort") == order
        values = cells.all_inner_texts()
        numbers = [float(value) for value in values if value]
        assert numbers == sorted(numbers, reverse=order == "descending") and len(numbers) == 2
        assert values[len(numbers) :] == [""] * (len(values) - len(numbers))


@pytest.mark.browser
def test_prompts_and_replies_are_shown_as_the_text_they_are(shared_page: Page) -> None:
    assert shared_page.locator("#transcript").inner_text().startswith(HOSTILE)
    first = shared_page.locator("#transcript").text_content()
    shared_page.locator("#transcript-run").select_option(index=1)
    assert shared_page.locator("#transcript").text_content() != first
    assert "trial 2: llm, " in shared_page.locator("#transcript-trial").inner_text()


@pytest.mark.browser
def test_a_dark_page_has_dark_plots(page: Page) -> None:
    paper = "div => [getComputedStyle(document.body).backgroundColor, div.layout.paper_bgcolor]"
    plot = figure(page, "Trials")
    assert plot.evaluate(paper) == ["rgb(255, 255, 255)", None]
    page.emulate_media(color_scheme="dark")
    plot.evaluate("div => new Promise(done => setTimeout(done, 500))")
    assert plot.evaluate(paper) == ["rgb(24, 24, 24)", "#181818"]


@pytest.mark.browser
def test_a_page_is_printed_with_all_of_its_plots_on_white_paper_and_as_wide_as_that(
    page: Page, page_file: Path
) -> None:
    page.emulate_media(color_scheme="dark")
    page.goto(page_file.as_uri())  # until it has loaded, when a program prints it
    widths = "[...document.querySelectorAll('.figure')].map(d => d.layout?.width)"
    papers = "[...document.querySelectorAll('.figure')].map(d => d.layout?.paper_bgcolor)"
    assert page.evaluate(widths).count(None) > 5
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert set(page.evaluate(widths)) == {700}
    assert set(page.evaluate(papers)) == {None}
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert 700 not in page.evaluate(widths)
    assert set(page.evaluate(papers)) == {"#181818"}


@pytest.fixture(scope="module")
def stored_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a study with fourteen parameters."""
    stored = tmp_path_factory.mktemp("stored") / STORED.name
    stored.write_bytes(STORED.read_bytes())
    with opened(f"sqlite:///{stored}") as storage:
        (contents,) = load_contents(storage, print).values()
    file = stored.with_suffix(".html")
    file.write_text(build_page(Report(contents.runs, "centaur")), encoding="utf-8")
    return file


@pytest.mark.browser
def test_a_table_of_fourteen_parameters_is_printed_as_wide_as_the_paper(
    browser: Browser, stored_page: Path
) -> None:
    letter = browser.new_page(viewport={"width": 979, "height": 739})  # less the margins
    letter.emulate_media(media="print")
    letter.goto(stored_page.as_uri())
    letter.evaluate("dispatchEvent(new Event('beforeprint'))")
    table = letter.locator("#table table").bounding_box()
    assert table is not None and table["width"] <= 979, "a browser would shrink every page"
    letter.close()


@pytest.fixture(scope="module")
def wide_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a comparison with long names, a long reason, and all columns of its tables."""
    storage = optuna.storages.InMemoryStorage()
    for seed in range(4):
        for method in ("random", "centaur-no-llm"):
            study = add_study(storage, method, seed, trials=8)
            add_repetitions(storage, study, [1.0, 1.1, None])
    space = {f"KERNEL_WIDTH_{i}": FloatDistribution(0, 1) for i in range(3)}
    failed = {
        "status": "crash",
        "reason": "ValueError: more components than the window is wide " * 9,
    }
    study.add_trial(
        create_trial(
            value=100.0,
            params=dict.fromkeys(space, 0.12345),
            distributions=dict(space),
            user_attrs=failed,
        )
    )
    file = tmp_path_factory.mktemp("wide") / "report.html"
    file.write_text(build_page(Report(runs_of(storage), "random")), encoding="utf-8")
    return file


@pytest.mark.browser
def test_tables_are_as_wide_as_the_page_where_their_words_can_break(
    browser: Browser, wide_page: Path
) -> None:
    with opened_page(browser, wide_page, width=1280) as page:
        page.locator("#s-table").get_by_label("State").select_option("crash")
        page.locator("#s-table").get_by_label("Run").select_option("all runs")
        too_wide = """[...document.querySelectorAll(".scroll")]
          .filter(div => div.scrollWidth > div.clientWidth).map(div => div.innerText)"""
        assert page.evaluate(too_wide) == []
        cell = page.locator("#table td.reason").bounding_box()
        assert cell is not None and cell["height"] < 120


@pytest.mark.browser
def test_a_printed_table_has_its_headings_on_each_of_its_pages(
    browser: Browser, stored_page: Path
) -> None:
    """A PDF's text is packed and its links aren't: so a heading is made one, of twice the rows."""
    page = browser.new_page()
    page.goto(stored_page.as_uri())
    page.add_style_tag(content="body > :not(main), section:not(#s-table) { display: none; }")
    page.evaluate("""addEventListener("beforeprint", () => {
      document.querySelector("#table th button").innerHTML = "<a href='https://heading/'>trial</a>";
      document.querySelector("#table tbody").innerHTML += document.querySelector("#table tbody").innerHTML;
    })""")
    second = page.pdf(prefer_css_page_size=True, page_ranges="2")
    page.close()
    assert b"https://heading/" in second


@pytest.mark.browser
def test_plotlys_buttons_cover_no_name_of_a_parameter(page: Page) -> None:
    plot = figure(page, "Parameters")
    plot.hover()
    buttons = plot.locator(".modebar").bounding_box()
    assert buttons is not None and plot.locator(".annotation-text").count() > 2
    for name in plot.locator(".annotation-text").all():
        box = name.bounding_box()
        assert box is not None and box["y"] >= buttons["y"] + buttons["height"]


@pytest.mark.browser
def test_on_a_small_screen_a_map_names_every_row(browser: Browser, wide_page: Path) -> None:
    with opened_page(browser, wide_page, width=390) as page:
        plot = figure(page, "Failure map")
        rows = plot.evaluate("div => div.data[0].y")
        assert len(rows) == 6
        assert sorted(plot.locator(".ytick text").all_text_contents()) == sorted(rows)
        cells = plot.locator(".hm").bounding_box()
        assert cells is not None and cells["height"] / len(rows) > 18, "a line of text needs that"


@pytest.mark.browser
def test_on_a_small_screen_names_of_parameters_stand_side_by_side(phone: Page) -> None:
    plot = figure(phone, "Parameters")
    overlapping = """div => {
      const boxes = [...div.querySelectorAll(".annotation-text")].map(t => t.getBoundingClientRect());
      return boxes.filter((a, i) => boxes.some((b, j) => i < j
        && a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom)).length;
    }"""
    assert plot.locator(".annotation-text").count() > 2
    assert plot.evaluate(overlapping) == 0
    assert phone.evaluate("document.documentElement.scrollWidth") == 390
    phone.get_by_role("navigation").get_by_role("link", name="Parameters", exact=True).click()
    phone.evaluate("() => new Promise(done => setTimeout(done, 300))")
    heading = phone.locator("#s-parameters h2")
    is_on_top = "h => { const b = h.getBoundingClientRect(); return document.elementFromPoint(b.x + 5, b.y + 5) === h; }"
    assert heading.evaluate(is_on_top)  # and nothing covers it


@pytest.mark.browser
@pytest.mark.parametrize("name", ["Time", "Trials", "Traces", "Seeds"])
def test_on_a_small_screen_a_legend_is_below_the_axis_and_all_of_it_there(
    phone: Page, name: str
) -> None:
    plot = figure(phone, name)
    legend, title, whole = plot.evaluate(
        "div => ['.legend', '.g-xtitle', '.main-svg'].map("
        "part => div.querySelector(part)?.getBoundingClientRect())"
    )
    if title["height"]:  # names of methods need none
        assert title["bottom"] <= legend["top"]
    assert legend["bottom"] <= whole["bottom"]
    assert plot.locator(".legend .scrollbar").get_attribute("height") in (None, "0")
    y = plot.locator(".g-ytitle").bounding_box()
    assert y["height"] <= whole["height"], "its ends would be cut off"


@pytest.mark.browser
@pytest.mark.parametrize("width", [500, 640, 1200])
def test_a_legend_of_several_lines_is_above_the_points(
    browser: Browser, page_file: Path, width: int
) -> None:
    with opened_page(browser, page_file, width=width) as page:
        plot = figure(page, "Traces")
        plot.locator(".nsewdrag").wait_for()
        legend, area = plot.evaluate(
            "div => ['.legend', '.nsewdrag'].map(part => div.querySelector(part).getBoundingClientRect())"
        )
        assert legend["top"] >= plot.bounding_box()["y"] and legend["bottom"] <= area["top"]


@pytest.mark.browser
def test_on_a_small_screen_a_map_has_its_width_and_its_title_below_it(phone: Page) -> None:
    plot = figure(phone, "Failure map")
    assert plot.evaluate("div => div._fullData[0].colorbar.orientation") == "h"
    places = (
        "div => ['.hm', '.xtitle'].map(part => div.querySelector(part).getBoundingClientRect())"
    )
    cells, title = plot.evaluate(places)
    assert cells["width"] > 390 / 2
    assert title["top"] >= cells["bottom"]


@pytest.mark.browser
def test_trials_are_sorted_and_filtered_by_keyboard_and_the_address_brings_them_back(
    page: Page, page_file: Path
) -> None:
    section = page.locator("#s-table")
    section.get_by_label("Run").select_option("all of tpe")
    section.get_by_label("State").select_option("ok")
    head = section.get_by_role("button", name="val_bpb")
    head.press("Enter")
    head.press("Enter")
    column = section.locator("th").all_inner_texts().index("val_bpb") + 1
    values = [float(v) for v in section.locator(f"td:nth-child({column})").all_inner_texts()]
    assert values == sorted(values, reverse=True) and len(values) == 50
    assert set(section.locator("td:nth-child(5)").all_inner_texts()) == {"ok"}
    section.get_by_role("button", name="next").press("Enter")
    below = section.locator(f"td:nth-child({column})").first.inner_text()
    assert float(below) <= values[-1]
    page.get_by_role("checkbox", name="random", exact=True).press("Space")
    address = page.url
    page.goto(page_file.as_uri())
    assert page.get_by_role("checkbox", name="random", exact=True).is_checked()
    page.goto(address)
    assert not page.get_by_role("checkbox", name="random", exact=True).is_checked()
    assert not page.locator("tr[data-method=random]").first.is_visible()
    again = section.locator(f"td:nth-child({column})").all_inner_texts()
    assert [float(value) for value in again] == values


@pytest.mark.browser
def test_buttons_show_the_methods_of_a_kind(page: Page) -> None:
    page.get_by_role("button", name="without one").press("Enter")
    shown = page.locator("#methods input:checked").evaluate_all("all => all.map(b => b.value)")
    assert sorted(shown) == ["cma-es", "random", "tpe"]
    page.get_by_role("button", name="with a language model").press("Enter")
    shown = page.locator("#methods input:checked").evaluate_all("all => all.map(b => b.value)")
    assert len(shown) == 3 and all("centaur" in name for name in shown)
