// Dragging over a chart chooses a stretch; a click on a bar follows its link, as it does without this script.
for (const figure of document.querySelectorAll("[data-brush]")) {
  const bins = [...figure.querySelectorAll("g[data-start]")];
  let first = null;
  const at = (event) => event.target.closest?.("g[data-start]") ?? null;
  const mark = (last) => {
    const [a, b] = [bins.indexOf(first), bins.indexOf(last)].sort((x, y) => x - y);
    bins.forEach((bin, i) => bin.classList.toggle("faint", i < a || i > b));
    return [bins[a], bins[b]];
  };
  figure.addEventListener("pointerdown", (event) => {
    first = event.button === 0 ? at(event) : null;
    if (first !== null) event.preventDefault();
  });
  figure.addEventListener("pointerover", (event) => {
    if (first !== null && event.buttons === 1 && at(event) !== null) mark(at(event));
  });
  figure.addEventListener("pointerup", (event) => {
    const last = at(event);
    if (first === null || last === null || last === first) return (first = null);
    const [a, b] = mark(last);
    first = null;
    const end = b === bins.at(-1) ? "" : b.dataset.end;
    location.href = figure.dataset.brush.replace("FROM", encodeURIComponent(a.dataset.start)).replace("TO", encodeURIComponent(end));
  });
  figure.addEventListener("dragstart", (event) => event.preventDefault());
}
