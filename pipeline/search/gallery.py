"""Hits -> a gallery: one HTML page that needs no network and runs no script. It opens no image."""

import base64
import hashlib
from collections.abc import Sequence
from html import escape
from typing import Any

from pipeline.search.hits import Hits
from pipeline.search.thumbnails import SIDE, Thumbnail
from pipeline.storage.uris import printable, redacted

STYLE = """
:root { color-scheme: light dark; --page: #fff; --card: #f4f4f2; --text: #1c1c1a; --quiet: #5f5f5a; }
@media (prefers-color-scheme: dark) {
  :root { --page: #171716; --card: #242422; --text: #ededea; --quiet: #a9a9a2; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 90rem; padding: 1rem; background: var(--page); color: var(--text);
  font: 1rem/1.4 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.3rem; margin: 0 0 .3rem; }
p { margin: .2rem 0; }
header { display: flex; flex-wrap: wrap; align-items: start; gap: 1rem; margin-bottom: 1rem; }
header div { flex: 1 1 18rem; }
header .picture { flex: 0 0 9rem; }
ol { display: grid; grid-template-columns: repeat(auto-fill, minmax(10rem, 1fr)); gap: .8rem; margin: 0;
  padding: 0; list-style: none; }
li { background: var(--card); border-radius: .5rem; overflow: hidden; }
.picture { aspect-ratio: 1; width: 100%; height: auto; display: block; }
.missing { display: flex; align-items: center; padding: .8rem; border: 1px dashed var(--quiet);
  color: var(--quiet); font-size: .85rem; }
.facts { padding: .5rem .7rem .7rem; }
.quiet, .note { color: var(--quiet); font-size: .85rem; }
"""
_SHA256 = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()
POLICY = f"default-src 'none'; img-src data:; style-src 'sha256-{_SHA256}'; base-uri 'none'; form-action 'none'"
"""Nothing may be loaded or run, whatever a text of a manifest contains."""


def page(hits: Hits, thumbnails: Sequence[Thumbnail], query: Thumbnail | None, *, output: str, model: str) -> str:
    """Return the page of the hits, each with its thumbnail, below the query. A query by text or vector has none.

    Every text is escaped. URIs are shown without passwords and signatures.
    """
    title = _text(f"Nearest to {hits.query.words}")
    shown = zip(range(1, len(hits) + 1), hits.to_dicts(), thumbnails, strict=True)
    cards = "".join(_card(*one) for one in shown)
    picture = _picture(query, "The query") if query else ""
    count = f"{len(hits)} hit{'' if len(hits) == 1 else 's'}"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>{title}</title>
<style>{STYLE}</style>
</head>
<body>
<header>
{picture}
<div>
<h1>{title}</h1>
<p>{count} in {_text(redacted(output))}, embedded by {_text(model)}</p>
<p class="quiet">{_text(hits.searched)}</p>
</div>
</header>
<main>
<ol>
{cards}</ol>
</main>
</body>
</html>
"""


def _card(place: int, hit: dict[str, Any], thumbnail: Thumbnail) -> str:
    ids = list(dict.fromkeys(redacted(hit[name]) for name in ("image_id", "uri")))  # an id may be a signed URL
    label = hit["label"] or ids[0]
    score = "" if hit["score"] is None else f' <span class="quiet">{hit["score"]:.2f}</span>'
    return f"""<li>
{_picture(thumbnail, f"Hit {place}: {label}")}
<div class="facts">
<p>{place}. <strong>{_text(label)}</strong>{score}</p>
<p class="quiet">distance {hit["distance"]:.4f} · {_text(hit["dataset"])}</p>
<p class="quiet">{"<br>".join(map(_text, ids))}</p>
{f'<p class="note">{_text(thumbnail.note)}</p>' if thumbnail.note and thumbnail.image else ""}
</div>
</li>
"""


def _picture(thumbnail: Thumbnail, alt: str) -> str:
    if thumbnail.image is None:
        return f'<div class="picture missing">{_text(thumbnail.note)}</div>'
    size = f'width="{SIDE}" height="{SIDE}"'
    return f'<img class="picture" {size} src="{_text(thumbnail.image)}" alt="{_text(alt)}" loading="lazy">'


def _text(text: str) -> str:
    return escape(printable(text))
