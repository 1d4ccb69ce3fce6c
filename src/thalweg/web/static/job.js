"use strict";
// Follows the log of a study; without it the page reloads itself.
(() => {
  const log = document.querySelector("[data-log]");
  if (!log) return;
  const stream = new EventSource(log.dataset.log);
  stream.addEventListener("log", (event) => {
    log.append(JSON.parse(event.data).text);
    log.scrollTop = log.scrollHeight;
  });
  stream.addEventListener("ended", () => { stream.close(); location.reload(); });
  // A new connection would begin where the page did, and repeat what is shown.
  stream.addEventListener("error", () => { stream.close(); setTimeout(() => location.reload(), 3000); });
})();
