"use strict";
(() => {
  const darkness = window.matchMedia("(prefers-color-scheme: dark)");
  const palette = JSON.parse(document.getElementById("palette").textContent);
  const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // Tables: a click on a head sorts by its column, another one turns the order; cells without a number come last.
  const collator = new Intl.Collator("en", { numeric: true });
  const compared = (a, b, sign) => {
    if (a.value === null && b.value === null) return sign * collator.compare(a.text, b.text);
    const numbers = [a, b].map((cell) => (cell.value === null ? NaN : Number(cell.value)));
    if (numbers.some(Number.isNaN)) return Number.isNaN(numbers[0]) - Number.isNaN(numbers[1]);
    return sign * (numbers[0] - numbers[1]);
  };
  for (const button of document.querySelectorAll(".sort")) {
    button.addEventListener("click", () => {
      const head = button.closest("th");
      const table = head.closest("table");
      const column = [...head.parentElement.children].indexOf(head);
      const ascending = head.getAttribute("aria-sort") !== "ascending";
      for (const other of head.parentElement.children) other.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      const body = table.tBodies[0];
      const rows = [...body.rows].map((row) => {
        const cell = row.cells[column];
        return { row, value: cell.getAttribute("data-value"), text: cell.textContent.trim() };
      });
      rows.sort((a, b) => compared(a, b, ascending ? 1 : -1));
      body.append(...rows.map((one) => one.row));
    });
  }

  // Figures: drawn when they come near, in the colours of the page, with the methods and the variant that are chosen.
  const left_out = new Set();
  const drawn = new Set();
  const template = () => {
    const axis = {
      gridcolor: color("--grid"), linecolor: color("--soft"), zerolinecolor: color("--soft"), tickcolor: color("--soft"),
      showline: true, ticks: "outside", ticklen: 4, zerolinewidth: 1.5,
    };
    return { layout: {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: color("--ink"), size: 12, family: getComputedStyle(document.body).fontFamily },
      xaxis: axis, yaxis: axis,
      hoverlabel: { bgcolor: color("--field"), bordercolor: color("--soft"), font: { color: color("--ink") } },
    } };
  };
  const options = {
    responsive: true, displaylogo: false, displayModeBar: false, scrollZoom: false,
  };
  const content = (plot) => {
    let text = plot.dataset.chart;
    if (darkness.matches) palette.light.forEach((one, place) => { text = text.replaceAll(one, palette.dark[place]); });
    const made = JSON.parse(text);
    const select = plot.closest("figure").querySelector("select.variant");
    const option = select ? select.value : null;
    for (const trace of made.data) {
      const { method, variant } = trace.meta;
      trace.visible = !left_out.has(method) && (!variant || option === null || variant === option);
    }
    made.layout.template = template();
    return made;
  };
  const draw = (plot) => {
    drawn.add(plot);
    const made = content(plot);
    return Plotly.react(plot, made.data, made.layout, options);
  };
  const redraw = (plots) => plots.forEach((plot) => { if (drawn.has(plot)) draw(plot); });
  const plots = [...document.querySelectorAll(".plot")];
  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries) {
      if (!entry.isIntersecting) continue;
      watcher.unobserve(entry.target);
      draw(entry.target);
    }
  }, { rootMargin: "600px" });
  for (const plot of plots) {
    const source = plot.querySelector("script");
    plot.dataset.chart = source.textContent;
    source.remove();
    watcher.observe(plot);
  }
  darkness.addEventListener("change", () => redraw(plots));
  window.addEventListener("beforeprint", () => plots.forEach(draw));
  for (const select of document.querySelectorAll("select.variant")) {
    select.addEventListener("change", () => {
      for (const other of document.querySelectorAll("select.variant")) {
        const same = other.dataset.label === select.dataset.label && [...other.options].some((one) => one.value === select.value);
        if (!same) continue;
        other.value = select.value;
        redraw([...other.closest("figure").querySelectorAll(".plot")]);
      }
    });
  }
  const boxes = [...document.querySelectorAll(".legend input")];
  for (const box of boxes) {
    box.addEventListener("change", () => {
      left_out[box.checked ? "delete" : "add"](box.dataset.method);
      for (const other of boxes) other.checked = !left_out.has(other.dataset.method);
      redraw(plots);
    });
  }

  // Gallery: one case at a time.
  for (const gallery of document.querySelectorAll(".gallery")) {
    const slides = [...gallery.querySelectorAll(".slide")];
    let current = 0;
    const show = (place) => {
      current = (place + slides.length) % slides.length;
      slides.forEach((slide, number) => { slide.hidden = number !== current; });
      gallery.querySelector(".status").textContent =
        `Case ${current + 1} of ${slides.length}: ${slides[current].getAttribute("aria-label")}`;
    };
    gallery.querySelector(".previous").addEventListener("click", () => show(current - 1));
    gallery.querySelector(".next").addEventListener("click", () => show(current + 1));
    gallery.addEventListener("keydown", (event) => {
      const steps = { ArrowLeft: -1, ArrowRight: 1 };
      if (!(event.key in steps) || event.altKey || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      show(current + steps[event.key]);
    });
    show(0);
  }
})();
