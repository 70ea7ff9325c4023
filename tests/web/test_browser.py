"""The page in Chromium: what somebody reads off it while a partition moves, and a node dies and comes back.

``SHARDMAN_SCREENSHOTS=docs/images`` keeps what it looked like.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from selenium import webdriver
from selenium.common.exceptions import (
    NoSuchElementException,
    StaleElementReferenceException,
    WebDriverException,
)
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from shardman.nodes.invariants import check
from shardman.testing import eventually
from shardman.testing.cluster import Cluster
from shardman.testing.load import Bank, Load
from web.viewing import PASSWORD

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
SCREENSHOTS = os.environ.get("SHARDMAN_SCREENSHOTS")

pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None, reason="Debian's chromium and chromium-driver are missing"
)


class Reader:
    """Somebody who reads the page."""

    def __init__(self, driver: webdriver.Chrome, base: str) -> None:
        self.driver = driver
        self.base = base

    def go(self, path: str) -> None:
        self.driver.get(self.base + path)

    def text(self) -> str:
        return self.driver.find_element(By.TAG_NAME, "main").text

    def sees(self, what: str, seconds: float = 60) -> str:
        return eventually(
            f"the page says {what!r}",
            self.text,
            until=lambda text: what in text,
            seconds=seconds,
            # Between two pages.
            tolerate=(NoSuchElementException, StaleElementReferenceException),
        )

    def fill(self, **fields: str) -> None:
        for name, value in fields.items():
            field = self.driver.find_element(By.NAME, name)
            field.clear()
            field.send_keys(value)

    def press(self, words: str) -> None:
        self.driver.find_element(By.XPATH, f"//main//button[.='{words}']").click()

    def keep(self, name: str) -> None:
        if SCREENSHOTS:
            self.driver.save_screenshot(str(Path(SCREENSHOTS) / f"{name}.png"))

    def complaints(self) -> list[str]:
        """What the browser did not like: scripts, styles and requests that the policy forbids."""
        return [
            e["message"] for e in self.driver.get_log("browser") if "favicon" not in e["message"]
        ]


@pytest.fixture
def reader(page: str) -> Iterator[Reader]:
    options = webdriver.ChromeOptions()
    for each in ("headless=new", "no-sandbox", "disable-gpu", "disable-dev-shm-usage"):
        options.add_argument(f"--{each}")
    options.add_argument("--window-size=1150,1000")
    options.binary_location = CHROMIUM or ""
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    try:
        reader = Reader(driver, page)
        reader.go("/login")
        reader.fill(role="actor", password=PASSWORD)
        driver.find_element(By.NAME, "password").send_keys(Keys.ENTER)
        reader.sees("Nodes")
        yield reader
    finally:
        driver.quit()


def _where(cluster: Cluster, part: str) -> dict[int, bool]:
    """The nodes of a partition's copies, and whether each has the primary."""
    rows = cluster.sql(
        0, "select owner, prv is null from shardman.partitions where part_name = %s", (part,)
    )
    return dict(rows)


