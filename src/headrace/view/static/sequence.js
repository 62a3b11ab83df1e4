// What is known of the token under the pointer, or the one that the arrow keys have reached, in a line at the bottom.
const line = document.getElementById("token");
let here = document.querySelector(".t.here");

function show(token) {
  here?.classList.remove("here");
  here = token;
  here.classList.add("here");
  line.textContent = here.dataset.told;
}

function pin() {
  const place = /^token (\d+)/.exec(here.dataset.told)[1];
  const there = new URL(location);
  if (document.querySelectorAll(".tokens").length === 1) there.searchParams.set("token", place);
  history.replaceState(null, "", there);
}

const tokens = [...document.querySelectorAll(".t")];
for (const token of tokens) {
  token.dataset.told = token.title;
  token.removeAttribute("title");
}
if (line !== null && tokens.length > 0) {
  line.hidden = false;
  line.setAttribute("role", "status");
  if (here !== null) {
    show(here);
    here.scrollIntoView({ block: "center" });
  }
}

for (const part of document.querySelectorAll(".tokens")) {
  part.addEventListener("mouseover", (event) => {
    const token = event.target.closest(".t");
    if (token !== null) show(token);
  });
  part.addEventListener("click", (event) => {
    const token = event.target.closest(".t");
    if (token === null) return;
    show(token);
    pin();
  });
  part.addEventListener("keydown", (event) => {
    const move = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity }[event.key];
    if (move === undefined || tokens.length === 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    const own = tokens.filter((one) => part.contains(one));
    if (own.length === 0) return;
    const at = own.indexOf(here);
    show(own[Math.min(own.length - 1, Math.max(0, at < 0 ? (move < 0 ? own.length - 1 : 0) : at + move))]);
    here.scrollIntoView({ block: "nearest" });
    pin();
  });
}
