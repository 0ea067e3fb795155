"""Every figure of README and docs is what the committed results say, and none can change unseen."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable

import figures
import pytest
from reference import GLOBALS, conditions, measured, measurements, reference

PAGES = {figures.page_name(path): path for path in figures.PAGES}
CONDITIONS = {"guest", "accelerator", "host", "runs", "written down"}
_DIGITS = re.compile(r"\d(?:[\d.,]*\d)?")


@pytest.mark.slow
def test_each_measurement_is_printed_with_its_conditions(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first test, so that what is rendered here need not be rendered again below."""
    printed: set[str] = set()

    def noted(read: Callable[[str], str]) -> Callable[[str], str]:
        def note(name: str) -> str:
            printed.add(name)
            return read(name)

        return note

    for name, read in (("measured", measured), ("conditions", conditions)):
        monkeypatch.setitem(GLOBALS, name, noted(read))
    figures.render.cache_clear()
    for template in sorted(figures.TEMPLATES.glob("*.md.j2")):
        with contextlib.suppress(ValueError):  # a reference run that has too few boots
            figures.render(template.name.removesuffix(".md.j2"))
    values = {f"{group}.{name}" for group, found in measurements().items() for name in found["values"]}
    assert printed == values | measurements().keys()


@pytest.mark.parametrize("page", PAGES)
def test_every_figure_is_rendered_from_results_or_declared(page: str) -> None:
    assert list(figures.faults(page, PAGES[page].read_text())) == []


@pytest.mark.parametrize("page", PAGES)
def test_each_figure_that_is_changed_is_caught(page: str) -> None:
    """Each number in turn, but in code that no template renders: another one in its place is a fault."""
    text = PAGES[page].read_text()
    rendered = [match.span(3) for match in figures._REGION.finditer(text)]
    spans = [match.span() for match in figures._NO_PROSE.finditer(text)]
    code = [span for span in spans if not text[slice(*span)].startswith("|")]
    changed = 0
    for number in _DIGITS.finditer(text):
        at = number.start()
        if any(start <= at < end for start, end in code) and not any(
            start <= at < end for start, end in rendered
        ):
            continue
        digit = str((int(number[0][0]) + 1) % 10)
        mutant = text[: number.start()] + digit + text[number.start() + 1 :]
        assert any(figures.faults(page, mutant)), (
            f"{number[0]} at {number.start()} changed, and nothing said so"
        )
        changed += 1
    assert changed or not figures.constants(text)


def test_a_template_may_not_smuggle_a_number() -> None:
    assert figures.literals("{{ run('x')|n }} of 2 MiB blocks, 1,412 stayed") == ["2", "1,412"]
    declared = "{# constants: 2 MiB #}\n{{ run('x')|n }} of 2 MiB blocks"
    assert figures.literals(declared) == []


def test_a_constant_has_its_words_about_it() -> None:
    assert figures.constants("at most 24 GiB, `code 5`, [8 ways](x9.md) and 6.12") == [
        "most 24 GiB,",
        "8 ways",
        "and 6.12",
    ]


@pytest.mark.parametrize("template", sorted(path.name for path in figures.TEMPLATES.glob("*.md.j2")))
def test_each_template_is_used(template: str) -> None:
    used = {name for path in PAGES.values() for name, _ in figures.regions(path.read_text())}
    assert template.removesuffix(".md.j2") in used


def test_rendering_again_changes_nothing() -> None:
    for path in PAGES.values():
        text = path.read_text()
        assert figures.rewritten(text) == text


def test_a_region_that_cannot_be_rendered_is_a_fault_and_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def too_few(name: str) -> str:
        raise ValueError(f"{name}: 3 boots")

    monkeypatch.setattr(figures, "render", too_few)
    text = "<!-- figures: one -->\nas it was\n<!-- end figures -->\n"
    assert figures.rewritten(text) == text
    assert list(figures.faults("page.md", text)) == [
        figures.Fault("page.md", "region one cannot be rendered: one: 3 boots")
    ]


def test_code_may_go_over_a_line_break_but_not_over_a_paragraph() -> None:
    assert figures.constants("`run\n--budget 1GiB`") == []
    assert figures.constants("a ` alone\n\nhas 2 ` marks") == ["has 2 `"]


@pytest.mark.parametrize("group", measurements())
def test_a_measurement_has_its_conditions(group: str) -> None:
    found = measurements()[group]
    assert found.keys() == {"conditions", "values"}
    assert found["conditions"].keys() - {"guest kernel"} == CONDITIONS
    assert all(str(value) for value in found["conditions"].values())


def test_a_class_that_no_block_has_counts_as_0() -> None:
    found = reference("blame").of_class("attributed", "kernel-stacks", "hwpoison", "unplugged")
    assert found.boots.tolist() == [0.0] * len(found)
    with pytest.raises(ValueError, match="no class of frames"):
        reference("blame").of_class("attributed", "kernel-stacks", "kernel_stak", "unplugged")


def test_a_difference_is_the_one_that_compare_has() -> None:
    quickstart = reference("quickstart")
    arms = [quickstart.metric(arm, "unplug_achieved_bytes") for arm in ("linux-6.12", "linux-7.x")]
    found = quickstart.difference("unplug_achieved_bytes", "linux-6.12", "linux-7.x")
    assert found.estimate == pytest.approx(arms[1].mean - arms[0].mean)
