"""HTML and DOCX as Markdown: what is said, without navigation, scripts, pictures and forms.

Runs in the conversion child only. Knows nothing of sections.
"""

import io
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bs4 import BeautifulSoup, Tag

NO_TEXT = [
    *("script", "style", "template", "noscript", "nav", "footer", "aside", "form", "svg", "button", "iframe"),
    *("img", "picture", "video", "audio", "canvas", "object", "embed"),
]
LANGUAGE = re.compile(r"(?:language|lang|highlight-source)-([\w+#-]+)")


def html_to_markdown(text: str) -> str:
    """The main part of a page; its title becomes the first heading where it has none of the first level."""
    from bs4 import BeautifulSoup
    from markdownify import MarkdownConverter

    page = BeautifulSoup(text, "html.parser")
    title = " ".join(page.title.get_text().split()) if page.title is not None else ""
    for tag in page(["title", *NO_TEXT]):
        tag.decompose()
    main = _main_part(page)
    converter = MarkdownConverter(
        heading_style="ATX", bullets="-", code_language_callback=_language, escape_underscores=False, wrap=False
    )
    markdown = str(converter.convert_soup(main))
    return markdown if main.find("h1") is not None or not title else f"# {title}\n\n{markdown}"


def docx_to_markdown(content: bytes) -> str:
    """A Word document: headings by their styles, lists and tables; pictures are left out."""
    import mammoth

    done = mammoth.convert_to_html(io.BytesIO(content), convert_image=lambda _: [])
    return html_to_markdown(f"<body>{done.value}</body>")


def _main_part(page: "BeautifulSoup") -> "BeautifulSoup | Tag":
    return page.find("main") or page.find("article") or page.body or page


def _language(tag: Any) -> str:
    inner = tag.find("code")
    classes = [*(tag.get("class") or []), *((inner.get("class") or []) if inner is not None else [])]
    found = LANGUAGE.search(" ".join(classes))
    return found[1] if found else ""
