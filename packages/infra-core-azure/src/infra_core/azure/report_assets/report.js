"use strict";
(() => {
  const files = JSON.parse(document.getElementById("files").textContent);
  const body = document.querySelector("#table tbody");
  const filter = document.getElementById("filter");
  const type = document.getElementById("type");
  const shown = document.getElementById("shown");
  const more = document.getElementById("more");
  const STEP = 200; // rows added at a time, so that 100,000 files do not freeze the page
  const compare = new Intl.Collator(undefined, { numeric: true }).compare;
  let column = 0, direction = 1, found = files, limit = STEP;

  const size = (bytes) => {
    const units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit = 0, value = bytes;
    while (value >= 1024 && unit < 4) { value /= 1024; unit += 1; }
    return (unit ? value.toFixed(1) : value) + " " + units[unit];
  };
  const relative = (path) => "./" + path.split("/").map(encodeURIComponent).join("/");
  const cell = (row, text, kind) => {
    const made = row.insertCell();
    if (kind) made.className = kind;
    if (text !== undefined) made.textContent = text;
    return made;
  };
  const preview = (where, path, url, content) => {
    const image = document.createElement("img");
    image.alt = "";
    image.loading = "lazy";
    image.onerror = () => { // not beside this page: take the blob, or show nothing
      if (url && image.src !== url) image.src = url; else image.remove();
    };
    image.src = content || relative(path);
    where.append(image);
  };
  const add = (file) => {
    const [path, kind, media, bytes, url, checksum, modified, content] = file;
    const row = body.insertRow();
    const first = cell(row, undefined, "preview");
    if (kind === "image") preview(first, path, url, content);
    const name = cell(row);
    const link = document.createElement("a");
    link.href = url || relative(path);
    link.textContent = path;
    name.append(link);
    for (const extra of [checksum, modified]) {
      if (extra) {
        const note = document.createElement("span");
        note.className = "meta";
        note.textContent = extra;
        name.append(note);
      }
    }
    cell(row, kind);
    cell(row, media);
    cell(row, size(bytes), "number").title = bytes.toLocaleString() + " bytes";
  };
  const show = () => {
    for (let i = body.rows.length; i < Math.min(limit, found.length); i += 1) add(found[i]);
    shown.textContent = found.length.toLocaleString() + " of " + files.length.toLocaleString();
    more.hidden = body.rows.length >= found.length;
  };
  const refresh = () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    found = files.filter((file) => (!type.value || file[1] === type.value) &&
      words.every((word) => (file[0] + " " + file[2]).toLowerCase().includes(word)));
    found.sort((a, b) => direction *
      (column === 3 ? a[3] - b[3] : compare(a[column], b[column])) || compare(a[0], b[0]));
    body.replaceChildren();
    limit = STEP;
    show();
  };
  for (const button of document.querySelectorAll("th button")) {
    button.addEventListener("click", () => {
      const chosen = Number(button.dataset.column);
      direction = chosen === column ? -direction : 1;
      column = chosen;
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
