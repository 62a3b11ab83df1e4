// The slider: moving it shows what would move at once, and keeps the address in step. Events are heard by the document,
// since the page may be replaced while documents are counted.
let asked = 0;
let timer;

const show = async (form) => {
  const address = new URL(form.action);
  address.search = new URLSearchParams(new FormData(form));
  const turn = ++asked;
  const moved = document.querySelector(".moved");
  moved?.classList.add("waiting");
  try {
    const answer = await fetch(address, { headers: { accept: "text/html" } });
    if (!answer.ok || turn !== asked) return;
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector(".moved");
    if (turn !== asked || fresh === null) return;
    document.querySelector(".moved")?.replaceWith(fresh);
    history.replaceState(null, "", address);
  } finally {
    if (turn === asked) moved?.classList.remove("waiting");
  }
};

document.addEventListener("input", (event) => {
  const form = event.target.closest("form.threshold");
  if (form === null) return;
  const slider = form.querySelector("input[type=range]");
  const field = form.querySelector("input[type=number]");
  if (slider === null) return;
  const stops = JSON.parse(slider.dataset.stops);
  if (event.target === slider) {
    field.value = stops[slider.value];
  } else {
    if (!field.checkValidity() || field.value === "") return;
    const far = (stop) => Math.abs(stop - Number(field.value));
    slider.value = stops.reduce((best, stop, i) => (far(stop) < far(stops[best]) ? i : best), 0);
  }
  clearTimeout(timer);
  timer = setTimeout(show, 60, form);
});
