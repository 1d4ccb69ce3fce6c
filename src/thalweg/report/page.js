"use strict";
// Reading, zooming and redrawing the charts. The page is whole without this script: it draws from
// the same columns what report/svg.py and report/scale.py have drawn, for other stretches of steps,
// other scales and fewer lines.
(() => {
  const W = 2000, H = 1000, page = JSON.parse(document.getElementById("data").textContent);
  const full = page.span, charts = [];
  let view = full.slice();

  const minus = (text) => text.replace(/^-/, "−");
  function number(v, digits = 5) {
    if (v === null || v === undefined) return "–";
    if (v !== 0 && Math.abs(v) >= 1e4 && Math.abs(v) < 1e7) return minus(Math.round(v).toLocaleString("en"));
    const short = Number(v.toPrecision(digits));
    const tiny = short !== 0 && Math.abs(short) < 1e-4;
    return minus((tiny ? short.toExponential() : String(short)).replace("e+", "e"));
  }
  function shortStep(s) {
    for (const [size, unit] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]])
      if (s >= size && (size > 1e3 || s >= 1e4)) return Number((s / size).toPrecision(5)) + unit;
    return s.toLocaleString("en");
  }
  function niceStep(span, least) {
    const power = Math.max(10 ** Math.floor(Math.log10(span)), least);
    return power * [1, 2, 5, 10].find((m) => power * m >= span * 0.999);
  }
  function evenTicks(low, high, wanted, least = 0) {
    const step = niceStep((high - low) / wanted, least), ticks = [];
    for (let k = Math.ceil(low / step - 1e-9); k <= high / step + 1e-9; k++) ticks.push(k * step + 0);
    return ticks;
  }
  function yTicks(scale) {
    if (!scale.log) return evenTicks(scale.low, scale.high, 5);
    const first = Math.ceil(Math.log10(scale.low)), last = Math.floor(Math.log10(scale.high));
    const ticks = [];
    if (last - first >= 2) {
      const stride = Math.ceil((last - first + 1) / 5);
      for (let k = first; k <= last; k += stride) ticks.push(Number("1e" + k));
      return ticks;
    }
    for (let k = first - 1; k <= last; k++)
      for (const m of [1, 2, 5]) {
        const tick = m * Number("1e" + k);
        if (tick >= scale.low && tick <= scale.high) ticks.push(tick);
      }
    return ticks.length > 1 ? ticks : evenTicks(scale.low, scale.high, 5);
  }
  function scaleOf(chart) {
    let low = Infinity, high = -Infinity;
    chart.lines.forEach((line, n) => {
      if (chart.hidden.has(n)) return;
      line.x.forEach((step, i) => {
        if (step < view[0] || step > view[1] || line.mid[i] === null) return;
        low = Math.min(low, (line.lo || line.mid)[i]);
        high = Math.max(high, (line.hi || line.mid)[i]);
      });
    });
    if (low > high) return null;
    if (chart.fixed && chart.fixed[0] <= low && high <= chart.fixed[1])
      return { low: chart.fixed[0], high: chart.fixed[1], log: false };
    if (chart.log && low > 0 && high > low) {
      const margin = (high / low) ** 0.04;
      return { low: low / margin, high: high * margin, log: true };
    }
    const margin = low === high ? Math.abs(low) * 0.05 || 1 : (high - low) * 0.04;
    const bottom = low >= 0 && low < 0.3 * high ? 0 : low - margin;
    const top = high <= 0 && high > 0.3 * low ? 0 : high + margin;
    return { low: bottom, high: top > bottom ? top : bottom + 1, log: false };
  }
  const place = (scale, v) => scale.log
    ? Math.log(v / scale.low) / Math.log(scale.high / scale.low)
    : (v - scale.low) / (scale.high - scale.low);
  const atX = (step) => Math.round(((step - view[0]) / (view[1] - view[0])) * W);
  const atY = (scale, v) => Math.round((1 - place(scale, v)) * H);

  // The runs of columns in view in which every column holds a finite value; one more column on
  // either side, so that lines leave the frame instead of ending before it.
  function stretches(line) {
    const found = [];
    let run = [];
    line.x.forEach((step, i) => {
      const seen = (line.x[i + 1] ?? step) >= view[0] && (line.x[i - 1] ?? step) <= view[1];
      if (seen && line.mid[i] !== null) run.push(i);
      else if (run.length) { found.push(run); run = []; }
    });
    if (run.length) found.push(run);
    return found;
  }
  function paths(line, scale) {
    const drawn = { band: "", line: "", dots: "" };
    for (const run of stretches(line)) {
      const middle = run.map((i) => `${atX(line.x[i])} ${atY(scale, line.mid[i])}`);
      drawn.line += "M" + middle.join("L") + (run.length === 1 ? "h0" : "");
      drawn.dots += middle.map((point) => `M${point}h0`).join("");
      if (line.hi) {
        const there = run.map((i) => `${atX(line.x[i])} ${atY(scale, line.hi[i])}`);
        const back = run.map((i) => `${atX(line.x[i])} ${atY(scale, line.lo[i])}`).reverse();
        drawn.band += "M" + there.concat(back).join("L") + "z";
      }
    }
    return drawn;
  }
  function labels(box, ticks, style, text) {
    box.replaceChildren(...ticks.map(([at, tick]) => {
      const label = document.createElement("span");
      label.style[style] = at + "%";
      label.textContent = text(tick);
      return label;
    }));
  }
  const inside = (ticks) => ticks.filter(([at]) => at >= -0.1 && at <= 100.1);

  function draw(chart) {
    const scale = scaleOf(chart);
    chart.scale = scale;
    chart.groups.forEach((group, n) => {
      const hidden = chart.hidden.has(n) || !scale;
      const drawn = hidden ? { band: "", line: "", dots: "" } : paths(chart.lines[n], scale);
      for (const path of group.children) path.setAttribute("d", drawn[path.getAttribute("class")]);
    });
    let bars = chart.lines.map((line, n) => (chart.hidden.has(n) || !line.bad) ? "" :
      line.x.map((step, i) => line.bad[i] && step >= view[0] && step <= view[1]
        ? `M${atX(step)} 0h6` : "").join("")).join("");
    chart.svg.querySelectorAll(".nonfinite").forEach((path) => { path.setAttribute("d", bars); bars = ""; });
    // Of what happened, short ticks at the bottom; other marks from top to bottom.
    for (const kind of ["resumed", "event", "evidence"]) {
      const seen = chart.marks.filter(([step, of]) => of === kind && step >= view[0] && step <= view[1]);
      chart.svg.querySelector(".mark." + kind)
        ?.setAttribute("d", seen.map(([step]) => `M${atX(step)} ${H}v${kind === "event" ? -45 : -H}`).join(""));
    }
    if (scale) {
      const ticks = inside(yTicks(scale).map((t) => [(1 - place(scale, t)) * 100, t]));
      labels(chart.y, ticks, "top", (t) => number(t, 6));
      chart.svg.querySelector(".grid").setAttribute("d", ticks.map(([at]) => `M0 ${Math.round(at * 10)}h${W}`).join(""));
    }
    const wanted = chart.plot.clientWidth < 420 ? 4 : 6;
    const steps = evenTicks(view[0], view[1], wanted, 1);
    labels(chart.x, inside(steps.map((s) => [atX(s) / W * 100, s])), "left", shortStep);
    chart.reset.hidden = view[0] === full[0] && view[1] === full[1];
    if (chart.scaling) chart.scaling.textContent = chart.log ? "linear scale" : "log scale";
  }

  function zoom(from, to) {
    const least = 1;
    from = Math.max(full[0], Math.min(from, to - least));
    to = Math.min(full[1], Math.max(to, from + least));
    view = [Math.floor(from), Math.ceil(to)];
    charts.forEach(draw);
    cross(null);
  }
  // The column of a line that lies nearest to a step.
  function nearest(line, step) {
    let best = 0;
    for (let i = 1; i < line.x.length; i++)
      if (Math.abs(line.x[i] - step) < Math.abs(line.x[best] - step)) best = i;
    return best;
  }
  function cross(step, spoken) {
    for (const chart of charts) {
      const seen = step !== null && step >= view[0] && step <= view[1];
      chart.cross.setAttribute("d", seen ? `M${atX(step)} 0v${H}` : "");
      chart.output.hidden = !seen;
      if (!seen) continue;
      chart.output.classList.toggle("left", atX(step) > W / 2);
      const said = chart.lines.map((line, n) => {
        if (chart.hidden.has(n)) return "";
        const i = nearest(line, step), at = line.x[i] === step ? "" : ` @ ${line.x[i].toLocaleString("en")}`;
        const bad = line.bad?.[i] ? " not finite" : "";
        const value = line.mid[i] === null ? "" : ` ${number(line.mid[i])}`;
        const range = line.hi && line.mid[i] !== null && line.hi[i] !== line.lo[i]
          ? ` (${number(line.lo[i])} to ${number(line.hi[i])})` : "";
        return `${chart.lines.length > 1 ? line.name : ""}${value}${range}${bad}${at}`.trim();
      }).filter(Boolean);
      chart.output.setAttribute("aria-live", spoken === chart ? "polite" : "off");
      chart.output.textContent = [`step ${step.toLocaleString("en")}`, ...said].join("\n");
    }
  }

  function element(name, attributes = {}, text = "") {
    const made = name === "path" || name === "rect"
      ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text) made.textContent = text;
    return made;
  }

  function attach(data) {
    const figure = document.getElementById(data.id), plot = figure.querySelector(".plot");
    const svg = plot.querySelector("svg");
    const chart = { ...data, plot, svg, hidden: new Set(), at: null };
    chart.groups = [...svg.querySelectorAll("g")];
    chart.y = plot.querySelector(".y");
    chart.x = plot.querySelector(".x");
    chart.cross = svg.appendChild(element("path", { class: "cross" }));
    const rubber = svg.appendChild(element("rect", { class: "zoom", y: 0, height: H, width: 0 }));
    const tools = element("div", { class: "tools" });
    chart.output = element("output", { id: data.id + "-said", hidden: "" });
    plot.querySelector(".ink").append(chart.output);
    if (data.possible) {
      chart.scaling = tools.appendChild(element("button", { type: "button" }));
      chart.scaling.addEventListener("click", () => { chart.log = !chart.log; draw(chart); });
    }
    chart.reset = tools.appendChild(element("button", { type: "button", hidden: "" }, "all steps"));
    chart.reset.addEventListener("click", () => { zoom(...full); plot.focus(); });
    figure.prepend(tools);
    plot.tabIndex = 0;
    plot.setAttribute("role", "application");
    plot.setAttribute("aria-roledescription", "chart");
    plot.setAttribute("aria-describedby", data.id + "-said");
    if (data.lines.length > 1)
      figure.querySelectorAll(".legend li").forEach((item, n) => {
        const button = element("button", { type: "button", "aria-pressed": "true" });
        button.append(...item.childNodes);
        item.append(button);
        button.addEventListener("click", () => {
          chart.hidden.has(n) ? chart.hidden.delete(n) : chart.hidden.add(n);
          button.setAttribute("aria-pressed", String(!chart.hidden.has(n)));
          draw(chart);
        });
      });

    const stepAt = (event) => {
      const box = svg.getBoundingClientRect();
      const share = Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1);
      return Math.round(view[0] + share * (view[1] - view[0]));
    };
    const longest = data.lines.reduce((a, b) => (b.x.length > a.x.length ? b : a));
    let from = null;
    plot.addEventListener("pointermove", (event) => {
      const step = stepAt(event);
      chart.at = longest.x[nearest(longest, step)];
      if (from === null) return cross(chart.at);
      rubber.setAttribute("x", Math.min(atX(from), atX(step)));
      rubber.setAttribute("width", Math.abs(atX(from) - atX(step)));
    });
    plot.addEventListener("pointerdown", (event) => {
      if (event.pointerType === "mouse" && event.button === 0) {
        from = stepAt(event);
        plot.setPointerCapture(event.pointerId);
      } else if (event.pointerType !== "mouse") cross(longest.x[nearest(longest, stepAt(event))]);
    });
    const release = (event) => {
      if (from === null) return;
      const to = stepAt(event), start = from;
      from = null;
      rubber.setAttribute("width", 0);
      if (Math.abs(atX(to) - atX(start)) > W / 100) zoom(Math.min(start, to), Math.max(start, to));
    };
    plot.addEventListener("pointerup", release);
    plot.addEventListener("pointercancel", release);
    plot.addEventListener("pointerleave", () => { if (from === null) cross(null); });
    plot.addEventListener("dblclick", () => zoom(...full));
    plot.addEventListener("keydown", (event) => {
      const steps = longest.x.filter((step) => step >= view[0] && step <= view[1]);
      const here = chart.at === null ? -1 : steps.findIndex((step) => step >= chart.at);
      const stride = event.shiftKey ? 10 : 1, width = view[1] - view[0];
      const middle = chart.at ?? (view[0] + view[1]) / 2;
      const go = (k) => { chart.at = steps[Math.min(Math.max(k, 0), steps.length - 1)]; };
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === "ArrowRight") go(here + stride);
      else if (event.key === "ArrowLeft") go(here < 0 ? steps.length - 1 : here - stride);
      else if (event.key === "Home") go(0);
      else if (event.key === "End") go(steps.length - 1);
      else if (event.key === "+" || event.key === "=") zoom(middle - width / 4, middle + width / 4);
      else if (event.key === "-") zoom(middle - width, middle + width);
      else if (event.key === "Escape" || event.key === "0") zoom(...full);
      else return;
      event.preventDefault();
      if (chart.at !== undefined && chart.at !== null) cross(chart.at, chart);
    });
    plot.addEventListener("blur", () => cross(null));
    charts.push(chart);
    return chart;
  }

  document.documentElement.classList.add("live");
  page.charts.map(attach).forEach(draw);
  document.querySelector(".keys").hidden = !charts.length;
  for (const link of document.querySelectorAll("a[data-step]"))
    link.addEventListener("click", () => setTimeout(() => cross(Number(link.dataset.step)), 50));

  const theme = element("button", { type: "button", class: "theme" });
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (document.documentElement.dataset.theme || (dark.matches ? "dark" : "light")) === "dark";
  const name = () => { theme.textContent = isDark() ? "light page" : "dark page"; };
  theme.addEventListener("click", () => {
    document.documentElement.dataset.theme = isDark() ? "light" : "dark";
    name();
  });
  dark.addEventListener("change", name);
  name();
  document.querySelector("header").append(theme);
  let waiting = 0;
  addEventListener("resize", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => charts.forEach(draw), 150);
  });
})();
