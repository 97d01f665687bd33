"""The browser's door: one Gradio page over the verbs of `sage_studio.studio.Studio`.

Knows widgets, words and looks. Knows no rule of the domain: a handler parses what a person gave, says one verb of the
studio and shows the outcome. `page.build_page` puts it together; `theme.look` is how it looks.
"""
