// Opens folds for printing and for links into them; marks the current section in the contents.
"use strict";
(() => {
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    for (const fold of opened) fold.open = true;
  });
  addEventListener("afterprint", () => {
    for (const fold of opened) fold.open = false;
    opened = [];
  });

  // Not every browser opens a closed fold for a link into it.
  function reveal() {
    const target = document.getElementById(location.hash.slice(1));
    let fold = target?.closest("details:not([open])");
    if (!fold) return;
    for (; fold; fold = fold.parentElement.closest("details:not([open])")) fold.open = true;
    target.scrollIntoView();
  }
  addEventListener("hashchange", reveal);
  reveal();

  const links = new Map();
  for (const link of document.querySelectorAll(".contents > ol > li > a")) {
    const target = document.getElementById(link.hash.slice(1));
    if (target) links.set(target, link);
  }
  const visible = new Set();
  const observer = new IntersectionObserver((entries) => {
    for (const entry of entries) visible[entry.isIntersecting ? "add" : "delete"](entry.target);
    let found = false;
    for (const [target, link] of links) {
      if (!found && visible.has(target)) {
        link.setAttribute("aria-current", "true");
        found = true;
      } else link.removeAttribute("aria-current");
    }
  }, { rootMargin: "0px 0px -60% 0px" });
  for (const target of links.keys()) observer.observe(target);
})();
