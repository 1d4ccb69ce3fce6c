"use strict";
// Charts of a run: each asks the server for as many columns as it is wide, again after every zoom.
(() => {
  const tones = ["--s0", "--s1", "--s2", "--s3", "--s4", "--s5"];
  // As in the report, so that no line is told by its colour alone; the seventh is the first, dashed.
  const dashes = [[], [6, 3], [2, 3], [9, 3, 2, 3], [12, 4], [4, 4]];
  const dash = (i) => dashes[(i + Math.floor(i / 6)) % 6];
  const probe = document.body.appendChild(document.createElement("i"));
  probe.hidden = true;
  const colour = (name) => {
    probe.style.color = `var(${name})`;
    return getComputedStyle(probe).color;
  };
  const faint = (tone) => tone.replace("rgb(", "rgba(").replace(")", ", .2)");

  class Chart {
    constructor(box) {
      this.box = box;
      this.plot = box.querySelector(".canvas");
      this.note = box.querySelector(".note");
      this.from = this.to = null;
      this.whole = [0, 1];
      this.asked = 0;
      this.busy = this.again = this.stale = false;
      box.querySelector(".tools").hidden = false;
      for (const button of box.querySelectorAll("[data-do]"))
        button.addEventListener("click", () => this.move(button.dataset.do));
    }

    move(how) {
      const [a, b] = this.from === null ? this.whole : [this.from, this.to];
      const w = b - a;
      const moves = {
        in: [a + w / 4, b - w / 4], out: [a - w / 2, b + w / 2],
        left: [a - w / 2, b - w / 2], right: [a + w / 2, b + w / 2], all: [null, null],
      };
      this.show(...moves[how]);
    }

    show(from, to) {
      const [least, most] = this.whole;
      if (from === null || (from <= least && to >= most)) this.from = this.to = null;
      else {
        if (from < least) [from, to] = [least, Math.min(to + least - from, most)];
        if (to > most) [from, to] = [Math.max(from - (to - most), least), most];
        this.from = Math.floor(from);
        this.to = Math.max(Math.ceil(to), this.from + 1);
      }
      this.load();
    }

    async load() {
      if (this.busy) { this.again = true; return; }
      this.busy = true;
      this.stale = false;
      const width = Math.max(Math.round(this.plot.clientWidth), 200);
      let url = `${this.box.dataset.series}&columns=${Math.min(width, 2000)}`;
      if (this.from !== null) url += `&from=${this.from}&to=${this.to}`;
      try {
        const answer = await fetch(url, { headers: { accept: "application/json" } });
        const said = await answer.json();
        if (answer.ok) this.draw(said.data.series, width);
        else this.note.textContent = said.data.error;
      } catch (error) {
        this.note.textContent = "The server does not answer.";
      }
      this.busy = false;
      if (this.again) { this.again = false; this.load(); }
    }

    draw(found, width) {
      if (!found.some((s) => s.steps.length)) { this.note.textContent = "Nothing measured."; return; }
      const tables = [], series = [{ label: "step" }], bands = [];
      found.forEach((s, i) => {
        const tone = colour(tones[i % tones.length]), name = s.part || this.box.dataset.label;
        const line = { label: name, stroke: tone, width: 1.5, dash: dash(i), points: { show: s.steps.length < 60 } };
        if (s.low) {
          tables.push([s.steps, s.low, s.high, s.middle]);
          bands.push({ series: [series.length + 1, series.length], fill: faint(tone) });
          const edge = { stroke: faint(tone), width: 1, points: { show: false } };
          series.push({ ...edge, label: `${name}, least` }, { ...edge, label: `${name}, greatest` }, line);
        } else {
          tables.push([s.steps, s.middle]);
          series.push(line);
        }
      });
      const data = uPlot.join(tables), x = data[0];
      const last = Math.max(...found.filter((s) => s.steps.length).map((s) => s.last));
      if (this.from === null) this.whole = [x[0], Math.max(last, x[0] + 1)];
      const values = data.slice(1).flat().filter((v) => v !== null && v !== undefined);
      const least = values.reduce((a, b) => Math.min(a, b), Infinity), most = values.reduce((a, b) => Math.max(a, b), -Infinity);
      const axis = { stroke: colour("--soft"), grid: { stroke: colour("--grid"), width: 1 }, ticks: { stroke: colour("--grid") } };
      const zoom = (u) => {
        if (u.select.width < 5) return;
        this.show(u.posToVal(u.select.left, "x"), u.posToVal(u.select.left + u.select.width, "x"));
        u.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
      };
      this.plot.replaceChildren();
      new uPlot({
        width, height: 260, series, bands,
        legend: { show: false },
        cursor: { drag: { x: true, y: false, setScale: false } },
        scales: {
          x: { time: false, range: () => (this.from === null ? this.whole : [this.from, this.to]) },
          y: least > 0 && most / least > 50 ? { distr: 3 } : {},
        },
        axes: [axis, { ...axis, size: 64 }],
        hooks: {
          setSelect: [zoom],
          setCursor: [(u) => this.read(u, found)],
        },
      }, data, this.plot).over.addEventListener("dblclick", () => this.show(null, null));
      this.read(null, found);
      this.legend(found);
      this.tell(found, x[0], last);
      this.box.dataset.drawn = ++this.asked;
    }

    legend(found) {
      const list = this.box.querySelector(".legend");
      list.replaceChildren(...found.map((s, i) => {
        const item = document.createElement("li");
        const [mark, path] = ["svg", "path"].map((n) => document.createElementNS("http://www.w3.org/2000/svg", n));
        item.className = `s${i % 6}`;
        mark.setAttribute("viewBox", "0 0 24 8");
        mark.setAttribute("aria-hidden", "true");
        path.setAttribute("d", "M0 4H24");
        path.style.strokeDasharray = dash(i).join(" ") || "none";
        mark.append(path);
        item.append(mark, s.part || this.box.dataset.label);
        return item;
      }));
    }

    // The picture in words, and the last step that is known of.
    tell(found, first, last) {
      const seen = this.from === null ? [first, last] : [this.from, this.to];
      const ends = found.slice(0, 6).map((s) => {
        const finite = s.middle.filter((v) => v !== null);
        return finite.length ? `${s.part || this.box.dataset.label} from ${finite[0].toPrecision(3)} to ${finite[finite.length - 1].toPrecision(3)}` : "";
      });
      const said = `${this.box.dataset.label}, steps ${seen[0]} to ${seen[1]}: ${ends.filter(Boolean).join("; ") || "nothing finite"}`;
      this.plot.setAttribute("aria-label", found.length > 6 ? `${said}; and ${found.length - 6} more` : said);
      const told = document.querySelector("[data-last-step]");
      if (told && last > Number(told.textContent || -1)) {
        told.textContent = last;
        told.parentElement.hidden = false;
      }
    }

    read(u, found) {
      const bad = found.reduce((n, s) => n + s.nonfinite.length, 0);
      let text = this.from === null ? "" : `Steps ${this.from} to ${this.to} of ${this.whole[0]} to ${this.whole[1]}. `;
      if (found.some((s) => s.low)) text += "A band spans the least and greatest of the steps that a column stands for.";
      if (bad) text += ` Not finite at or after step ${Math.min(...found.flatMap((s) => s.nonfinite))}.`;
      const at = u && u.cursor.idx !== null && u.cursor.idx !== undefined ? u.data[0][u.cursor.idx] : null;
      if (at !== null && at !== undefined) {
        const told = found.map((s) => {
          const i = s.steps.indexOf(at);
          return i < 0 || s.middle[i] === null ? "" : `${s.part || this.box.dataset.label} ${s.middle[i].toPrecision(4)}`;
        });
        text = `step ${at}: ${told.filter(Boolean).slice(0, 4).join(", ")}`;
      }
      this.note.textContent = text;
    }
  }

  const charts = new Map();
  const seen = new Set();
  const watch = new IntersectionObserver((changes) => {
    for (const { target, isIntersecting } of changes) {
      isIntersecting ? seen.add(target) : seen.delete(target);
      if (!isIntersecting) continue;
      if (!charts.has(target)) charts.set(target, new Chart(target));
      else if (!charts.get(target).stale) continue;
      charts.get(target).load();
    }
  }, { rootMargin: "200px" });
  for (const box of document.querySelectorAll(".live-chart")) watch.observe(box);
  // What is out of sight is drawn when it comes back into it.
  const redraw = () => charts.forEach((chart, box) => { chart.stale = true; if (seen.has(box)) chart.load(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  let waiting = 0;
  addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(redraw, 200); });

  const live = document.querySelector("[data-live]");
  if (live) {
    const status = live.textContent, stream = new EventSource(live.dataset.live);
    let heard = 0;
    stream.addEventListener("open", () => { live.textContent = status; });
    // The first time it says what there is; a page that had nothing to draw is loaded again later.
    stream.addEventListener("grown", () => {
      if (document.querySelector(".live-chart")) redraw();
      else if (heard++) location.reload();
    });
    stream.addEventListener("ended", (event) => {
      live.textContent = JSON.parse(event.data).status;
      stream.close();
    });
    stream.addEventListener("error", () => {
      const gone = stream.readyState === EventSource.CLOSED;
      live.textContent = `${status}, when last heard of: ${gone ? "not followed any more; load the page again" : "the server does not answer, trying again"}`;
    });
  }
})();
