// The page as it will stand, drawn before gradio's own modules have come: from gradio's own description of the page,
// the same layout, values and style sheet. It is to be read, and leaves in the frame in which what it stands for is there.
window.pip.arrived = () => {};
window.pip.ahead = () => {
  const { components, layout, css } = window.gradio_config, known = new Map(components.map(one => [one.id, one]));
  const app = document.querySelector("gradio-app"), host = document.createElement("div");
  const root = host.attachShadow({ mode: "closed" }), sheet = new CSSStyleSheet();
  const asked = new URLSearchParams(location.search), named = asked.has("run");
  const make = (kind, name, inside = [], more = {}) => {
    const made = Object.assign(document.createElement(kind), name ? { className: name } : {}, more);
    made.append(...inside);
    return made;
  };
  const field = ({ type, props: { label, info, show_label, choices, value } }) => {
    const title = make("span", "", [label]);
    title.dataset.testid = "block-info";
    const words = show_label === false ? [] : [title, ...(info ? [make("div", "info-text", [info])] : [])];
    const entry = make("input", "", [], { value: (choices || []).find(choice => choice[1] === value)?.[0] ?? value ?? "" });
    const box = make("div", "wrap", [make("div", "wrap-inner", [entry])]);
    return type === "slider" ? [make("div", "sliding", [make("label", "", words), box]), make("hr")] : [make("div", "container", [...words, box])];
  };
  const kinds = {
    html({ props: { value, html_template } }) {
      const words = make("div", "prose", [], { innerHTML: typeof value === "string" ? value : html_template });
      if (value?.steps) window.pip.method(words, { value, still: true }, () => {});
      return [make("div", "html-container", [words])];
    },
    accordion({ props: { label, open: opens } }, inside) {
      const open = opens && !(named && innerWidth <= 1000);  // as `pip.fold` does
      const title = make("button", open ? "label-wrap open" : "label-wrap", [make("span", "", [label]), make("span", "icon", ["▼"])]);
      return open ? [title, make("div", "column", inside())] : [title];
    },
    dropdown: field,
    slider: field,
  };
  const draw = node => {
    const { type, props } = known.get(node.id), own = { id: props.elem_id || "" };
    if (props.visible === false || props.visible === "hidden") return [];
    const inside = () => (node.children || []).flatMap(draw), name = [props.elem_classes || ""].flat().join(" ");
    if (type === "tabs") {
      const bar = node.children.map((tab, at) => make("button", at ? "" : "selected", [known.get(tab.id).props.label], { role: "tab" }));
      return [make("div", "tabs", [make("div", "tab-container", bar), ...draw(node.children[0])], own)];
    }
    if (type === "button") return [make("button", `${props.variant} ${name}`, [props.value], own)];
    if (kinds[type]) return [make("div", `block ${name}`, kinds[type](known.get(node.id), inside), own)];
    if (!["row", "column", "form", "tabitem"].includes(type)) return [];
    const made = make("div", `${type === "tabitem" ? "column" : type} ${name} ${props.equal_height === false ? "uneven" : ""}`, inside(), own);
    made.style.minWidth = type === "column" ? `min(${props.min_width}px, 100%)` : "";
    made.style.flexGrow = props.scale ?? "";
    return [made];
  };
  sheet.replaceSync(`*, ::before, ::after { box-sizing: border-box; } button, input, p, h1, h2, h3, ul, hr, figure { margin: 0; padding: 0; font: inherit; color: inherit; background: none; border: 0; text-align: inherit; }
    :host { position: absolute; inset: 0 0 auto; z-index: 1; font: 14.72px/1.5 Inter, system-ui, sans-serif; } .gradio-container { color: var(--ink); }
    h1, h2, h3 { line-height: 1.3; } p { line-height: 1.625; } .block { line-height: 1.4; } .ghost { font-weight: 600; } #tools { height: 40px; }
    .row { display: flex; flex-wrap: wrap; gap: 12px; } .row > * { flex: 1 1 0; min-width: min(160px, 100%); } .uneven { align-items: flex-start; }
    .column, .form { display: flex; flex-direction: column; gap: 12px; } .form { gap: 0; }
    .wrap { position: relative; border: 1px solid var(--line); border-radius: 4px; background: var(--card); } .wrap-inner { padding: 10px 16px; } input { display: block; width: 100%; line-height: 16px; font-size: 14px; }
    .container > .wrap::after { content: ""; position: absolute; right: 26px; top: 17px; border: 4px solid transparent; border-top-color: var(--ink); }
    [data-testid] { display: inline-block; margin-bottom: 2px; } .info-text { font-size: 12px; margin-bottom: 6px; color: var(--soft); }
    .sliding { display: flex; justify-content: space-between; align-items: flex-start; margin-bottom: 8px; } .sliding .wrap { width: 101px; } .sliding .wrap-inner { padding: 3px 20px; } .sliding input { font-size: 12px; } hr { height: 4px; margin: 14px 0 7px; border-radius: 2px; background: var(--ghost); }
    .label-wrap { display: flex; justify-content: space-between; width: 100%; } .label-wrap > * { font-size: 14px; line-height: 19.6px; } #form > .label-wrap { margin-bottom: 8px; } .icon { transform: rotate(90deg); } .open .icon { transform: none; }
    .tab-container { display: flex; height: 32px; margin: -4px 0 16px; border-bottom: 1px solid var(--line); } .tab-container button { padding: 0 16px; font-size: 14px; } .tab-container .selected { border-bottom: 2px solid var(--accent); }
    @media (max-width: 420px) { hr { margin: 6px 0; } }
    #go { text-align: center; border-radius: 6px; color: #fff; background: var(--accent); opacity: 0.5; }
    ${css.replaceAll(":root", ":host")}`);
  root.adoptedStyleSheets = [sheet];
  const page = make("div", "gradio-container", [make("div", "main fillable", [make("main", "contain column", layout.children.flatMap(draw))])]);
  const chosen = localStorage.getItem("pip-studio-dark"), scheme = asked.get("__theme");
  const system = scheme !== "light" && matchMedia("(prefers-color-scheme: dark)").matches;
  if (named) {
    const status = page.querySelector(".status");
    status.dataset.state = "opening";
    status.querySelector("b").textContent = "Opening the run";
    status.querySelector(".detail").textContent = "";
  }
  page.inert = true;
  root.append(make("div", (chosen ? chosen === "1" : scheme === "dark" || system) ? "dark" : "", [page]));
  app.before(host);
  // What says itself that it is visible, such as "Working it out", would be seen without the second.
  Object.assign(app.style, { visibility: "hidden", opacity: 0 });
  // Gradio hands over once all is there; a run that the address names is shown once it has been read.
  pip.arrived = shows => {
    if (named && !shows) return;
    clearTimeout(late);
    removeEventListener("error", fails, true);
    host.remove();
    Object.assign(app.style, { visibility: "", opacity: "" });
  };
  const say = () => {
    if (!root.querySelector(".problem")) page.before(make("p", "problem", ["The page did not load. Reload it."], { role: "alert" }));
  };
  const fails = event => event.target.tagName === "SCRIPT" && say(), late = setTimeout(say, 30000);
  addEventListener("error", fails, true);
};
