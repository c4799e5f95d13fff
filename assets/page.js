// What Gradio does not do by itself: charts that are redrawn in place, the address, light and dark.
// Where a browser denies a page what it could keep, as in another site's frame, it is kept for as long as the page is open.
for (const name of ["localStorage", "sessionStorage"]) {
  try {
    window[name].length;
  } catch {
    const kept = new Map();
    const value = {
      getItem: key => kept.get(key) ?? null,
      setItem: (key, what) => void kept.set(key, String(what)),
      removeItem: key => void kept.delete(key),
    };
    Object.defineProperty(window, name, { value });
  }
}
window.pip = {
  // Draw the chart a gr.HTML holds as its value; redraw it in place when the value changes. Where its traces come
  // in groups (layout.meta.groups: name, words, colour) the reader chooses which of them are shown.
  chart(element, props, watch) {
    const plot = element.querySelector(".plot");
    // Patterns are named without the page's address, which changes when a run begins: with it no hatch was found.
    const options = { displaylogo: false, displayModeBar: false, responsive: false, _baseUrl: "" };
    const meta = () => props.value?.layout.meta || {};
    const chosen = new Set();
    let bare = null, chips = null, stale = false;
    // A number is written into the cells of a heatmap where they are wide enough for it.
    const narrow = () => plot.clientWidth < 70 + 14 * Math.max(0, ...props.value.data.filter(d => d.texttemplate).map(d => d.x.length));
    // Where the slider above stands.
    const shapes = () => {
      const own = props.value.layout.shapes || [], at = pip.slid;
      if (!meta().slides || at === null) return own;
      return [...own, { type: "line", x0: at, x1: at, yref: "paper", y0: 0, y1: 1, line: { color: "#2f6fde", width: 1.5, dash: "dot" } }];
    };
    const shown = trace => {
      if (bare && trace.texttemplate) trace = { ...trace, texttemplate: undefined };
      return trace.legendgroup === undefined ? trace : { ...trace, visible: chosen.has(trace.legendgroup) };
    };
    const choose = () => {
      const groups = meta().groups;
      if (!groups) return;
      if (!chips) {
        chips = document.createElement("div");
        chips.className = "chips";
        chips.setAttribute("role", "group");
        chips.setAttribute("aria-label", "What is drawn");
        plot.before(chips);
      }
      const names = groups.map(([name, words]) => name + words).join();
      if (chips.dataset.names === names) return;
      chips.dataset.names = names;
      chosen.clear();
      chips.replaceChildren(...(groups.length < 2 ? [] : groups).map(([name, words, color]) => {
        const chip = document.createElement("button");
        chip.type = "button";
        chip.textContent = words;
        chip.style.setProperty("--of", color);
        chip.setAttribute("aria-pressed", name === groups[0][0]);
        chip.addEventListener("click", () => {
          const on = !chosen.has(name);
          if (!on && chosen.size === 1) return;  // something is always drawn
          if (on) chosen.add(name); else chosen.delete(name);
          chip.setAttribute("aria-pressed", on);
          draw();
        });
        return chip;
      }));
      if (groups.length) chosen.add(groups[0][0]);
    };
    const draw = () => {
      if (!props.value || !window.Plotly) return;
      // What is not shown has no width, and Plotly would take one of its own: it is drawn once it is shown.
      stale = !plot.clientWidth;
      if (stale) return;
      bare = narrow();
      choose();
      window.Plotly.react(plot, props.value.data.map(shown), { ...props.value.layout, shapes: shapes() }, options);
    };
    new ResizeObserver(() => {
      if (!plot.clientWidth || !props.value) return;
      if (stale || bare !== narrow()) draw();
      if (plot.data) window.Plotly.Plots.resize(plot);
    }).observe(plot);
    draw();
    watch("value", draw);
    let waits = false;
    if (meta().slides) document.addEventListener("pip-slide", () => {
      stale ||= !plot.clientWidth;
      if (waits || stale || !plot.data) return;
      waits = true;
      requestAnimationFrame(() => { waits = false; window.Plotly.relayout(plot, { shapes: shapes() }); });
    });
  },
  // Several charts side by side, each [title, figure], as many as the value holds.
  charts(element, props, watch) {
    const root = element.querySelector(".plots");
    const options = { displaylogo: false, displayModeBar: false, responsive: false, _baseUrl: "" };
    let stale = false;
    const draw = () => {
      stale = !root.clientWidth;
      if (stale) return;  // as above
      const charts = window.Plotly ? props.value?.charts || [] : [];
      while (root.children.length > charts.length) {
        window.Plotly.purge(root.lastChild.lastChild);
        root.lastChild.remove();
      }
      charts.forEach(([title, figure], number) => {
        if (!root.children[number]) {
          const place = document.createElement("figure"), plot = document.createElement("div");
          plot.className = "plot";
          place.append(document.createElement("figcaption"), plot);
          root.append(place);
        }
        const [caption, plot] = root.children[number].children;
        caption.textContent = title;
        window.Plotly.react(plot, figure.data, figure.layout, options);
      });
    };
    new ResizeObserver(() => {
      if (stale) draw();
      else if (root.clientWidth) for (const { lastChild: plot } of root.children) window.Plotly.Plots.resize(plot);
    }).observe(root);
    draw();
    watch("value", draw);
  },
  // Where the slider stands, as the share of the parameters removed in %; null where there is none.
  slid: null,
  slide(share) {
    if (share === pip.slid) return;
    pip.slid = share;
    document.dispatchEvent(new Event("pip-slide"));
  },
  // Put the run's id into the address, so that the link finds it again.
  address(id) {
    const url = new URL(window.location);
    if (id) url.searchParams.set("run", id);
    else url.searchParams.delete("run");
    window.history.replaceState(null, "", url);
  },
  // Where the form stands above what a run shows, it folds away once there is something to watch.
  fold() {
    if (window.innerWidth > 1000 || document.querySelector("#plan .problem")) return;
    document.querySelector("#form > button.label-wrap.open")?.click();
  },
  // A refusal stands at the button that was pressed; it goes as soon as something else is entered or pressed.
  // The field it begins with the name of is marked, or the one that it says it is about; so is one that the plan, or
  // an answer that stands below what was asked, objects to.
  refusals() {
    const notice = document.getElementById("notice");
    let pressed = null, copy = null, latest = null;
    const clear = () => { copy?.remove(); copy = null; notice.classList.add("past"); mark(); };
    document.addEventListener("click", event => {
      const button = event.target.closest("button");
      if (button) { pressed = button; clear(); }
    }, true);
    document.addEventListener("input", clear, true);
    const mark = () => {
      const said = [...document.querySelectorAll("#notice:not(.past) .problem, #plan .problem")], named = new Set();
      for (const label of document.querySelectorAll("#form [data-testid='block-info']")) {
        const name = label.textContent.trim().replace(/, %$/, ""), block = label.closest(".block");
        const its = said.filter(({ textContent: text }) => text.startsWith(name + ":") || text.startsWith(name + ","));
        its.forEach(problem => named.add(problem));
        block?.classList.toggle("faulty", its.length > 0);
      }
      const others = [...said.filter(problem => !named.has(problem)), ...document.querySelectorAll("#tabs .problem")];
      const fields = others.map(problem => document.getElementById(problem.dataset.field));
      document.querySelectorAll("#tabs .faulty").forEach(field => field.classList.toggle("faulty", fields.includes(field)));
      // Other fields have a line of their own that says what is wrong with them.
      document.getElementById("model")?.classList.toggle("faulty", Boolean(document.querySelector("#model_line .problem")));
      const text = Boolean(document.querySelector("#views_small .problem")), own = document.querySelector("#pasted textarea");
      document.getElementById("pasted")?.classList.toggle("faulty", text && Boolean(own.value.trim()));
      document.getElementById("calibration")?.classList.toggle("faulty", text && !own?.value.trim());
      fields.forEach(field => field?.classList.add("faulty"));
    };
    new MutationObserver(() => {
      const problem = notice.querySelector(".problem");
      // Gradio writes into the notice while a handler works, also one with nothing to object to.
      const now = problem && problem.dataset.at + problem.textContent;
      if (now === latest) return;
      latest = now;
      copy?.remove();
      notice.classList.remove("past");
      const beside = problem && pressed?.isConnected && !pressed.closest("#controls");
      notice.classList.toggle("elsewhere", Boolean(beside));
      // Where the plan above Prune says it already, once is enough.
      const said = pressed?.id === "go" && problem && document.getElementById("plan").textContent.includes(problem.textContent);
      if (beside && !said) {
        copy = problem.cloneNode(true);
        copy.removeAttribute("role");
        const row = pressed.closest(".row");
        (row && row.id !== "columns" ? row : pressed).insertAdjacentElement("afterend", copy);
        copy.scrollIntoView({ block: "nearest" });
      }
      mark();
    }).observe(notice, { childList: true, subtree: true, characterData: true, attributes: true, attributeFilter: ["data-at"] });
    // The form's own lines: they come into the document as what they stand in is unfolded.
    new MutationObserver(mark).observe(document.getElementById("form"), { childList: true, subtree: true });
    // Charts change there, too.
    let before = "";
    new MutationObserver(() => {
      const all = [...document.querySelectorAll("#tabs .problem")], now = all.map(p => p.dataset.field + p.textContent).join();
      if (now === before) return;
      before = now;
      mark();
      all.find(problem => problem.offsetParent && problem !== copy)?.scrollIntoView({ block: "nearest" });
    }).observe(document.getElementById("tabs"), { childList: true, subtree: true });
  },
  dark(on) {
    document.body.classList.toggle("dark", on);
    localStorage.setItem("pip-studio-dark", on ? "1" : "0");
  },
  begin() {
    const chosen = localStorage.getItem("pip-studio-dark");
    if (chosen !== null) document.body.classList.toggle("dark", chosen === "1");
    document.documentElement.lang ||= "en";
    pip.refusals();
    pip.rows(); pip.told(); pip.keys(); pip.log(); pip.places(); pip.lists();
    // Screen readers hear each event once, and refusals at once; the ticking status line stays silent.
    document.getElementById("latest_message")?.setAttribute("aria-live", "polite");
    document.getElementById("notice")?.setAttribute("aria-live", "assertive");
  },
};
