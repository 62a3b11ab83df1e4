// What all pages share: keys that follow links. A link with data-key="j" is followed when J is pressed.
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, textarea, select, [contenteditable]")) return;
  const link = document.querySelector(`[data-key~="${CSS.escape(event.key)}"]`);
  if (link === null) return;
  event.preventDefault();
  link.click();
});

// The page as it is now.
const asked = async () => {
  const answer = await fetch(location.href, { headers: { accept: "text/html" } });
  if (!answer.ok) return null;
  return new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("main");
};

// A keyboard stays where it is while a part of the page is replaced.
const replacing = (change) => {
  const all = () => [...document.querySelectorAll("a, button, input, select, textarea, summary, [tabindex]")];
  const at = all().indexOf(document.activeElement);
  change();
  if (at >= 0 && document.activeElement === document.body) all()[at]?.focus({ preventScroll: true });
};

// It takes the place of what is shown, but for the parts that a stream keeps up to date.
const show = (fresh) =>
  replacing(() => {
    const kept = [...document.querySelectorAll("[data-live]")];
    fresh.querySelectorAll("[data-live]").forEach((one, i) => kept[i] && one.replaceWith(kept[i]));
    document.querySelector("main").replaceWith(fresh);
  });

// Figures that are still being counted: the page is asked for again, ever less often.
const FIRST = 500;
let timer;
const wait = (time) => {
  clearTimeout(timer);
  timer = setTimeout(async () => {
    if (document.querySelector(".pending") === null) return;
    const fresh = await asked();
    if (fresh === null) return;
    if (fresh.querySelector(".pending") === null) show(fresh);
    else wait(Math.min(time * 1.5, 10000));
  }, time);
};
wait(FIRST);

// A part of the page that the server sends again while a run is underway: data-live is the stream's address. When
// another artifact is there, all of the page follows. While no process works on the run, it is asked from time to time
// whether one has begun.
const IDLE = 4000;
for (const part of document.querySelectorAll("[data-live]")) {
  let html = part.innerHTML;
  let done;
  const listen = () => {
    const stream = new EventSource(part.dataset.live);
    let ran = false;
    stream.onmessage = async (event) => {
      const told = JSON.parse(event.data);
      const fresh = document.createElement("div");
      fresh.innerHTML = told.html;
      if (fresh.innerHTML !== html) {
        html = fresh.innerHTML;
        const open = [...part.querySelectorAll("details")].map((one) => one.open);
        fresh.querySelectorAll("details").forEach((one, i) => (one.open = open[i] ?? false));
        replacing(() => part.replaceChildren(...fresh.childNodes));
      }
      const more = (done !== undefined && told.done !== done) || (ran && !told.running);
      ran = told.running;
      done = told.done;
      if (!ran) {
        stream.close();
        setTimeout(listen, IDLE);
      }
      const page = more ? await asked() : null;
      if (page !== null) {
        show(page);
        wait(FIRST);
      }
    };
  };
  listen();
}
