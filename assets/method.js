// See the method: texts enter, every block lights up by its score, the least leaves, and the rest is scored again.
// It plays once when it comes into view, and then stands still; where motion is not wanted it only stands still.
window.pip.method = (element, props, watch) => {
  const make = (name, kind = "", inside = []) => {
    const made = document.createElement(name);
    if (kind) made.className = kind;
    made.append(...inside);
    return made;
  };
  const root = element.querySelector(".method"), still = props.still || matchMedia("(prefers-reduced-motion: reduce)").matches;
  const texts = make("div", "texts"), bars = make("div", "bars"), round = make("b"), said = make("span");
  const stage = make("div", "scene", [texts, make("div", "flow", [make("i"), make("i")]), bars]);
  const button = make("button", "ghost"), words = make("p", "line"), caption = make("p", "caption", [round, said]);
  button.type = "button";
  button.hidden = still;
  stage.setAttribute("role", "img");
  root.append(stage, make("div", "telling", [caption, button]), words);
  let data = { steps: [] }, scenes = [], at = 0, timer = 0, seen = false;
  // A scene: what is said, which step's scores are lit, what is gone, and how long it stands, in milliseconds.
  const plan = () => {
    const whole = data.gone.map(lane => lane.map(() => 0)), found = [];
    data.steps.forEach((step, number) => {
      const before = number ? data.steps[number - 1].gone : whole, name = `Iteration ${number + 1}. `;
      if (!number) found.push({ kind: "reading", words: data.reads, gone: before, name, stands: 2200 });
      found.push({ kind: "lit", words: data.lights, lit: step.lit, gone: before, name, stands: number ? 1100 : 2200 });
      found.push({ kind: "leaving", words: step.words, lit: step.lit, gone: before, next: step.gone, name, stands: number ? 1200 : 2000 });
    });
    found.push({ kind: "end", words: data.end, lit: data.steps.at(-1).lit, gone: data.gone, name: "", stands: 0 });
    return found;
  };
  const build = () => {
    texts.replaceChildren(...data.views.map((pieces, number) => make("p", number ? "other" : "", pieces.map(([text, changed]) => {
      const piece = make(changed ? "mark" : "span");
      piece.textContent = text;
      return piece;
    }).concat(" …"))));
    texts.hidden = !data.views.length;
    root.classList.toggle("alone", data.count < 2);
    root.classList.toggle("unread", !data.count);
    bars.replaceChildren(...Array.from({ length: data.blocks }, (_, block) => {
      const column = make("i", "", data.gone.map(() => make("u", "", [make("s")])));
      column.style.setProperty("--after", `${(700 * block / data.blocks).toFixed(0)}ms`);
      const every = data.blocks <= 16 ? 1 : data.blocks <= 60 ? 5 : 10;
      const label = make("b");
      label.textContent = block % every ? "" : block;
      column.append(label);
      return column;
    }));
    stage.setAttribute("aria-label", data.alternative);
    words.textContent = `${data.method}: ${data.summary}`;
    if (data.of) words.append(` Drawn from the run “${data.of}”.`);
  };
  const show = () => {
    const scene = scenes[at];
    stage.dataset.scene = scene.kind;
    round.textContent = scene.name;
    said.textContent = scene.words;
    [...bars.children].forEach((column, block) => scene.gone.forEach((lane, number) => {
      const part = column.children[number], level = scene.lit?.[number][block];
      part.className = lane[block] >= 1 ? "gone" : scene.next && scene.next[number][block] > lane[block] ? "leaving" : "";
      part.firstChild.style.opacity = scene.lit ? 0.06 + 0.94 * (level ?? 0) : 0.12;
      part.firstChild.style.height = `${100 * (1 - Math.min(1, lane[block]))}%`;
    }));
    button.textContent = timer ? "Pause" : at === scenes.length - 1 ? "Play again" : "Play";
  };
  const stop = () => { clearTimeout(timer); timer = 0; };
  const go = () => {
    stop();
    if (at < scenes.length - 1) timer = setTimeout(() => { at += 1; go(); }, scenes[at].stands);
    show();
  };
  button.addEventListener("click", () => {
    if (timer) { stop(); show(); return; }
    if (at === scenes.length - 1) at = 0;
    go();
  });
  const begin = () => {
    if (seen && !still && scenes.length && !timer && root.dataset.fresh) { delete root.dataset.fresh; at = 0; go(); }
  };
  const take = () => {
    const known = JSON.stringify([data.steps[0], data.method, data.blocks]);
    data = props.value || { steps: [] };
    root.classList.toggle("waiting", !data.steps.length);
    if (!data.steps.length) { stop(); scenes = []; root.dataset.fresh = "1"; return; }
    scenes = plan();
    build();
    // The same run, one removal further, is not played again.
    if (JSON.stringify([data.steps[0], data.method, data.blocks]) !== known) { stop(); root.dataset.fresh = "1"; }
    if (!timer) at = scenes.length - 1;
    at = Math.min(at, scenes.length - 1);
    show();
    begin();
  };
  new IntersectionObserver(entries => { seen = entries.at(-1).isIntersecting; begin(); }, { threshold: 0.6 }).observe(stage);
  take();
  watch("value", take);
};
