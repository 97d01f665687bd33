"""Theme: a quiet style on Gradio's base, light and dark, and the CSS of the studio's HTML.

All fonts are the system's, so the page asks nobody outside for anything. Every text colour stands at 4.5:1 or more on
its ground.
"""

from pathlib import Path

import gradio as gr

CSS = (Path(__file__).parent / "studio.css").read_text(encoding="utf-8")

SAGE = gr.themes.Color(
    name="sage",
    c50="#eef6f3",
    c100="#d6eae3",
    c200="#aed5c8",
    c300="#7fbaa8",
    c400="#4f9a86",
    c500="#2f7d6a",
    c600="#1f6656",
    c700="#195347",
    c800="#14433a",
    c900="#10362f",
    c950="#08211c",
)
INK = gr.themes.Color(
    name="ink",
    c50="#f7f8f9",
    c100="#eef0f2",
    c200="#dfe3e7",
    c300="#c6ccd3",
    c400="#939ca7",
    c500="#5c6672",
    c600="#4d5661",
    c700="#3a424c",
    c800="#262c34",
    c900="#191e25",
    c950="#11151a",
)
SANS = (
    "system-ui",
    "-apple-system",
    "Segoe UI",
    "Roboto",
    "PingFang SC",
    "Hiragino Sans GB",
    "Microsoft YaHei",
    "Noto Sans CJK SC",
    "Noto Sans",
    "sans-serif",
)
MONO = ("ui-monospace", "SFMono-Regular", "Cascadia Mono", "Menlo", "Consolas", "DejaVu Sans Mono", "monospace")


COLOURS = {
    "body_background_fill": ("*neutral_50", "*neutral_950"),
    "body_text_color": ("*neutral_900", "*neutral_100"),
    "body_text_color_subdued": ("*neutral_500", "*neutral_400"),
    "background_fill_primary": ("white", "*neutral_900"),
    "background_fill_secondary": ("*neutral_50", "*neutral_950"),
    "block_background_fill": ("white", "*neutral_900"),
    "block_border_color": ("*neutral_200", "*neutral_800"),
    "border_color_primary": ("*neutral_200", "*neutral_800"),
    "block_label_text_color": ("*neutral_600", "*neutral_300"),
    "block_label_background_fill": ("transparent", "transparent"),
    "block_title_text_color": ("*neutral_700", "*neutral_200"),
    "block_info_text_color": ("*neutral_500", "*neutral_400"),
    "input_background_fill": ("white", "*neutral_950"),
    "input_border_color": ("*neutral_300", "*neutral_700"),
    "input_placeholder_color": ("*neutral_500", "*neutral_400"),
    "button_primary_background_fill": ("*primary_600", "*primary_500"),
    "button_primary_background_fill_hover": ("*primary_700", "*primary_600"),
    "button_primary_text_color": ("white", "white"),
    "button_secondary_background_fill": ("white", "*neutral_800"),
    "button_secondary_background_fill_hover": ("*neutral_100", "*neutral_700"),
    "button_secondary_border_color": ("*neutral_300", "*neutral_700"),
    "button_secondary_text_color": ("*neutral_800", "*neutral_100"),
    "link_text_color": ("*primary_600", "*primary_300"),
    "slider_color": ("*primary_600", "*primary_400"),
    "checkbox_background_color_selected": ("*primary_600", "*primary_500"),
    "checkbox_label_background_fill": ("transparent", "transparent"),
}
"""In the light and in the dark."""
SHAPES = {
    "block_border_width": "1px",
    "block_label_border_width": "0px",
    "block_shadow": "none",
    "input_border_width": "1px",
    "button_border_width": "1px",
    "checkbox_label_border_width": "0px",
}
"""The same in both; Gradio has a dark one of each, with a default of its own."""
ONCE = {
    "block_title_text_weight": "500",
    "button_large_text_weight": "500",
    "button_large_text_size": "*text_md",
    "button_large_padding": "6px 14px",
    "button_large_radius": "*radius_md",
    "color_accent": "*primary_600",
    "checkbox_label_padding": "2px 14px 2px 0",
    "layout_gap": "12px",
    "chatbot_text_size": "*text_md",
}
"""What Gradio has no dark one of."""
PAIRS = COLOURS | {name: (value, value) for name, value in SHAPES.items()}
VALUES = {
    **ONCE,
    **{name: light for name, (light, _) in PAIRS.items()},
    **{f"{name}_dark": dark for name, (_, dark) in PAIRS.items()},
}
"""The theme's variables; those ending in ``_dark`` hold in the dark."""


class StudioTheme(gr.themes.Base):
    """Flat grounds, thin lines, one accent, small type."""

    def __init__(self) -> None:
        super().__init__(
            primary_hue=SAGE,
            secondary_hue=SAGE,
            neutral_hue=INK,
            spacing_size=gr.themes.sizes.spacing_sm,
            radius_size=gr.themes.sizes.radius_sm,
            text_size=gr.themes.sizes.text_sm,
            font=SANS,
            font_mono=MONO,
        )
        self.name = "calm"
        super().set(**VALUES)
