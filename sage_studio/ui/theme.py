"""How the studio looks: a quiet theme on Gradio's base, light and dark, and the little CSS that its own HTML needs.

Knows colours, spacing and fonts, and nothing of what is shown in them. All fonts are the system's, so the page asks
nobody outside for anything. Every text colour stands at 4.5:1 or more on its ground.
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
    c500="#66707c",
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


VALUES = {
    "body_background_fill": "*neutral_50",
    "body_background_fill_dark": "*neutral_950",
    "body_text_color": "*neutral_900",
    "body_text_color_dark": "*neutral_100",
    "body_text_color_subdued": "*neutral_500",
    "body_text_color_subdued_dark": "*neutral_400",
    "background_fill_primary_dark": "*neutral_900",
    "background_fill_secondary_dark": "*neutral_950",
    "block_background_fill": "white",
    "block_background_fill_dark": "*neutral_900",
    "block_border_width": "1px",
    "block_border_color": "*neutral_200",
    "block_border_color_dark": "*neutral_800",
    "border_color_primary": "*neutral_200",
    "border_color_primary_dark": "*neutral_800",
    "block_label_text_color": "*neutral_600",
    "block_label_text_color_dark": "*neutral_300",
    "block_label_background_fill": "transparent",
    "block_label_background_fill_dark": "transparent",
    "block_label_border_width": "0px",
    "block_title_text_color": "*neutral_700",
    "block_title_text_color_dark": "*neutral_200",
    "block_title_text_weight": "500",
    "block_info_text_color": "*neutral_500",
    "block_info_text_color_dark": "*neutral_400",
    "block_shadow": "none",
    "input_background_fill": "white",
    "input_background_fill_dark": "*neutral_950",
    "input_border_color": "*neutral_300",
    "input_border_color_dark": "*neutral_700",
    "input_border_width": "1px",
    "input_placeholder_color": "*neutral_500",
    "input_placeholder_color_dark": "*neutral_400",
    "button_primary_background_fill": "*primary_600",
    "button_primary_background_fill_hover": "*primary_700",
    "button_primary_background_fill_dark": "*primary_500",
    "button_primary_background_fill_hover_dark": "*primary_600",
    "button_primary_text_color": "white",
    "button_primary_text_color_dark": "white",
    "button_secondary_background_fill": "white",
    "button_secondary_background_fill_hover": "*neutral_100",
    "button_secondary_background_fill_dark": "*neutral_800",
    "button_secondary_background_fill_hover_dark": "*neutral_700",
    "button_secondary_border_color": "*neutral_300",
    "button_secondary_border_color_dark": "*neutral_700",
    "button_secondary_text_color": "*neutral_800",
    "button_secondary_text_color_dark": "*neutral_100",
    "button_border_width": "1px",
    "button_large_text_weight": "500",
    "button_large_text_size": "*text_md",
    "button_large_padding": "6px 14px",
    "button_large_radius": "*radius_md",
    "link_text_color": "*primary_600",
    "link_text_color_dark": "*primary_300",
    "color_accent": "*primary_600",
    "slider_color": "*primary_600",
    "slider_color_dark": "*primary_400",
    "checkbox_background_color_selected": "*primary_600",
    "checkbox_background_color_selected_dark": "*primary_500",
    "checkbox_label_background_fill": "transparent",
    "checkbox_label_background_fill_dark": "transparent",
    "checkbox_label_border_width": "0px",
    "checkbox_label_padding": "2px 14px 2px 0",
    "layout_gap": "12px",
    "chatbot_text_size": "*text_md",
}
"""The theme's variables; those ending in ``_dark`` hold in the dark."""


class Calm(gr.themes.Base):
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
