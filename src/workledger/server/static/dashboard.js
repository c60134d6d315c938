// What the pages do beyond HTML. Everything works without it, except that nothing moves by itself.
(() => {
  "use strict";

  const storage = {
    get(key) { try { return localStorage.getItem(key); } catch { return null; } },
    set(key, value) { try { localStorage.setItem(key, value); } catch { /* private windows */ } },
  };

  // Buttons that need JavaScript are hidden until it runs.
  const reveal = (root) => {
    for (const button of root.querySelectorAll("button[data-copy][hidden], button[data-toggle][hidden]")) button.hidden = false;
  };

  // -- live updates: on, unless the reader paused them or looks elsewhere --------------------------------------
  let isLive = storage.get("workledger-live") !== "off";
  const showLive = () => {
    const button = document.getElementById("live-switch");
    if (!button) return;
    button.hidden = !document.getElementById("live");
    button.setAttribute("aria-pressed", String(isLive));
    button.querySelector(".label").textContent = isLive ? "Live" : "Paused";
  };
  const isPoll = (event) => event.detail.ctx?.sourceElement?.id === "live";
  const isSelecting = () => {
    const selection = getSelection();
    return selection !== null && !selection.isCollapsed && document.getElementById("live")?.contains(selection.anchorNode);
  };
  document.addEventListener("htmx:before:request", (event) => {
    if (isPoll(event) && (!isLive || document.hidden || isSelecting())) event.preventDefault();
  });

  // -- the filter form: an empty field is no filter -----------------------------------------------------------------
  document.addEventListener("htmx:config:request", (event) => {
    const { sourceElement, request } = event.detail.ctx;
    if (sourceElement.id !== "filters") return;
    for (const [name, value] of [...request.body]) if (!String(value).trim()) request.body.delete(name);
  });

  // -- away and back ------------------------------------------------------------------------------------------------
  const showOffline = (isOffline) => { document.getElementById("offline").hidden = !isOffline; };
  document.addEventListener("htmx:after:request", (event) => showOffline(event.detail.ctx.response.status >= 500));
  document.addEventListener("htmx:error", () => showOffline(true));

  // -- after every swap ---------------------------------------------------------------------------------------------
  document.addEventListener("htmx:after:swap", () => reveal(document));

  // -- a link to something folded unfolds it --------------------------------------------------------------------------
  const unfold = () => {
    const id = decodeURIComponent(location.hash.slice(1));
    const target = id && document.getElementById(id);
    if (!target) return;
    for (let node = target; node; node = node.parentElement) if (node instanceof HTMLDetailsElement) node.open = true;
    target.scrollIntoView({ block: "start" });
  };
  addEventListener("hashchange", unfold);

  // -- clicks and keys ------------------------------------------------------------------------------------------------
  const copy = async (button) => {
    await navigator.clipboard.writeText(button.dataset.copy);
    button.classList.add("done");
    setTimeout(() => button.classList.remove("done"), 1200);
  };
  const toggle = (button) => {
    const folded = [...document.querySelectorAll(`${button.dataset.toggle} > details, ${button.dataset.toggle} > li details`)];
    const open = folded.some((item) => !item.open);
    for (const item of folded) item.open = open;
    button.textContent = open ? "Fold all" : "Expand all";
  };
  document.addEventListener("click", (event) => {
    const button = event.target.closest?.("button");
    if (!button) return;
    if (button.dataset.copy !== undefined) copy(button);
    else if (button.dataset.toggle) toggle(button);
    else if (button.id === "live-switch") {
      isLive = !isLive;
      storage.set("workledger-live", isLive ? "on" : "off");
      showLive();
    }
  });
  document.addEventListener("keydown", (event) => {
    const search = document.getElementById("q");
    const isTyping = event.target.closest?.("input, textarea, select");
    if (event.key === "/" && search && !isTyping && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      search.focus();
      search.select();
    }
  });

  document.addEventListener("DOMContentLoaded", () => {
    document.documentElement.classList.add("js");
    reveal(document);
    showLive();
    unfold();
  });
})();
