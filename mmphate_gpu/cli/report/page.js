// The buttons above the interactive picture show one frame each. A frame is loaded when it is first shown.
"use strict";
const buttons = document.querySelectorAll("button[data-shows]");
const show = (button) => {
  for (const other of buttons) other.setAttribute("aria-pressed", String(other === button));
  for (const frame of document.querySelectorAll("[data-size]")) {
    frame.hidden = frame.dataset.size !== button.dataset.shows;
    if (!frame.hidden && frame.dataset.srcdoc && !frame.hasAttribute("srcdoc")) {
      frame.setAttribute("srcdoc", frame.dataset.srcdoc);
    }
  }
};
for (const button of buttons) button.addEventListener("click", () => show(button));
