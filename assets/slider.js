// The slider: what the model answers, what is left of it and what it can do, from 0 % to the target. All of it is
// drawn here, from what a run has sent, so that dragging asks nobody.
window.pip.slider = (element, props, watch) => {
  const make = (name, kind = "", inside = []) => {
    const made = document.createElement(name);
    if (kind) made.className = kind;
    for (const one of inside) made.append(one);
    return made;
  };
  const root = element.querySelector(".slider");
  const share = make("b"), kept = make("span", "kept"), step = make("p", "step-words line");
  const save = make("button", "ghost"), copy = make("button", "ghost");
  save.textContent = "Save picture"; copy.textContent = "Copy link";
  save.type = copy.type = "button";
  const prompt = make("p", "prompt"), whole = make("p"), now = make("p"), caption = make("figcaption");
  const first = make("figcaption"); first.textContent = "whole model";
  const answers = make("div", "answers", [make("figure", "", [first, whole]), make("figure", "now", [caption, now])]);
  const bars = make("div", "block-bars"), curve = make("div", "curve"), reading = make("p", "line");
  const range = make("input");
  Object.assign(range, { type: "range", min: 0, step: 1, id: "slide" });
  range.setAttribute("aria-label", "How much of the model is removed");
  const low = make("span"), high = make("span");
  low.textContent = "0 %";
  root.append(
    make("div", "top", [make("p", "headline", [share, kept]), make("div", "buttons", [save, copy])]),
    make("div", "both", [
      make("div", "said", [prompt, answers]),
      make("div", "seen", [bars, curve, reading]),
    ]),
    make("div", "track", [low, range, high]), step,
  );
  bars.setAttribute("role", "img");
  // What may have to be scrolled can be reached with the keyboard.
  whole.tabIndex = now.tabIndex = 0;
  let data = { points: [] }, at = 0, follows = true, run = null;
  const percent = (value, digits = 0) => `${(100 * value).toFixed(digits)} %`;
  const gone = point => 1 - point.left / data.whole;
  const smaller = point => {
    const removed = gone(point);
    return removed <= 0 ? "whole" : `${percent(removed, removed < 0.1 ? 1 : 0)} smaller`;
  };
  const write = (place, pieces, more, nothing) => {
    place.replaceChildren();
    for (const [text, differs] of pieces || []) {
      const piece = document.createElement(differs ? "mark" : "span");
      piece.textContent = text;
      place.append(piece);
    }
    if (more && pieces.length) place.append(" …");
    if (!(pieces || []).length) place.textContent = nothing;
  };
  const drawBars = () => {
    if (bars.children.length !== data.sizes.length) {
      bars.replaceChildren(...data.sizes.map(sizes => {
        const parts = sizes.map((size, half) => {
          const part = make("u", half ? "mlp" : "attention", [make("s")]);
          part.style.flex = `0 0 ${Math.max(3, 100 * size)}%`;
          return part;
        });
        return make("i", "block-bar", parts);
      }));
    }
    const point = data.points[at], before = data.points[at - 1] || point;
    point.blocks.forEach((shares, number) => {
      const bar = bars.children[number], lost = before.blocks[number].some((one, half) => one > shares[half]);
      bar.classList.toggle("removed", shares.every(one => !one));
      bar.classList.toggle("leaving", lost);
      shares.forEach((one, half) => { bar.children[half].firstChild.style.height = `${100 * one}%`; });
    });
    const empty = point.blocks.filter(shares => shares.every(one => !one)).length;
    bars.setAttribute("aria-label", `${point.blocks.length - empty} of ${point.blocks.length} blocks are left`);
  };
  const drawCurve = () => {
    const shown = data.points.filter(point => point.accuracy !== null);
    curve.replaceChildren();
    if (!shown.length) return;
    const far = Math.max(data.target, ...data.points.map(gone)) || 1;
    const ends = shown.flatMap(point => [point.accuracy - point.se, point.accuracy + point.se]);
    const bottom = Math.min(...ends), top = Math.max(...ends), high_ = Math.max(top - bottom, 0.02);
    const x = point => 4 + 92 * gone(point) / far, y = value => 92 - 84 * (value - bottom) / high_;
    const path = points => points.map(([a, b], n) => `${n ? "L" : "M"}${a.toFixed(2)} ${b.toFixed(2)}`).join("");
    const up = shown.map(point => [x(point), y(point.accuracy + point.se)]);
    const down = shown.map(point => [x(point), y(point.accuracy - point.se)]).reverse();
    curve.innerHTML = `<svg viewBox="0 0 100 100" preserveAspectRatio="none" aria-hidden="true">
      <path class="band" d="${path([...up, ...down])}Z"/>
      <path class="mean" d="${path(shown.map(point => [x(point), y(point.accuracy)]))}"/></svg>`;
    const dot = (point, kind) => {
      const made = make("i", kind);
      made.style.left = `${x(point)}%`; made.style.top = `${y(point.accuracy)}%`;
      curve.append(made);
    };
    for (const point of shown) dot(point, "dot");
    if (data.points[at].accuracy !== null) dot(data.points[at], "dot here");
  };
  const draw = () => {
    const there = data.points.length > 0;
    root.classList.toggle("waiting", !there);
    root.classList.toggle("silent", there && !data.prompt);
    if (!there) {
      pip.slide(null);
      step.textContent = "The model’s answers appear here, from the whole model to the smallest.";
      return;
    }
    at = Math.min(at, data.points.length - 1);
    const point = data.points[at];
    pip.slide(data.points.length > 1 ? 100 * gone(point) : null);
    share.textContent = at ? smaller(point) : "The whole model";
    kept.textContent = point.kept ? ` keeps ${point.kept} above guessing` : "";
    prompt.textContent = data.prompt;
    write(whole, data.points[0].answer.map(([text]) => [text, false]), data.points[0].more, "–");
    write(now, point.answer, point.more, data.prompt ? "The answer is on its way." : "");
    caption.textContent = at ? smaller(point) : "whole model";
    range.max = Math.max(data.planned, data.points.length) - 1;
    range.value = at;
    const last = Math.max(1, Number(range.max));
    range.style.setProperty("--at", `${100 * at / last}%`);
    range.style.setProperty("--done", `${100 * (data.points.length - 1) / last}%`);
    high.textContent = percent(Math.max(data.target, gone(data.points.at(-1))));
    step.textContent = at ? `${at} of ${last}: ${point.what}` : `0 of ${last}: nothing is removed yet`;
    reading.textContent = point.accuracy === null ? "Not measured here"
      : `Accuracy ${point.accuracies ?? percent(point.accuracy, 1)} · perplexity ${point.perplexity.toLocaleString("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 })}`;
    range.setAttribute("aria-valuetext", `${share.textContent}.${kept.textContent} ${step.textContent}`);
    drawBars();
    drawCurve();
  };
  const take = () => {
    data = props.value || { points: [] };
    if (data.run !== run) { run = data.run; follows = true; }
    if (follows) at = data.points.length - 1;
    at = Math.max(0, at);
    draw();
  };
  range.addEventListener("input", () => {
    at = Math.min(Number(range.value), data.points.length - 1);
    follows = at === data.points.length - 1;
    draw();
  });
  const said = (button, words) => {
    const before = button.textContent;
    button.textContent = words;
    setTimeout(() => { button.textContent = before; }, 1600);
  };
  copy.addEventListener("click", async () => said(copy, await pip.copied(location.href) ? "Copied" : "Not copied"));
  save.addEventListener("click", () => pip.sharePicture(data, at, smaller(data.points[at])).then(words => said(save, words)));
  take();
  watch("value", take);
};
// Copy a text, also where the page is not served in a way that browsers call secure.
window.pip.copied = async text => {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const field = document.createElement("textarea");
    field.value = text;
    document.body.append(field);
    field.select();
    const done = document.execCommand("copy");
    field.remove();
    return done;
  }
};
// The picture that people share: what a run came to, and the two answers. It is drawn here and sent nowhere.
window.pip.sharePicture = async (data, at, words) => {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [1200, 630];
  const pen = canvas.getContext("2d"), point = data.points[at], font = "Inter, system-ui, sans-serif";
  const text = (line, x, y, size, colour, weight = 400) => {
    pen.font = `${weight} ${size}px ${font}`; pen.fillStyle = colour; pen.fillText(line, x, y);
  };
  pen.fillStyle = "#f6f7f9"; pen.fillRect(0, 0, 1200, 630);
  pen.fillStyle = "#2f6fde"; pen.fillRect(0, 0, 1200, 10);
  text(data.model.split("/").pop(), 60, 82, 30, "#586173", 600);
  text(words.replace(/^./, one => one.toUpperCase()), 60, 152, 62, "#1f2733", 700);
  const notes = [point.kept && `keeps ${point.kept} above guessing`, ...(at === data.points.length - 1 ? data.notes : [])];
  text(notes.filter(Boolean).join(" · "), 60, 200, 30, "#1f2733");
  const width = 1080 / data.sizes.length;
  data.sizes.forEach((sizes, number) => {
    let y = 322;
    [1, 0].forEach(half => {
      const tall = 92 * sizes[half] / (data.sizes[number][0] + data.sizes[number][1] || 1);
      y -= tall;
      pen.fillStyle = "#e1e5ec"; pen.fillRect(60 + number * width, y, width - 3, tall - 2);
      const left = tall * point.blocks[number][half];
      pen.fillStyle = half ? "#9fb4d8" : "#5f7fb8";
      pen.fillRect(60 + number * width, y + tall - left, width - 3, Math.max(0, left - 2));
    });
  });
  // Words one after the other, those that differ marked; at most so many lines.
  const wrapped = (pieces, x, y, wide, lines) => {
    pen.font = `400 25px ${font}`;
    let [right, down] = [x, y];
    const words = pieces.flatMap(([piece, differs]) => (piece.match(/\S+\s*/g) || []).map(word => [word, differs]));
    for (const [at, [word, differs]] of words.entries()) {
      const size = pen.measureText(word).width, needs = at < words.length - 1 ? `${word.trim()} …` : word.trim();
      // What has no room is left out, and said to be.
      if (down >= y + 35 * (lines - 1) && right + pen.measureText(needs).width > x + wide) {
        pen.fillStyle = "#1f2733"; pen.fillText("…", right, down);
        return;
      }
      if (right + pen.measureText(word.trim()).width > x + wide) { right = x; down += 35; }
      if (differs) { pen.fillStyle = "#fbe3bd"; pen.fillRect(right - 3, down - 24, pen.measureText(word.trim()).width + 6, 32); }
      pen.fillStyle = "#1f2733"; pen.fillText(word, right, down);
      right += size;
    }
  };
  if (data.prompt) {
    wrapped([[`“${data.prompt}”`, false]], 60, 378, 1080, 1);
    text("whole model", 60, 428, 21, "#586173", 600);
    text(words, 630, 428, 21, "#1d56c2", 600);
    const said = ({ answer, more }) => more ? [...answer, [" …", false]] : answer;
    wrapped(said(data.points[0]), 60, 464, 510, 4);
    wrapped(said(point), 630, 464, 510, 4);
  }
  text("PIP Studio", 60, 606, 21, "#586173", 600);
  const blob = await new Promise(done => canvas.toBlob(done, "image/png"));
  const file = new File([blob], "pip-studio.png", { type: "image/png" });
  if (matchMedia("(pointer: coarse)").matches && navigator.canShare?.({ files: [file] })) {
    try { await navigator.share({ files: [file] }); return "Shared"; } catch { return "Save picture"; }
  }
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = file.name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  return "Saved";
};
