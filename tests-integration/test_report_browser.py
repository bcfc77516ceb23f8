"""The HTML report as a person uses it: in Chromium, with its content policy in force."""

import base64
import hashlib
import html
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from infra_core.azure.run_report import render_html

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
# Plays the user and leaves what the page showed in an attribute.
DRIVER = """
window.addEventListener("load", async () => {
  const names = () => [...document.querySelectorAll("#table tbody td:nth-child(2)")]
    .map((cell) => cell.firstChild.textContent);
  const click = (column) => document.querySelector(`[data-column='${column}']`).click();
  const choose = (id, value, event) => {
    document.getElementById(id).value = value;
    document.getElementById(id).dispatchEvent(new Event(event));
  };
  const out = { start: names() };
  click("size");
  out.by_size = names();
  click("size");
  out.by_size_down = names();
  click("time");
  out.by_time = names();
  click("host");
  out.by_host = names();
  choose("filter", "SHOT png", "input");
  out.filtered = names();
  out.shown = document.getElementById("shown").textContent;
  const image = document.querySelector("#table img");
  await image.decode();
  out.image = image.naturalWidth;
  choose("filter", "", "input");
  choose("type", "failed", "change");
  out.failed = [...document.querySelectorAll("#table .error")].map((e) => e.textContent);
  out.chart = document.querySelector(".bar [title]").getBoundingClientRect().width > 100;
  out.alerted = window.alerted === true;
  document.body.dataset.result = JSON.stringify(out);
});
"""


@pytest.mark.skipif(not BROWSER, reason="no Chromium here; .ci/run installs it on Debian as root")
def test_table_sorts_and_filters_in_a_browser(tmp_path: Path) -> None:
    """Natural order, by size, time and host; thumbnails are drawn; a hostile name runs nothing."""
    Image.new("RGB", (200, 150), "red").save(tmp_path / "shot one.png")
    hostile = "<img src=x onerror='window.alerted=true'>.txt"
    files = [
        {"path": path, "type": kind, "content_type": media, "size_bytes": size, "url": None,
         "source_url": f"https://{host}.example/{size}", "modified_at": f"2026-11-{day}T00:00:00"}
        for path, kind, media, size, host, day in (
            ("b10.csv", "data", "text/csv", 30, "w10", "10"),
            ("b9.csv", "data", "text/csv", 10, "w9", "12"),
            ("shot one.png", "image", "image/png", 90, "w1", "09"),
            (hostile, "other", "text/plain", 20, "w2", "11"),
        )
    ]  # fmt: skip
    failure = {"url": "https://w3.example/gone", "error": "404", "updated_at": "2026-11-13"}
    page = tmp_path / "report.html"
    text = render_html({"files": files}, folder=tmp_path, failures=[failure])
    digest = base64.b64encode(hashlib.sha256(DRIVER.encode()).digest()).decode()
    text = text.replace("script-src ", f"script-src &#x27;sha256-{digest}&#x27; ", 1)
    page.write_text(text.replace("</body>", f"<script>{DRIVER}</script></body>"), encoding="utf-8")
    done = subprocess.run(
        [
            BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
            f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=5000",
            "--window-size=1100,900", "--dump-dom", page.as_uri(),
        ],
        capture_output=True, text=True, timeout=55, env={**os.environ, "HOME": str(tmp_path)},
    )  # fmt: skip
    result = re.search(r'data-result="([^"]*)"', done.stdout)
    assert result, done.stdout[-2000:] + done.stderr[-2000:]
    gone = "https://w3.example/gone"
    ten, nine, shot = "b10.csv", "b9.csv", "shot one.png"
    by_size = [gone, nine, hostile, ten, shot]
    assert json.loads(html.unescape(result[1])) == {
        "start": [hostile, nine, ten, gone, shot],
        "by_size": by_size,
        "by_size_down": by_size[::-1],
        "by_time": [shot, ten, hostile, nine, gone],
        "by_host": [shot, hostile, gone, nine, ten],
        "filtered": [shot],
        "shown": "1 of 5",
        "image": 96,
        "failed": ["404"],
        "chart": True,
        "alerted": False,
    }
