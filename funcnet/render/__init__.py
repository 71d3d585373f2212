"""What funcnet shows: neutral forms here, and their way to text. Renderers see forms alone."""
