// What htmx does not do by itself: it says when the page gets no answer.
"use strict";
const said = (old) => { document.getElementById("offline").hidden = !old; };
document.addEventListener("htmx:sendError", () => said(true));
document.addEventListener("htmx:timeout", () => said(true));
document.addEventListener("htmx:responseError", () => said(true));
document.addEventListener("htmx:afterOnLoad", () => said(false));
document.addEventListener("htmx:beforeOnLoad", (event) => {
  if (event.detail.xhr.status < 400) { said(false); }
});
