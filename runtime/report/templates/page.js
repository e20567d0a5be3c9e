"use strict";

// The slider: a range input for the keyboard, pointers anywhere on the picture.
for (const compare of document.querySelectorAll(".compare")) {
  const range = compare.querySelector("input");
  const figures = [...compare.querySelectorAll("figure")];
  const show = () => {
    compare.style.setProperty("--split", range.value + "%");
    const name = (side) => figures.find((one) => one.classList.contains(side)).querySelector("figcaption").textContent;
    range.setAttribute("aria-valuetext", `${range.value}% ${name("left")}, the rest ${name("right")}`);
  };
  const follow = (event) => {
    const box = compare.getBoundingClientRect();
    range.value = 100 * (event.clientX - box.left) / box.width;
    show();
  };
  range.addEventListener("input", show);
  compare.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    compare.setPointerCapture(event.pointerId);
    range.focus({ preventScroll: true, focusVisible: false });
    event.preventDefault();
    follow(event);
  });
  compare.addEventListener("pointermove", (event) => {
    if (compare.hasPointerCapture(event.pointerId)) follow(event);
  });
  for (const select of compare.parentElement.querySelectorAll("select")) {
    select.addEventListener("change", () => {
      figures.forEach((figure, i) => figure.classList.toggle(select.dataset.side, i === Number(select.value)));
      show();
    });
  }
  show();
}

// Zoom: a modal dialog over the pictures of one place.
const zoom = document.getElementById("zoom");
const stage = zoom.querySelector(".stage");
const enlarged = stage.querySelector("img");
const factors = [...zoom.querySelectorAll("[data-factor]")];
let place = [], at = 0, factor = 4;

function draw() {
  const source = place[at];
  enlarged.src = source.src;
  enlarged.alt = source.alt;
  enlarged.width = factor * source.getAttribute("width");
  enlarged.height = factor * source.getAttribute("height");
  document.getElementById("zoom-title").textContent = `${source.alt} (${at + 1} of ${place.length})`;
  for (const button of factors) button.setAttribute("aria-pressed", String(Number(button.dataset.factor) === factor));
}

function step(by) {
  at = (at + by + place.length) % place.length;
  draw();
}

function scaleBy(by) {
  const known = factors.map((button) => Number(button.dataset.factor));
  factor = known[Math.max(0, Math.min(known.length - 1, known.indexOf(factor) + by))];
  draw();
}

for (const crop of document.querySelectorAll(".crop")) {
  crop.addEventListener("click", () => {
    const image = crop.querySelector("img");
    place = [...crop.closest(".strip, .maps").querySelectorAll("img")];
    at = place.indexOf(image);
    const room = Math.min(window.innerWidth - 60, 1150);
    factor = [8, 4, 2].find((one) => one * image.getAttribute("width") <= room) || 1;
    draw();
    zoom.showModal();
    stage.focus();
  });
}
for (const button of factors) {
  button.addEventListener("click", () => { factor = Number(button.dataset.factor); draw(); });
}
for (const button of zoom.querySelectorAll("[data-step]")) {
  button.addEventListener("click", () => step(Number(button.dataset.step)));
}
zoom.querySelector("[data-close]").addEventListener("click", () => zoom.close());
zoom.addEventListener("click", (event) => { if (event.target === zoom) zoom.close(); });
zoom.addEventListener("keydown", (event) => {
  if (event.key === "ArrowLeft") step(-1);
  else if (event.key === "ArrowRight") step(1);
  else if (event.key === "+" || event.key === "=") scaleBy(1);
  else if (event.key === "-") scaleBy(-1);
  else return;
  event.preventDefault();
});
