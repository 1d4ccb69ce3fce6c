"use strict";
// Follows the log of a study; without it the page reloads itself.
(() => {
  const log = document.querySelector("[data-log]"), said = document.querySelector("[data-said]");
  if (!log) return;
  const stream = new EventSource(log.dataset.log);
  let lost = false;
  log.scrollTop = log.scrollHeight;
  stream.addEventListener("log", (event) => {
    const below = log.scrollHeight - log.clientHeight - log.scrollTop < 40;
    log.append(JSON.parse(event.data).text);
    if (below) log.scrollTop = log.scrollHeight; // who reads further up is left there
  });
  stream.addEventListener("ended", () => { stream.close(); location.reload(); });
  stream.addEventListener("error", () => {
    lost = true;
    said.textContent = stream.readyState === EventSource.CLOSED
      ? "The log is not followed any more; load the page again."
      : "The server does not answer, trying again. The study goes on.";
  });
  // It would send the log from where the page began; and a new server knows no old form.
  stream.addEventListener("open", () => { if (lost) { stream.close(); location.reload(); } });
})();
