"""A browser's page, and all that goes wrong on it."""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

_FOLDER = "PARALLAX_SCREENSHOTS"


@dataclass
class WatchedPage:
    """A page that loads from one origin and nowhere else."""

    page: "Page"
    origin: str
    errors: list[str] = field(default_factory=list)
    """What its scripts threw, and what the console shows as an error."""
    blocked: list[str] = field(default_factory=list)
    """Addresses elsewhere that it asked for."""

    @classmethod
    @contextmanager
    def opener(cls, browser: "Browser") -> Iterator[Callable[..., "WatchedPage"]]:
        """A function that opens pages; all are closed at the end."""
        contexts = []

        def open_one(address: str, *, width: int = 1280, height: int = 900) -> WatchedPage:
            context = browser.new_context(viewport={"width": width, "height": height})
            contexts.append(context)
            origin = re.match(r"file:///|https?://[^/]+/", address)
            assert origin is not None, address
            watched = cls(context.new_page(), origin.group())
            context.route("**/*", watched._let_through)
            watched.page.on("console", watched._heard)
            watched.page.on("pageerror", lambda error: watched.errors.append(f"thrown: {error}"))
            watched.page.goto(address)
            return watched

        try:
            yield open_one
        finally:
            for context in contexts:
                context.close()

    def _let_through(self, route: "Route") -> None:
        address = route.request.url
        if address.startswith((self.origin, "data:", "blob:")):
            route.continue_()
        else:
            self.blocked.append(address)
            route.abort()

    def _heard(self, message: Any) -> None:
        if message.type == "error":
            self.errors.append(f"{message.text} [{message.location['url']}]")

    def unexplained(self, known: Mapping[str, str]) -> list[str]:
        """Errors that no pattern of `known` (pattern -> reason) matches as a whole."""
        return [error for error in self.errors if not any(re.fullmatch(pattern, error) for pattern in known)]

    def keep_screenshot(self, name: str, **more: Any) -> None:
        """Writes NAME.png, with few colours, where PARALLAX_SCREENSHOTS names a folder."""
        if folder := os.environ.get(_FOLDER):
            from PIL import Image

            Path(folder).mkdir(parents=True, exist_ok=True)
            picture = Image.open(BytesIO(self.page.screenshot(**more))).convert("RGB")
            picture.quantize(256, dither=Image.Dither.NONE).save(Path(folder) / f"{name}.png", optimize=True)
