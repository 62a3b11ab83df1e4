"""Small charts in SVG: no script, no dependency, legible in light and dark; each has a title and a description."""
