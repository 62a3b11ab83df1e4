// What all pages share: keys that follow links. A link with data-key="j" is followed when J is pressed.
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, textarea, select, [contenteditable]")) return;
  const link = document.querySelector(`[data-key~="${CSS.escape(event.key)}"]`);
  if (link === null) return;
  event.preventDefault();
  link.click();
});

// A part of the page that the server sends again while a run is underway: data-live is the stream's address.
for (const part of document.querySelectorAll("[data-live]")) {
  const stream = new EventSource(part.dataset.live);
  let ran = false;
  stream.onmessage = (event) => {
    const told = JSON.parse(event.data);
    const open = [...part.querySelectorAll("details")].map((one) => one.open);
    part.innerHTML = told.html;
    part.querySelectorAll("details").forEach((one, i) => (one.open = open[i] ?? false));
    if (!told.running) {
      stream.close();
      if (ran) location.reload();
    }
    ran = told.running;
  };
}

// Figures that are still being counted: the page asks again, ever less often.
let wait = 500;
const again = async () => {
  if (document.querySelector(".pending") === null) return;
  const answer = await fetch(location.href, { headers: { accept: "text/html" } });
  if (!answer.ok) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector("main");
  if (fresh.querySelector(".pending") === null) document.querySelector("main").replaceWith(fresh);
  else setTimeout(again, (wait = Math.min(wait * 1.5, 10000)));
};
setTimeout(again, wait);
