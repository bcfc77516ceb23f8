"use strict";
(() => {
  const host = (url) => { try { return new URL(url).host; } catch { return ""; } };
  const files = JSON.parse(document.getElementById("files").textContent).map(
    ([path, type, media, size, url, source, checksum, time, thumbnail, error]) =>
      ({ path, type, media, size, url, source, checksum, time: time || "", thumbnail, error,
         host: source ? host(source) : "",
         text: [path, media, source, error].join(" ").toLowerCase() }));
  const body = document.querySelector("#table tbody");
  const filter = document.getElementById("filter");
  const type = document.getElementById("type");
  const shown = document.getElementById("shown");
  const more = document.getElementById("more");
  const STEP = 200; // rows added at a time, so that 100,000 files do not freeze the page
  const natural = new Intl.Collator(undefined, { numeric: true }).compare; // b9 before b10
  let column = "path", direction = 1, found = files, limit = STEP;

  const size = (bytes) => {
    const units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit = 0, value = bytes;
    while (value >= 1024 && unit < 4) { value /= 1024; unit += 1; }
    return (unit ? value.toFixed(1) : value) + " " + units[unit];
  };
  const relative = (path) => "./" + path.split("/").map(encodeURIComponent).join("/");
  const add = (where, kind, text, name) => {
    const made = document.createElement(kind);
    if (name) made.className = name;
    if (text) made.textContent = text;
    where.append(made);
    return made;
  };
  const link = (where, href, text) => {
    const made = add(where, "a", text);
    made.href = href;
    return made;
  };
  const show_file = (file) => {
    const row = body.insertRow();
    const place = file.error ? file.source : file.url || relative(file.path);
    const preview = add(row, "td", "", "preview");
    if (file.thumbnail) {
      const image = add(link(preview, place, ""), "img");
      image.alt = "";
      image.src = "data:image/webp;base64," + file.thumbnail;
    } else if (file.type === "image") {
      link(preview, place, file.media.replace("image/", "") + " " + size(file.size));
    }
    const name = add(row, "td");
    if (place) link(name, place, file.path); else name.textContent = file.path;
    if (file.error) add(name, "span", file.error, "meta error");
    if (file.source && !file.error) link(add(name, "span", "", "meta"), file.source, file.source);
    if (file.checksum) add(name, "span", file.checksum, "meta");
    add(row, "td", file.type).title = file.media;
    add(row, "td", file.host);
    add(row, "td", file.time.slice(0, 19).replace("T", " "), "time");
    const bytes = add(row, "td", file.error ? "" : size(file.size), "number");
    bytes.title = file.size.toLocaleString() + " bytes";
  };
  const show = () => {
    for (let i = body.rows.length; i < Math.min(limit, found.length); i += 1) show_file(found[i]);
    shown.textContent = found.length.toLocaleString() + " of " + files.length.toLocaleString();
    more.hidden = body.rows.length >= found.length;
  };
  const refresh = () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    found = files.filter((file) => (!type.value || file.type === type.value) &&
      words.every((word) => file.text.includes(word)));
    const compare = column === "size" ? (a, b) => a.size - b.size
      : (a, b) => natural(a[column], b[column]);
    found.sort((a, b) => direction * compare(a, b) || natural(a.path, b.path));
    body.replaceChildren();
    limit = STEP;
    show();
  };
  for (const button of document.querySelectorAll("th button")) {
    button.addEventListener("click", () => {
      direction = button.dataset.column === column ? -direction : 1;
      column = button.dataset.column;
      for (const head of document.querySelectorAll("th")) head.removeAttribute("aria-sort");
      button.parentElement.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
      refresh();
    });
  }
  filter.addEventListener("input", refresh);
  type.addEventListener("change", refresh);
  more.addEventListener("click", () => { limit += STEP; show(); });
  refresh();
})();
