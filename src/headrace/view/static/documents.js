// Goes on with a search that has not found a page of documents yet, and shows them as they come.
const next = async () => {
  const more = document.querySelector("#more[data-unfinished]");
  if (more === null) return;
  const answer = await fetch(more.href, { headers: { accept: "text/html" } });
  if (!answer.ok) return;
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const hits = document.querySelector("#hits");
  hits.append(...page.querySelectorAll("#hits > li"));
  const status = page.querySelector("#status") ?? (hits.children.length ? null : page.querySelector(".empty"));
  if (status === null) document.querySelector("#status").remove();
  else document.querySelector("#status").replaceWith(status);
  const again = document.querySelector("#more[data-unfinished]");
  if (again !== null && hits.children.length >= 20) delete again.dataset.unfinished;
  next();
};
next();
