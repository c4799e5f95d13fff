"""What the page shows, as HTML and Plotly figures made from plain values. No gradio.

Every text that is not ours is escaped where it is put into HTML.
"""
