"""Serves the built page on loopback and lets Chromium take one picture of each dashboard."""

import json
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
BUILT = HERE / "dist"
CELL_PIXELS = 38
"""Height of a row of Grafana's grid with its gap, as in src/main.jsx."""
HEAD_PIXELS = 56
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
DEADLINE_SECONDS = 180
VIRTUAL_MILLISECONDS = 15_000


class PictureFailed(Exception):
    """The page could not be built or drawn; the message says why."""


class _Handler(SimpleHTTPRequestHandler):
    def __init__(self, *args: Any, inputs: Mapping[str, bytes], drawn: list[Any], **rest: Any):
        self._inputs, self._drawn = inputs, drawn
        super().__init__(*args, **rest)

    def do_GET(self) -> None:
        name = self.path.removeprefix("/input/").removesuffix(".json")
        if name not in self._inputs:
            super().do_GET()
            return
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(self._inputs[name])

    def do_POST(self) -> None:
        """Panels that the page has drawn, and its errors."""
        length = int(self.headers.get("Content-Length", 0))
        self._drawn.append(json.loads(self.rfile.read(length)))
        self.send_response(HTTPStatus.NO_CONTENT)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Says nothing."""


def build() -> None:
    """Makes the page, with npm, unless the one that is there is newer than its sources.

    Raises:
        PictureFailed: npm is missing or failed.
    """
    if not _is_stale():
        return
    npm = shutil.which("npm")
    if npm is None:
        raise PictureFailed("npm is missing: install Node.js 20 or newer")
    steps = [["run", "build"]]
    if not (HERE / "node_modules").exists():
        steps.insert(0, ["ci", "--ignore-scripts"])
    for step in steps:
        done = subprocess.run([npm, *step], cwd=HERE, check=False, capture_output=True, text=True)
        if done.returncode:
            raise PictureFailed(f"npm {' '.join(step)} failed:\n{done.stdout}{done.stderr}")


def _is_stale() -> bool:
    page = BUILT / "index.html"
    names = ("index.html", "vite.config.js", "package-lock.json")
    sources = [*(HERE / "src").iterdir(), *(HERE / name for name in names)]
    newest = max(path.stat().st_mtime for path in sources)
    return not page.exists() or page.stat().st_mtime < newest


def take(inputs: Mapping[str, Any], out: Path, width: int, scale: float) -> list[Path]:
    """One PNG for each input, as `<name>.png`.

    Args:
        inputs: What the page needs, by the dashboard's name.
        out: Folder for the pictures.
        width: Of the page, CSS pixels.
        scale: Pixels of the picture for each of them.

    Raises:
        PictureFailed: A panel was not drawn, or there is no browser.
    """
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise PictureFailed(f"no browser: install one of {', '.join(BROWSERS)}")
    drawn: list[Any] = []
    encoded = {name: json.dumps(one).encode() for name, one in inputs.items()}
    handler = partial(_Handler, directory=str(BUILT), inputs=encoded, drawn=drawn)
    out.mkdir(parents=True, exist_ok=True)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            address = f"http://127.0.0.1:{server.server_port}/index.html"
            for name, one in inputs.items():
                size = (width, height_of(one["dashboard"]))
                _screenshot(
                    browser, f"{address}?dashboard={name}", out / f"{name}.png", size, scale
                )
                _check(one["dashboard"], drawn)
        finally:
            server.shutdown()
    return [out / f"{name}.png" for name in inputs]


def height_of(dashboard: Mapping[str, Any]) -> int:
    """Of the page, CSS pixels; panels in collapsed rows are not drawn."""
    places = [
        panel["gridPos"] for panel in dashboard["panels"] if not panel.get("collapsed", False)
    ]
    rows: int = max(place["y"] + place["h"] for place in places)
    return HEAD_PIXELS + rows * CELL_PIXELS


def _screenshot(
    browser: str, address: str, picture: Path, size: tuple[int, int], scale: float
) -> None:
    with tempfile.TemporaryDirectory() as profile:
        command = [
            browser,
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            "--lang=en-US",
            f"--user-data-dir={profile}",
            f"--force-device-scale-factor={scale:g}",
            f"--window-size={size[0]},{size[1]}",
            f"--virtual-time-budget={VIRTUAL_MILLISECONDS}",
            f"--screenshot={picture.resolve()}",
            address,
        ]
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=DEADLINE_SECONDS
        )
    if done.returncode or not picture.exists():
        raise PictureFailed(f"{browser} took no picture of {address}:\n{done.stderr[-2000:]}")


def _check(dashboard: Mapping[str, Any], drawn: list[Any]) -> None:
    wanted = sum(panel["type"] != "row" for panel in dashboard["panels"])
    if not drawn:
        raise PictureFailed(f"{dashboard['title']}: the page did not say that it was drawn")
    last = drawn[-1]
    if last["faults"] or last["panels"] != wanted:
        raise PictureFailed(
            f"{dashboard['title']}: {last['panels']} of {wanted} panels were drawn; "
            f"{'; '.join(last['faults'])}"
        )
