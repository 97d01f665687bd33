"""The web page: one Gradio app over the services of `sage_studio.studio.Studio`.

No rule of the domain is here: a handler parses the input, calls one method of a service and shows the outcome.
`page.build_page` puts the page together; `theme.look` is its style.
"""
