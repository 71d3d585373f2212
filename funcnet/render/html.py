"""Pages with everything in them: styles, script and data in one file that asks for nothing else."""

import base64
import gzip
import json
from html import escape
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent / "page.html"


def page(title: str, document: dict[str, Any]) -> str:
    """The page that shows a trace's document."""
    plain = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
    if len(plain) > 200_000:
        packed = gzip.compress(plain.encode(), mtime=0)
        data, kind = base64.b64encode(packed).decode(), "application/gzip"
    else:
        data, kind = plain.replace("</", "<\\/").replace("<!", "<\\u0021"), "application/json"
    template = PAGE.read_text(encoding="utf-8")
    return template.replace("{{title}}", escape(title)).replace(
        '<script id="data" type="application/json">{{data}}</script>',
        f'<script id="data" type="{kind}">{data}</script>',
    )


def frame(html: str, height: int = 640) -> str:
    """A page inside another one, as a notebook shows it."""
    quoted = escape(html, quote=True)
    return f'<iframe srcdoc="{quoted}" style="width:100%;height:{height}px;border:0"></iframe>'
