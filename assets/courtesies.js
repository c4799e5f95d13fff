// Small courtesies: what is pressed in a row of the table of runs, links and code that are copied.
Object.assign(window.pip, {
  async copied(button, text) {
    const was = button.textContent;
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Select and copy it";
    }
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
    let before = "", drawn = "";
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
      if (before === "live" && !live && document.hidden && localStorage.getItem("pip-studio-notify") === "1") {
        new Notification("PIP Studio", { body: `${words}. ${status.querySelector(".detail").textContent}` });
      }
      before = live ? "live" : state;
    };
    const asks = document.getElementById("notify");
    if (!("Notification" in window)) asks?.parentElement.remove();
    else asks?.setAttribute("aria-pressed", String(localStorage.getItem("pip-studio-notify") === "1" && Notification.permission === "granted"));
    new MutationObserver(look).observe(document.getElementById("status"), { childList: true, subtree: true });
    look();
  },
  async notify(button) {
    const on = button.getAttribute("aria-pressed") !== "true" && await Notification.requestPermission() === "granted";
    localStorage.setItem("pip-studio-notify", on ? "1" : "0");
    button.setAttribute("aria-pressed", String(on));
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
      if (button) pip.copied(button, button.closest("figure").querySelector("code").textContent);
    });
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
      share: (button, run) => pip.copied(button, pip.link(run)),
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
