"""A real browser for tests of pages: Debian's chromium-headless-shell, spoken to over two pipes.

The DevTools protocol: one JSON object after another, each ended by a NUL, on descriptors 3 and 4.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

PROGRAM = "chromium-headless-shell"
_ANSWER_WITHIN = 20.0  # seconds
_ARGV = (
    "--remote-debugging-pipe",
    "--no-sandbox",  # it cannot be had as root, nor in most containers; what is opened is our own page
    "--disable-gpu",
    "--hide-scrollbars",
    # No name resolves, and nothing listens at the proxy: a page that needs a network does without.
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--proxy-server=127.0.0.1:9",
)
# Marks that Vega draws, whatever their kind; an axis is not among them.
_LOOK = """(() => {
  const box = (element) => {
    const r = element.getBoundingClientRect();
    return {left: r.left, top: r.top + scrollY, right: r.right, bottom: r.bottom + scrollY, width: r.width};
  };
  const charts = [...document.querySelectorAll(".chart")].map((chart) => ({
    id: chart.id,
    drawn: chart.querySelector("svg") ? [...chart.querySelectorAll(
      ".role-mark path, .role-mark line, .role-mark text, .role-mark rect")].filter(
        (mark) => { const b = mark.getBBox(); return b.width > 0 || b.height > 0; }).length : 0,
    text: chart.querySelector("svg") ? "" : chart.textContent,
    box: box(chart),
  }));
  // Words of a chart that run into each other, or out of the page.
  const collide = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > 1
    && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 3;
  const overlaps = [...document.querySelectorAll(".chart")].flatMap((chart) => {
    const words = [...chart.querySelectorAll("svg text")].filter(
      (one) => one.textContent && getComputedStyle(one).opacity !== "0").map(
        (one) => ({text: one.textContent, at: one.getBoundingClientRect()}));
    return words.flatMap((one, index) => [
      ...(one.at.right > innerWidth + 1 || one.at.left < -1 ? [`${chart.id}: ${one.text} is cut`] : []),
      ...words.slice(index + 1).filter((other) => collide(one.at, other.at)).map(
        (other) => `${chart.id}: ${one.text} over ${other.text}`)]);
  });
  return {
    charts,
    overlaps,
    specs: Object.keys(JSON.parse(document.getElementById("charts").textContent)),
    answer: document.getElementById("conclusions").innerText,
    lines: [...document.querySelectorAll("#conclusions p, #conclusions tr")].map(
      (line) => ({text: line.innerText, box: box(line)})),
    width: document.documentElement.scrollWidth,
    cut: [...document.querySelectorAll(".scroll")].filter(
      (part) => part.scrollWidth > part.clientWidth + 1).map((part) => part.getAttribute("aria-label")),
    closed: [...document.querySelectorAll("details")].filter(
      (part) => !part.lastElementChild.checkVisibility({contentVisibilityAuto: true})).length,
    paper: getComputedStyle(document.body).backgroundColor,
    ink: getComputedStyle(document.body).color,
  };
})()"""


@dataclass(frozen=True)
class Seen:
    """What a page came to: what it complained of, what it asked the network for, and how it looks."""

    complaints: list[str]
    fetched: list[str]
    look: dict[str, Any]


class Browser:
    """The process. Every answer is waited for no longer than `_ANSWER_WITHIN`."""

    def __init__(self, profile: Path) -> None:
        program = shutil.which(PROGRAM)
        assert program, f"there is no {PROGRAM}: ./bootstrap tox installs it"
        self._next, self._events, self._buffer = 0, deque[dict[str, Any]](), b""
        # High numbers, so that neither is 3 or 4 itself when the child makes those of them.
        ends = [_high(end) for end in (*os.pipe(), *os.pipe())]
        commands_out, self._commands, self._answers, answers_in = ends

        def wire() -> None:
            os.dup2(commands_out, 3)
            os.dup2(answers_in, 4)

        self._process = subprocess.Popen(
            [program, *_ARGV, f"--user-data-dir={profile}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=wire,  # noqa: PLW1509  # takes no lock; there is no other way to a descriptor's number
            start_new_session=True,  # the program is a script that starts the browser: end both
            close_fds=False,  # 3 and 4 are made in the child; all others close by themselves
        )
        os.close(commands_out)
        os.close(answers_in)

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._commands)
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(5)
        os.close(self._answers)

    def open(
        self,
        page: Path,
        *,
        width: int = 1200,
        height: int = 800,
        scheme: str = "light",
        media: str = "screen",
    ) -> Seen:
        """Open a page in a tab of its own and look at it once its charts are drawn, or will not be."""
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        tab = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._events.clear()
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable", tab)
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._call("Emulation.setDeviceMetricsOverride", tab, **size)
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self._call("Emulation.setEmulatedMedia", tab, media=media, features=features)
        self._call("Page.navigate", tab, url=page.as_uri())
        self._wait_for("Page.loadEventFired")
        look = self._settled_look(tab)
        self._call("Target.closeTarget", targetId=target)
        events = list(self._events)
        return Seen(list(_complaints(events)), _fetched(events), look)

    def _settled_look(self, tab: str) -> dict[str, Any]:
        """Charts are drawn one after another: look until two looks agree and nothing is left to draw."""
        deadline = time.monotonic() + _ANSWER_WITHIN
        while True:
            done = self._call("Runtime.evaluate", tab, expression=_LOOK, returnByValue=True)
            look: dict[str, Any] = done["result"].get("value", {})
            settled = look and all(chart["drawn"] or chart["text"] for chart in look["charts"])
            if settled or time.monotonic() > deadline:
                return look
            time.sleep(0.1)

    def _call(self, method: str, tab: str = "", **params: Any) -> dict[str, Any]:
        self._next += 1
        asked = {"id": self._next, "method": method, "params": params} | ({"sessionId": tab} if tab else {})
        os.write(self._commands, json.dumps(asked).encode() + b"\0")
        while True:
            said = self._message(method)
            if said.get("id") == self._next:
                assert "error" not in said, said
                return dict(said["result"])
            self._events.append(said)

    def _wait_for(self, event: str) -> None:
        while not any(said.get("method") == event for said in self._events):
            self._events.append(self._message(event))

    def _message(self, awaited: str) -> dict[str, Any]:
        deadline = time.monotonic() + _ANSWER_WITHIN
        while b"\0" not in self._buffer:
            left = deadline - time.monotonic()
            assert left > 0, f"{PROGRAM} did not answer within {_ANSWER_WITHIN:.0f} s: {awaited}"
            if select.select([self._answers], [], [], left)[0]:
                more = os.read(self._answers, 1 << 16)
                assert more, f"{PROGRAM} ended: {awaited}"
                self._buffer += more
        message, _, self._buffer = self._buffer.partition(b"\0")
        return dict(json.loads(message))


def _high(descriptor: int) -> int:
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(descriptor)
    return moved


def _complaints(events: list[dict[str, Any]]) -> Any:
    for event in events:
        params = event.get("params", {})
        match event.get("method"):
            case "Runtime.exceptionThrown":
                yield str(params["exceptionDetails"])
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "warning", "assert"):
                yield f"{params['type']}: {params['args']}"
            case "Log.entryAdded" if params["entry"]["level"] in ("error", "warning"):
                yield str(params["entry"]["text"])


def _fetched(events: list[dict[str, Any]]) -> list[str]:
    return [
        event["params"]["request"]["url"]
        for event in events
        if event.get("method") == "Network.requestWillBeSent"
    ]
