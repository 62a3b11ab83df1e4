// Dragging over a chart chooses a stretch; a click on a bar follows its link, as it does without this script. Events are
// heard by the document, since the page may be replaced while documents are counted.
let first = null;
const at = (event) => event.target.closest?.("[data-brush] g[data-start]") ?? null;
const chart = (bin) => bin.closest("[data-brush]");

function mark(last) {
  const bins = [...chart(first).querySelectorAll("g[data-start]")];
  const [a, b] = [bins.indexOf(first), bins.indexOf(last)].sort((x, y) => x - y);
  bins.forEach((bin, i) => bin.classList.toggle("faint", i < a || i > b));
  return [bins[a], bins[b], b === bins.length - 1];
}

function within(event) {
  const bin = at(event);
  return first !== null && bin !== null && chart(bin) === chart(first) ? bin : null;
}

document.addEventListener("pointerdown", (event) => {
  first = event.button === 0 ? at(event) : null;
  if (first !== null) event.preventDefault();
});
document.addEventListener("pointerover", (event) => {
  const bin = within(event);
  if (bin !== null && event.buttons === 1) mark(bin);
});
document.addEventListener("pointerup", (event) => {
  const last = within(event);
  if (last !== null && last !== first) {
    const [a, b, end] = mark(last);
    const to = chart(first).dataset.brush.replace("FROM", encodeURIComponent(a.dataset.start));
    location.href = to.replace("TO", encodeURIComponent(end ? "" : b.dataset.end));
  }
  first = null;
});
document.addEventListener("dragstart", (event) => {
  if (event.target.closest?.("[data-brush]")) event.preventDefault();
});
