"""Small SVG charts: no scripts or dependencies, legible in light and dark; each has a title and a description."""
