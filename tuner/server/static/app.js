// The script of all web pages: updates live pages, and reads a chosen job file into its text field.
"use strict";

(() => {
  const seconds = Number(document.body.dataset.refresh || 0);

  // Replaces each part of the page that changed, unless the visitor is using it.
  const update = (text) => {
    const fresh = new DOMParser().parseFromString(text, "text/html");
    for (const old of document.querySelectorAll("[data-live]")) {
      const part = fresh.getElementById(old.id);
      if (part === null || part.outerHTML === old.outerHTML) continue;
      if (old.contains(document.activeElement) || old.querySelector("details[open]")) continue;
      const scrolled = [...old.querySelectorAll(".scroll, .events")].map((box) => [box.scrollLeft, box.scrollTop]);
      old.replaceWith(document.adoptNode(part));
      const boxes = document.getElementById(part.id).querySelectorAll(".scroll, .events");
      boxes.forEach((box, k) => scrolled[k] && box.scrollTo(...scrolled[k]));
    }
    if (!fresh.body.dataset.refresh) delete document.body.dataset.refresh;
  };

  const warn = (words) => {
    let note = document.getElementById("stale");
    if (words === "") {
      note?.remove();
    } else if (note === null) {
      note = Object.assign(document.createElement("div"), { id: "stale", className: "stale", textContent: words });
      note.setAttribute("role", "status");
      document.body.append(note);
    }
  };

  const refresh = async () => {
    if (!document.hidden) {
      try {
        const answer = await fetch(location.href, { headers: { Accept: "text/html" }, redirect: "manual" });
        if (answer.type === "opaqueredirect") {
          location.reload(); // The session has ended.
          return;
        }
        if (answer.ok) update(await answer.text());
        warn(answer.ok ? "" : "The server cannot answer at present; this page may be out of date.");
      } catch {
        warn("The server cannot be reached; this page may be out of date.");
      }
    }
    if (document.body.dataset.refresh) setTimeout(refresh, 1000 * seconds);
  };
  if (seconds > 0) setTimeout(refresh, 1000 * seconds);

  for (const chooser of document.querySelectorAll("input[data-fills]")) {
    chooser.addEventListener("change", async () => {
      const file = chooser.files[0];
      if (file === undefined) return;
      document.getElementById(chooser.dataset.fills).value = await file.text();
      const name = document.getElementById(chooser.dataset.names);
      if (name.value === "") name.value = file.name.replace(/\.[^.]*$/, "");
      chooser.value = ""; // The text counts, which the visitor may change.
    });
  }

  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    for (const open of document.querySelectorAll("details.confirm[open]")) {
      open.open = false;
      open.querySelector("summary").focus();
    }
  });
})();
