// Elements and tables.

const byId = (id) => document.getElementById(id);

// An element; null and false among the children are left out.
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes))
    if (value !== null && value !== false) element.setAttribute(name, value);
  element.append(...children.flat().filter((child) => child !== null && child !== false));
  return element;
}

const link = (url, text) => (url ? make("a", { href: url, rel: "noreferrer" }, text) : text);

// Columns are {head, n: numbers, wide}; a row is its cells, or {cells, best}. The first cell is the row's head.
function fill(table, columns, rows, { caption = "", foot = null } = {}) {
  const cell = (tag, value, column, more = {}) =>
    make(tag, { class: column.n ? "n" : column.wide ? "wide" : null, ...more }, value ?? "–");
  const line = (cells) =>
    cells.map((value, i) => (i ? cell("td", value, columns[i]) : cell("th", value, columns[i], { scope: "row" })));
  table.replaceChildren(
    ...(caption ? [make("caption", {}, caption)] : []),
    make(
      "thead",
      {},
      make(
        "tr",
        {},
        columns.map((column) => cell("th", column.head, column, { scope: "col" })),
      ),
    ),
    make(
      "tbody",
      {},
      rows.map((row) => make("tr", { class: row.best ? "best" : null }, line(row.cells ?? row))),
    ),
    ...(foot ? [make("tfoot", {}, make("tr", {}, line(foot)))] : []),
  );
}
