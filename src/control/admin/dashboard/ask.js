// A question before what ends sessions. It names what it is about; Escape answers no.
import { $, set } from "./dom.js";

let deed = () => {};

// Asks whether `act` shall be done. Cancel has the focus, so that Enter pressed twice does nothing.
export function ask(question, consequence, label, act) {
  deed = act;
  set($("ask-title"), question);
  set($("ask-text"), consequence);
  set($("ask-yes"), label);
  $("ask").showModal();
}

$("ask-yes").addEventListener("click", () => {
  $("ask").close();
  deed();
});
for (const close of document.querySelectorAll("dialog [data-close]")) {
  close.addEventListener("click", () => close.closest("dialog").close());
}
