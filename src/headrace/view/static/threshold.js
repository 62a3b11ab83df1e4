// The slider: moving it shows what would move at once, and keeps the address in step.
const form = document.querySelector("form.threshold");
const slider = form?.querySelector("input[type=range]");
const field = form?.querySelector("input[type=number]");

let asked = 0;
const show = async () => {
  const address = new URL(form.action);
  address.search = new URLSearchParams(new FormData(form));
  const turn = ++asked;
  const moved = document.querySelector(".moved");
  moved?.classList.add("waiting");
  const answer = await fetch(address, { headers: { accept: "text/html" } });
  if (!answer.ok || turn !== asked) return;
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").querySelector(".moved");
  if (turn !== asked || fresh === null) return;
  document.querySelector(".moved")?.replaceWith(fresh);
  history.replaceState(null, "", address);
};

if (slider) {
  const stops = JSON.parse(slider.dataset.stops);
  slider.hidden = stops.length < 2;
  let timer;
  const soon = () => {
    clearTimeout(timer);
    timer = setTimeout(show, 60);
  };
  slider.addEventListener("input", () => {
    field.value = stops[slider.value];
    soon();
  });
  field.addEventListener("input", () => {
    if (!field.checkValidity() || field.value === "") return;
    const value = Number(field.value);
    slider.value = stops.reduce((best, stop, i) => (Math.abs(stop - value) < Math.abs(stops[best] - value) ? i : best), 0);
    soon();
  });
}
