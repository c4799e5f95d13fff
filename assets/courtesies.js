// Small courtesies: what is pressed in a row of the table of runs, links and code that are copied.
Object.assign(window.pip, {
  async copies(button, text) {
    const was = button.textContent;
    button.textContent = await pip.copied(text) ? "Copied" : "Not copied";
    setTimeout(() => { button.textContent = was; }, 1600);
  },
  link(run) {
    const url = new URL(window.location);
    url.search = run ? `?run=${run}` : "";
    return url.href;
  },
  // The run in the title and the icon of the browser's tab; at its end a notification, where one was asked for.
  told() {
    const icon = document.createElement("link");
    Object.assign(icon, { rel: "icon", type: "image/svg+xml" });
    const colours = { good: "#15803d", bad: "#c81e1e", warn: "#e8930c", live: "#2f6fde", idle: "#80868f" };
    let before = false, drawn = "";
    const look = () => {
      const status = document.querySelector("#status .status");
      if (!status) return;
      const state = status.dataset.state, words = status.querySelector("b").textContent;
      const share = Number(status.querySelector("progress").value), live = status.classList.contains("live");
      const title = live ? `${Math.round(100 * share)} % · PIP Studio` : state === "none" ? "PIP Studio" : `${words} · PIP Studio`;
      if (document.title !== title) document.title = title;
      const tone = ["good", "bad", "warn", "live"].find(name => status.classList.contains(name)) || "idle";
      const round = live ? Math.round(20 * share) / 20 : 1, key = `${tone} ${round}`;
      if (state !== "none" && key !== drawn) {
        drawn = key;
        const circle = `<circle cx="16" cy="16" r="12" fill="none" stroke-width="7" pathLength="100"`;
        const svg = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">${circle} stroke="#c9d0da"/>` +
          `${circle} stroke="${colours[tone]}" stroke-dasharray="${100 * round} 100" transform="rotate(-90 16 16)"/></svg>`;
        icon.href = `data:image/svg+xml,${encodeURIComponent(svg)}`;
        document.querySelectorAll("link[rel~=icon]").forEach(link => { if (link !== icon) link.remove(); });
        document.head.append(icon);
      }
      const goes = ["waiting", "starting", "running", "stopping"].includes(state);
      // Of a run that has been thrown away nothing is told.
      const away = document.hidden || !document.hasFocus();
      if (before && !goes && state !== "none" && away) pip.tell(`${words}. ${status.querySelector(".detail").textContent}`);
      before = goes;
    };
    const asks = document.getElementById("notify");
    if (!("Notification" in window)) asks?.parentElement.remove();
    else asks?.setAttribute("aria-pressed", String(pip.tells()));
    new MutationObserver(look).observe(document.getElementById("status"), { childList: true, subtree: true });
    look();
  },
  // Whether the end of a run is told: asked for here, and allowed by the browser.
  tells: () => localStorage.getItem("pip-studio-notify") === "1" && Notification.permission === "granted",
  tell(body) {
    if (!("Notification" in window) || !pip.tells()) return;
    try {
      new Notification("PIP Studio", { body, tag: "pip-studio" });
    } catch { /* a browser of a phone, which shows those of installed pages only */ }
  },
  async notify(button) {
    const note = document.getElementById("notify-note"), wanted = button.getAttribute("aria-pressed") !== "true";
    const allowed = wanted && await Notification.requestPermission();
    localStorage.setItem("pip-studio-notify", allowed === "granted" ? "1" : "0");
    button.setAttribute("aria-pressed", String(allowed === "granted"));
    note.textContent = allowed === "denied" ? "The browser blocks notifications of this page: allow them in its settings." : "";
  },
  keys() {
    document.addEventListener("keydown", event => {
      if (document.querySelector("dialog[open]")) return;
      if ((event.ctrlKey || event.metaKey) && event.key === "Enter") {
        event.preventDefault();
        document.getElementById("go").click();
      } else if (event.altKey && !event.ctrlKey && !event.metaKey && /^Digit[1-5]$/.test(event.code)) {
        event.preventDefault();
        document.querySelectorAll("#tabs button[role=tab]")[Number(event.code.at(-1)) - 1]?.click();
      }
    });
    document.addEventListener("click", event => {
      const button = event.target.closest("button.copy");
      if (button) pip.copies(button, button.closest("figure").querySelector("code").textContent);
    });
  },
  // Where a reader was in each tab of a run: there again when the tab is, and when the page is loaded anew.
  places() {
    const kept = "pip-studio-places", run = () => new URL(window.location).searchParams.get("run") || "";
    const tabs = [...document.querySelectorAll("#tabs button[role=tab]")];
    const current = () => tabs.findIndex(tab => tab.getAttribute("aria-selected") === "true");
    let places = {}, tab = current(), wanted = null, until = 0;
    try { places = JSON.parse(sessionStorage.getItem(kept)) || {}; } catch { /* nothing that can be read */ }
    history.scrollRestoration = "manual";  // the browser goes there before there is anything
    const here = () => places[run()] ||= { tab: 0, at: {} };
    const keep = () => {
      const runs = Object.keys(places);
      if (runs.length > 20) delete places[runs[0]];
      sessionStorage.setItem(kept, JSON.stringify(places));
    };
    // What stands below is drawn bit by bit: until the place is there, or the reader goes elsewhere.
    const go = () => {
      if (wanted === null) return;
      window.scrollTo({ top: wanted, behavior: "instant" });
      if (Math.abs(window.scrollY - wanted) < 2 || Date.now() > until) wanted = null;
    };
    const to = place => { wanted = place; until = Date.now() + 10000; go(); };
    new ResizeObserver(go).observe(document.body);
    for (const kind of ["wheel", "touchstart", "pointerdown", "keydown"]) {
      document.addEventListener(kind, () => { wanted = null; }, { capture: true, passive: true });
    }
    document.addEventListener("scroll", () => {
      if (wanted !== null) return;
      here().at[tab] = window.scrollY;
      keep();
    }, { passive: true });
    new MutationObserver(() => {
      if (current() === tab || current() < 0) return;
      tab = here().tab = current();
      const bar = tabs[tab].getBoundingClientRect().top + window.scrollY - 12;
      to(here().at[tab] ?? Math.min(window.scrollY, bar));
      keep();
    }).observe(document.getElementById("tabs"), { subtree: true, attributes: true, attributeFilter: ["aria-selected"] });
    pip.back = () => {
      const { tab: last, at } = here();
      if (last !== tab) tabs[last]?.click();
      else if (at[tab]) to(at[tab]);
    };
  },
  // Gradio leaves the list of a field open that is left with Tab, and lets Tab stop at a list that scrolls.
  lists() {
    const listed = event => event.target.getAttribute?.("role") === "combobox" ? event.target : null;
    document.addEventListener("keydown", event => {
      const field = event.key === "Tab" && listed(event);
      if (field) document.getElementById(field.getAttribute("aria-controls"))?.setAttribute("tabindex", "-1");
    }, true);
    document.addEventListener("focusout", event => {
      const field = listed(event);
      if (field) setTimeout(() => {
        if (document.activeElement === field || field.getAttribute("aria-expanded") !== "true") return;
        field.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape", code: "Escape", bubbles: true }));
      });
    });
  },
  // The place of an answer. What stands there before anything is asked names its run, and may come once more, with
  // a refresh that was on its way: then what was answered meanwhile stays.
  answers(element, props, watch) {
    const place = element.querySelector(".answered");
    let first = null;
    const show = () => {
      const made = document.createElement("template");
      made.innerHTML = props.value || "";
      if (made.content.querySelector("[data-run]")) {
        if (made.innerHTML === first) return;
        first = made.innerHTML;
      }
      place.replaceChildren(made.content);
    };
    show();
    watch("value", show);
  },
  // Who reads an older line of the log stays there when a new one comes above it.
  log() {
    const place = document.getElementById("log");
    let top = 0, height = 0;
    document.addEventListener("scroll", event => {
      if (event.target.classList?.contains("log")) { top = event.target.scrollTop; height = event.target.scrollHeight; }
    }, true);
    new MutationObserver(() => {
      const log = place.querySelector(".log");
      if (log && top > 0) log.scrollTop = top + Math.max(0, log.scrollHeight - height);
    }).observe(place, { childList: true, subtree: true });
  },
  rows() {
    const open = (id, run) => {
      const dialog = document.getElementById(id);
      dialog.returnValue = "";
      dialog.dataset.run = run;
      dialog.showModal();
      return dialog;
    };
    const presses = {
      share: (button, run) => pip.copies(button, pip.link(run)),
      restore: (_, run) => pip.ask({ act: "restore", run }),
      edit: (button, run) => {
        const dialog = open("edit-run", run);
        dialog.querySelector("#edit-name").value = button.dataset.name;
        dialog.querySelector("#edit-note").value = button.dataset.note;
      },
      delete: (button, run) => { open("delete-run", run).querySelector("p b").textContent = `“${button.dataset.name}”`; },
    };
    document.addEventListener("click", event => {
      const button = event.target.closest("button[data-act]");
      if (button) presses[button.dataset.act](button, button.dataset.run);
    });
    document.addEventListener("close", event => {
      const dialog = event.target, act = dialog.returnValue, run = dialog.dataset.run;
      if (!act || !run) return;
      const told = { act, run };
      if (act === "edit") {
        told.name = dialog.querySelector("#edit-name").value;
        told.note = dialog.querySelector("#edit-note").value;
      }
      pip.ask(told);
    }, true);
  },
});