@pytest.mark.slow
def test_a_day_in_the_life(cluster: Cluster, reader: Reader) -> None:
    cluster.sql(1, "alter table acc add column touched bigint not null default 0")
    bank = Bank("acc", 500)
    with Load(
        list(cluster.worker_dsns.values())[:2],
        [bank.increment],
        workers=2,
        reconnect=True,
        pause=0.02,
    ):
        reader.go("/")
        reader.sees("Nothing that status can see is wrong")
        reader.sees("The busiest partitions")
        reader.keep("page-cluster")

        # A partition is moved from the page, and the map follows.
        dest = next(n for n in cluster.worker_dsns if n not in _where(cluster, "acc_4"))
        reader.go("/do/move_part?part_name=acc_4")
        reader.fill(dest=str(dest))
        reader.press("Show the plan")
        reader.sees("What move_part would do")
        reader.keep("page-plan")
        reader.press("Do it")
        reader.sees("success")
        reader.keep("page-command")
        reader.go("/partitions/acc_4")
        reader.sees(f"node {dest}: primary")

        # A node dies; others take over; the page says all of it, by itself.
        reader.go("/")
        reader.sees("Nothing that status can see is wrong")
        cluster.kill_node(3)
        reader.sees("What is wrong, and what to do")
        reader.keep("page-node-down")
        reader.sees("Failovers", seconds=90)
        reader.keep("page-failover")
        reader.go("/nodes/3")
        reader.sees("down")
        # One of three is away: the shardlord would not believe that a second is.
        reader.go("/nodes/2")
        reader.sees("Is it safe to stop it now?\nNo.")
        reader.keep("page-node")
        reader.go("/")
        cluster.start_node(3)
        reader.sees("Nothing that status can see is wrong", seconds=150)

        # For a phone, and in the dark.
        reader.driver.set_window_size(400, 900)
        reader.driver.execute_cdp_cmd(
            "Emulation.setEmulatedMedia",
            {"features": [{"name": "prefers-color-scheme", "value": "dark"}]},
        )
        width = reader.driver.execute_script("return document.documentElement.scrollWidth")
        assert width <= reader.driver.execute_script("return window.innerWidth")
        reader.keep("page-phone")
    assert reader.complaints() == []
    # What the page says is so: nothing is lost, and all copies are equal.
    assert check(cluster.lord_dsn, data=True) == []


def test_what_a_move_waits_for(cluster: Cluster, reader: Reader) -> None:
    """It stands on the first page, on the partition's, and on the command's."""
    source = next(n for n, primary in _where(cluster, "acc_2").items() if primary)
    dest = next(n for n in cluster.worker_dsns if n not in _where(cluster, "acc_2"))
    with psycopg.connect(cluster.dsn(source)) as somebody:
        somebody.execute("update acc_2 set n = n + 1")
        pid = somebody.info.backend_pid
        number = cluster.value(0, "select shardman.move_part('acc_2', %s)", (dest,))
        reader.go("/")
        reader.sees(f"(move_part part_name=acc_2, dest={dest}) waits for pid {pid} (postgres")
        reader.keep("page-waits")
        for path in ("/partitions/acc_2", f"/commands/{number}"):
            reader.go(path)
            assert f"on node {source}" in reader.sees(f"pid {pid} (postgres")
        somebody.rollback()
    reader.sees("success")


def test_by_the_keyboard_alone(reader: Reader) -> None:
    """The first stop leads past the navigation; the focus stays where it is while the page changes."""
    reader.go("/")
    reader.sees("Nodes")
    body = reader.driver.find_element(By.TAG_NAME, "body")
    body.send_keys(Keys.TAB)
    assert reader.driver.switch_to.active_element.text == "To the content"
    link = reader.driver.find_element(By.CSS_SELECTOR, "#node-2 a")
    reader.driver.execute_script("arguments[0].focus()", link)
    seen = reader.driver.execute_script(
        "window.polled = 0; document.addEventListener('htmx:afterRequest', () => window.polled++);"
        "return document.activeElement.getAttribute('href')"
    )
    eventually(
        "three polls",
        lambda: reader.driver.execute_script("return window.polled"),
        until=lambda polled: polled >= 3,
        seconds=60,
        tolerate=WebDriverException,
    )
    active = reader.driver.execute_script("return document.activeElement.getAttribute('href')")
    assert active == seen == "/nodes/2"


def test_the_page_is_small(reader: Reader) -> None:
    reader.go("/")
    reader.sees("Nodes")
    loaded = reader.driver.execute_script(
        "return [...performance.getEntriesByType('resource'),"
        " ...performance.getEntriesByType('navigation')].map(e => [e.name, e.decodedBodySize])"
    )
    assert sum(size for _, size in loaded) < 200_000
    assert all(name.startswith(reader.base) for name, _ in loaded)
