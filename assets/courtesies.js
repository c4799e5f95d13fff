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
