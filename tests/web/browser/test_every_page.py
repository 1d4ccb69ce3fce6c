"""Every page in a real browser: nothing goes wrong, and it is built as a reader expects."""

#: What a page must not be.
FAULTS = r"""() => {
  const all = (what) => [...document.querySelectorAll(what)];
  const levels = all("h1, h2, h3, h4, h5, h6").map((h) => Number(h.tagName[1]));
  const said = (el) => (el.getAttribute("aria-label") || el.labels?.[0]?.textContent || "").trim();
  const faults = [];
  const fault = (what, el) => faults.push(`${what} ${el?.outerHTML?.slice(0, 120) ?? ""}`);
  if (document.documentElement.lang !== "en") fault("no language");
  if (all("main").length !== 1) fault("not one main part");
  if (levels[0] !== 1 || levels.filter((n) => n === 1).length !== 1) fault(`headings ${levels}`);
  levels.forEach((n, i) => { if (i && n > levels[i - 1] + 1) fault(`headings ${levels}`); });
  for (const el of all("table")) if (!el.caption?.textContent.trim()) fault("no caption", el);
  for (const el of all("th")) if (!el.scope) fault("no scope", el);
  for (const el of all("img")) if (!el.alt || !el.naturalWidth) fault("no picture or words", el);
  for (const el of all("input:not([type=hidden]), select")) if (!said(el)) fault("no label", el);
  for (const el of all("button, a"))
    if (!(el.getAttribute("aria-label") || el.textContent).trim()) fault("says nothing", el);
  for (const el of all(".canvas"))
    if (el.getAttribute("role") !== "img" || !/, steps \d+ to \d+: /.test(said(el)))
      fault("a chart without words", el);
  return faults;
}"""


def test_it_opens_without_a_fault(visit, drawn, address):
    page = visit(address, height=6000)
    drawn(page)
    page.wait_for_load_state("networkidle")
    assert page.title().endswith(" · Thalweg")
    assert page.evaluate(FAULTS) == []
    if "alert" in address:
        assert page.get_by_role("heading", level=1).inner_text() == "<script>alert(1)<b>"
    if address == "/e/conservation-law":
        assert "nearest" in page.locator(".said").inner_text()
        assert all("404" in said for said in page.watch.found)
        page.watch.found.clear()


def test_a_fault_is_found(visit, server):
    """The watch sees what it is there for."""
    page = visit("/topics")
    page.evaluate(
        """async () => {
          document.querySelector("caption").remove();
          document.body.append(Object.assign(document.createElement("script"), {text: "alert(1)"}));
          document.body.append(Object.assign(new Image(), {src: "http://192.0.2.1/spy.png"}));
          await fetch("/nothing");
        }"""
    )
    assert page.evaluate(FAULTS)[0].startswith("no caption")
    found = "\n".join(page.watch.found)
    assert found.count("Content Security Policy") >= 2 and f"{server.base}nothing: 404" in found
    page.watch.found.clear()
