"""Drives a headless Chromium over the pipe of its DevTools protocol; needs nothing but the browser."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    # Frames with a sandbox stay in the process of their page, whose requests are then all seen.
    "--disable-features=IsolateSandboxedIframes",
    "--remote-debugging-pipe",
)
KEYS = {"Tab": (9, ""), "Enter": (13, "\r"), "Escape": (27, ""), "Space": (32, " ")}


class Chromium:
    """One page of a headless Chromium.

    Args:
        folder: Folder for the profile of the browser.
    """

    def __init__(self, folder: Path) -> None:
        assert CHROMIUM is not None
        their_input, self._output = os.pipe()
        self._input, their_output = os.pipe()
        # The protocol uses the descriptors 3 and 4.
        start = f'exec "$0" "$@" 3<&{their_input} 4>&{their_output}'
        self._process = subprocess.Popen(
            ["bash", "-c", start, CHROMIUM, *FLAGS, f"--user-data-dir={folder / 'profile'}"],
            pass_fds=(their_input, their_output),
            stderr=subprocess.DEVNULL,
        )
        os.close(their_input)
        os.close(their_output)
        self._unread = b""
        self._number = 0
        self._session: str | None = None
        #: Errors and warnings of the console, exceptions of scripts, and addresses that were requested.
        self.problems: list[str] = []
        self.requests: list[str] = []
        self._loads = 0
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")

    def __enter__(self) -> Chromium:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._output)
        os.close(self._input)

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Sends a command and returns its result."""
        self._number += 1
        number = self._number
        message: dict[str, Any] = {"id": number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._output, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + 60
        while True:
            answer = self._receive(deadline)
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer)
                return dict(answer["result"])

    def _receive(self, deadline: float) -> Mapping[str, Any]:
        while b"\0" not in self._unread:
            ready, _, _ = select.select([self._input], [], [], max(deadline - time.monotonic(), 0))
            assert ready, "the browser does not answer"
            found = os.read(self._input, 1 << 20)
            assert found, "the browser has ended"
            self._unread += found
        text, _, self._unread = self._unread.partition(b"\0")
        message = json.loads(text)
        self._note(message.get("method", ""), message.get("params", {}))
        return dict(message)

    def _note(self, method: str, params: Mapping[str, Any]) -> None:
        if method == "Page.loadEventFired":
            self._loads += 1
        elif method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.problems.append(str(params["exceptionDetails"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.problems.append(f"{params['entry']['text']} {params['entry'].get('url')}")
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.problems.append(str(params["args"]))

    def evaluate(self, script: str) -> Any:
        """Returns the value of a script; waits for it if it is a promise."""
        found = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, (script, found)
        return found["result"].get("value")

    def show(self, width: int, height: int, *, dark: bool = False, phone: bool = False) -> None:
        """Changes the size of the page and its colors."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone}
        self.send("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, address: str) -> None:
        """Opens an address and waits until the page is loaded."""
        loads = self._loads
        self.send("Page.navigate", url=address)
        self.wait_for_load(loads)

    def wait_for_load(self, loads: int) -> None:
        """Waits until more pages are loaded than a number of pages."""
        deadline = time.monotonic() + 30
        while self._loads <= loads:
            self._receive(deadline)

    def click(self, selector: str, *, loads: bool = True) -> None:
        """Clicks at an element with the mouse; waits for the next page if `loads`."""
        before = self._loads
        quoted = json.dumps(selector)
        found = self.evaluate(
            f"""(() => {{
                const found = document.querySelector({quoted});
                if (found === null) return null;
                found.scrollIntoView({{block: "center"}});
                const box = found.getBoundingClientRect();
                return [box.x + box.width / 2, box.y + box.height / 2];
            }})()"""
        )
        assert found is not None, f"{selector} is not on the page {self.evaluate('location.href')}"
        for kind in ("mousePressed", "mouseReleased"):
            at = {"x": found[0], "y": found[1], "button": "left", "clickCount": 1}
            self.send("Input.dispatchMouseEvent", type=kind, **at)
        if loads:
            self.wait_for_load(before)

    def press(self, key: str, *, loads: bool = False) -> None:
        """Presses a key; waits for the next page if `loads`."""
        before = self._loads
        code, text = KEYS[key]
        name = " " if key == "Space" else key
        pressed = {"key": name, "code": key, "windowsVirtualKeyCode": code, "text": text}
        self.send("Input.dispatchKeyEvent", type="keyDown", **pressed)
        self.send("Input.dispatchKeyEvent", type="keyUp", key=name, code=key, windowsVirtualKeyCode=code)
        if loads:
            self.wait_for_load(before)

    def type(self, text: str) -> None:
        """Types text into the element with the focus."""
        self.send("Input.insertText", text=text)

    def choose_file(self, selector: str, *paths: Path) -> None:
        """Chooses files in a field for files."""
        document = self.send("DOM.getDocument")["root"]["nodeId"]
        node = self.send("DOM.querySelector", nodeId=document, selector=selector)["nodeId"]
        self.send("DOM.setFileInputFiles", nodeId=node, files=[str(path) for path in paths])

    def text(self) -> str:
        """Returns the visible text of the page."""
        return str(self.evaluate("document.body.innerText"))

    def wait_for(self, script: str, seconds: float = 15.0) -> Any:
        """Waits until a script has a true value, and returns the value."""
        deadline = time.monotonic() + seconds
        while not (found := self.evaluate(script)):
            assert time.monotonic() < deadline, f"{script} stayed {found!r}: {self.text()}"
            time.sleep(0.1)
        return found

    def picture(self, path: Path) -> None:
        """Stores a picture of the whole page."""
        found = self.send("Page.captureScreenshot", captureBeyondViewport=True, format="png")
        path.write_bytes(base64.b64decode(found["data"]))
