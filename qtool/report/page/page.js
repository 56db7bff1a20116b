"use strict";
// Everything works without this script: plots are then pictures, all flipped items beyond the first stay folded.

// --- plots ---------------------------------------------------------------------------------------------------------
const paper = window.matchMedia("print");

function readout(figure, view) {
  // arrow keys walk through the marks of a plot; the sentence of the current one is shown below, and read aloud
  const marks = [...view.querySelectorAll('.role-mark [role="graphics-symbol"][aria-label]')];
  const line = figure.querySelector(".readout");
  marks.forEach((mark, index) => {
    mark.setAttribute("tabindex", index === 0 ? "0" : "-1");
    mark.addEventListener("focus", () => { line.hidden = false; line.textContent = mark.getAttribute("aria-label"); });
    mark.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (!step) return;
      event.preventDefault();
      const next = marks[(index + step + marks.length) % marks.length];
      mark.setAttribute("tabindex", "-1");
      next.setAttribute("tabindex", "0");
      next.focus();
    });
  });
}

function draw(place) {
  if (place.dataset.drawn || !window.vegaEmbed) return;
  place.dataset.drawn = "yes";
  const figure = place.closest("figure");
  const spec = JSON.parse(document.getElementById("spec-" + place.dataset.plot).textContent);
  place.hidden = false;
  figure.classList.add("drawn");
  window.vegaEmbed(place, spec, { actions: false, renderer: "svg", ast: false })
    .then((result) => {
      readout(figure, place);
      for (const parameter of spec.params || []) {
        result.view.addSignalListener(parameter.name, () => requestAnimationFrame(() => readout(figure, place)));
      }
    })
    .catch((error) => { place.hidden = true; figure.classList.remove("drawn"); console.error(error); });
}

const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) if (entry.isIntersecting) draw(entry.target.querySelector(".live"));
}, { rootMargin: "400px" });
document.querySelectorAll("figure.plot").forEach((figure) => seen.observe(figure));

document.querySelectorAll(".tabs").forEach((tabs) => {
  const figures = [...tabs.querySelectorAll("figure")];
  if (figures.length < 2) return;
  const list = document.createElement("div");
  list.setAttribute("role", "tablist");
  const buttons = figures.map((figure) => {
    const button = document.createElement("button");
    button.type = "button";
    button.setAttribute("role", "tab");
    button.textContent = figure.querySelector("h4").textContent;
    button.addEventListener("click", () => choose(figure));
    list.append(button);
    return button;
  });
  function choose(chosen) {
    figures.forEach((figure, index) => {
      figure.classList.toggle("folded", figure !== chosen);
      buttons[index].setAttribute("aria-selected", String(figure === chosen));
    });
    draw(chosen.querySelector(".live"));
    window.dispatchEvent(new Event("resize"));
  }
  list.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = buttons[(buttons.indexOf(document.activeElement) + step + buttons.length) % buttons.length];
    next.focus();
    next.click();
  });
  tabs.prepend(list);
  choose(figures[0]);
});

// --- flipped items -------------------------------------------------------------------------------------------------
const filters = document.querySelector(".filters");
if (filters) {
  const articles = [...document.querySelectorAll(".flip")];
  const step = articles.filter((article) => !article.hidden).length;
  const more = document.querySelector(".more");
  let room = step;
  const matches = (article) => {
    for (const name of ["variant", "task", "kind"]) {
      const value = filters.elements[name].value;
      if (value && article.dataset[name] !== value) return false;
    }
    const slice = filters.elements.slice.value;
    if (slice && !article.dataset.slices.split("|").includes(slice)) return false;
    const lead = Number(filters.elements.lead.value) || 0;
    if (lead > 0 && !(Number(article.dataset.lead) >= lead)) return false;
    const text = filters.elements.text.value.trim().toLowerCase();
    return !text || article.textContent.toLowerCase().includes(text);
  };
  const show = () => {
    const found = articles.filter(matches);
    articles.forEach((article) => { article.hidden = true; });
    found.slice(0, room).forEach((article) => { article.hidden = false; });
    filters.querySelector("output").textContent = `${Math.min(room, found.length)} of ${found.length} shown`;
    if (more) more.hidden = found.length <= room;
  };
  filters.addEventListener("input", () => { room = step; show(); });
  filters.addEventListener("submit", (event) => event.preventDefault());
  if (more) more.addEventListener("click", () => { room += step; show(); });
  show();
}

// --- contents: the current section, and folded parts that a link points into ----------------------------------------
const links = new Map([...document.querySelectorAll("nav.contents a")].map((link) => [link.hash.slice(1), link]));
const near = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (!entry.isIntersecting) continue;
    links.forEach((link) => link.removeAttribute("aria-current"));
    const link = links.get(entry.target.id);
    if (!link) continue;
    link.setAttribute("aria-current", "true");
    const list = link.closest("ol");
    if (list.scrollWidth > list.clientWidth) list.scrollLeft = link.offsetLeft - 24;
  }
}, { rootMargin: "-10% 0px -80% 0px" });
document.querySelectorAll("main section[id]").forEach((section) => near.observe(section));

// --- paper: everything that is folded is printed --------------------------------------------------------------------
let opened = [];
function unfold() {
  opened = [...document.querySelectorAll("details:not([open])")];
  opened.forEach((part) => { part.open = true; });
}
window.addEventListener("beforeprint", unfold);
window.addEventListener("afterprint", () => { opened.forEach((part) => { part.open = false; }); opened = []; });
paper.addEventListener("change", (event) => { if (event.matches) unfold(); });
