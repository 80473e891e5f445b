"use strict";

// Grids over time: one picture at a time, moved by a slider.
for (const timeline of document.querySelectorAll(".timeline")) {
  const frames = [...timeline.querySelectorAll("figure")];
  const slider = timeline.querySelector("input");
  const output = timeline.querySelector(".scrubber output");
  const show = () => {
    frames.forEach((frame, i) => frame.classList.toggle("shown", i === Number(slider.value)));
    output.textContent = frames[slider.value].querySelector("figcaption").textContent;
  };
  slider.max = frames.length - 1;
  slider.value = slider.max;
  slider.addEventListener("input", show);
  timeline.classList.add("live");
  show();
}

// Charts: the values under the pointer, beside the names of their lines.
const short = (value) => {
  const size = Math.abs(value);
  for (const [unit, name] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (size >= unit) return Number((value / unit).toPrecision(3)) + "\u00a0" + name;
  }
  return String(Number(value.toPrecision(3)));
};
const nearest = (points, x) =>
  points.reduce((best, point) => (Math.abs(point[0] - x) < Math.abs(best[0] - x) ? point : best));

for (const chart of document.querySelectorAll(".chart")) {
  const { range, unit, lines } = JSON.parse(chart.dataset.chart);
  const plot = chart.querySelector(".plot");
  const cross = chart.querySelector(".cross");
  const outputs = [...chart.querySelectorAll(".key output")];
  const last = outputs.map((output) => output.textContent);
  plot.addEventListener("pointermove", (event) => {
    const box = plot.getBoundingClientRect();
    const share = Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
    const x = nearest(lines.flat(), range[0] + share * (range[1] - range[0]))[0];
    cross.hidden = false;
    cross.style.left = (100 * (x - range[0])) / (range[1] - range[0]) + "%";
    cross.dataset.at = short(x) + " " + unit;
    lines.forEach((points, i) => { outputs[i].textContent = short(nearest(points, x)[1]); });
  });
  plot.addEventListener("pointerleave", () => {
    cross.hidden = true;
    outputs.forEach((output, i) => { output.textContent = last[i]; });
  });
}
