// The charts, drawn by Plotly. Each has its numbers in a table beside it, so here it is an image with a description.

// The library comes compressed; a browser without DecompressionStream shows the tables alone.
async function loadPlotly() {
  const packed = Uint8Array.from(atob(document.getElementById("plotly").textContent), (one) => one.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  const script = document.createElement("script");
  script.textContent = await new Response(stream).text();
  document.head.append(script);
}

const COLOURS = {
  light: {
    on: "#0b62c4",
    sleeps: "#00755a",
    spot: "#a84b00",
    api: "#8034a3",
    ink: "#16202c",
    soft: "#4d5a69",
    line: "#d5dbe2",
    card: "#ffffff",
  },
  dark: {
    on: "#6fb3ff",
    sleeps: "#47d1a8",
    spot: "#ffb366",
    api: "#d5a3f2",
    ink: "#e8edf2",
    soft: "#aab6c3",
    line: "#344250",
    card: "#18212b",
  },
};
const DASHES = { on: "solid", sleeps: "dash", spot: "dashdot", api: "dot" };
const MARKS = { on: "circle", sleeps: "square", spot: "diamond", api: "x" };
const darkness = matchMedia("(prefers-color-scheme: dark)");
const printing = { now: false };
const narrow = () => innerWidth < 640 && !printing.now;
const hues = () => (darkness.matches && !printing.now ? COLOURS.dark : COLOURS.light);

function draw(id, traces, layout, description) {
  const place = document.getElementById(id);
  place.setAttribute("role", "img");
  place.setAttribute("aria-label", description);
  place.style.minHeight = `${layout.height}px`;
  if (!window.Plotly) return;
  const hue = hues();
  const axis = { gridcolor: hue.line, linecolor: hue.soft, zeroline: false, automargin: true, fixedrange: true };
  const whole = {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: "system-ui, sans-serif", size: narrow() ? 12 : 13, color: hue.ink },
    margin: { l: 12, r: 16, t: 12, b: 12 },
    legend: { orientation: "h", x: 0, xanchor: "left", y: 1.02, yanchor: "bottom" },
    hoverlabel: { bgcolor: hue.card, bordercolor: hue.soft, font: { color: hue.ink } },
    width: printing.now ? 680 : undefined,
    ...layout,
    xaxis: { ...axis, ...layout.xaxis },
    yaxis: { ...axis, ...layout.yaxis },
  };
  Plotly.react(place, traces, whole, { displayModeBar: false, responsive: true });
}

// Whole requests at equal steps of a logarithmic axis.
function volumes(low, high, steps) {
  return Array.from({ length: steps + 1 }, (_, step) => Math.round(low * (high / low) ** (step / steps)));
}

const LINE_STEPS = 72;

function curves(state) {
  const { found, ways, api, apiCost } = state;
  const crossings = ways.map((way) => way.crossing).filter((one) => one && one.requests);
  const seen = [found.declared, found.most(1), ...crossings.map((one) => one.requests)].filter((one) => one > 0);
  const low = 10 ** Math.floor(Math.log10(Math.max(1, Math.min(...seen) / 4)));
  const high = Math.max(
    low * 10,
    Math.min(10 ** Math.ceil(Math.log10(Math.max(...seen) * 1.5)), found.most(found.terms.max_servers)),
  );
  const edges = Array.from({ length: found.terms.max_servers }, (_, i) => [
    found.most(i + 1),
    found.most(i + 1) + 1,
  ]).flat();
  const xs = [...new Set([...volumes(low, high, LINE_STEPS), ...edges.filter((x) => x > low && x < high)])].sort(
    (a, b) => a - b,
  );
  const lines = ways.map(({ host }) => ({ id: host.id, name: host.name, at: (x) => found.monthly(host, x) }));
  if (api) lines.push({ id: "api", name: api.name, at: (x) => found.apiMonthly(api, x) });
  for (const line of lines) line.ys = xs.map(line.at);
  const hue = hues();
  const traces = lines.map(({ id, name, ys }) => ({
    name,
    x: xs,
    y: ys.map((y) => (y === null ? null : y.toNumber())),
    customdata: ys.map((y) => (y === null ? "" : dollars(y))),
    mode: "lines",
    line: { color: hue[id], width: 2.5, dash: DASHES[id] },
    hovertemplate: `${name}: %{customdata}<extra></extra>`,
  }));
  const shown = ways.filter(({ crossing }) => crossing && crossing.requests >= low && crossing.requests <= high);
  if (shown.length) {
    traces.push({
      name: "break-even with the API",
      x: shown.map(({ crossing }) => crossing.requests),
      y: shown.map(({ crossing }) => crossing.monthly.toNumber()),
      mode: "markers",
      marker: {
        size: 12,
        color: hue.card,
        symbol: shown.map(({ host }) => MARKS[host.id]),
        line: { width: 2.5, color: shown.map(({ host }) => hue[host.id]) },
      },
      hovertemplate: "%{text}<extra></extra>",
      text: shown.map(
        ({ host, crossing }) => `${host.name} costs less from ${crossingText(host, crossing, " requests")}`,
      ),
    });
  }
  const top = Math.max(
    1,
    ...lines.filter((line) => line.id !== "api").flatMap((line) => line.ys.map((y) => y?.toNumber() ?? 0)),
    apiCost?.toNumber() ?? 0,
  );
  const ceiling = Math.log10(top * 3);
  const here = found.declared;
  const layout = {
    height: 430,
    hovermode: "x unified",
    xaxis: {
      type: "log",
      range: [Math.log10(low), Math.log10(high)],
      title: { text: "requests a month" },
      tickvals: decades(low, high),
      ticktext: decades(low, high).map(short),
    },
    yaxis: {
      type: "log",
      range: [ceiling - 3.5, ceiling],
      title: { text: "US dollars a month" },
      tickprefix: "$",
      tickformat: ",",
      dtick: 1,
    },
    shapes:
      here >= low && here <= high
        ? [
            {
              type: "line",
              x0: here,
              x1: here,
              yref: "paper",
              y0: 0,
              y1: 1,
              line: { color: hue.soft, width: 1.5, dash: "dot" },
            },
          ]
        : [],
    annotations:
      here >= low && here <= high
        ? [
            {
              x: Math.log10(here),
              y: 1,
              yref: "paper",
              text: "your traffic",
              showarrow: false,
              xanchor: "left",
              yanchor: "top",
              xshift: 4,
              font: { color: hue.soft },
            },
          ]
        : [],
  };
  const said = ways.map(({ host, cost }) => `${host.name} ${cost ? dollars(cost.expected) : "not compared"}`);
  if (api) said.push(`${api.name} ${dollars(apiCost)}`);
  draw(
    "curves",
    traces,
    layout,
    `Lines of cost a month by requests a month. At ${count(here)} requests: ${said.join(", ")}.`,
  );
  return { low, high, lines };
}

function decades(low, high) {
  const found = [];
  for (let value = 10 ** Math.ceil(Math.log10(low) - 1e-9); value <= high * 1.0001; value *= 10) found.push(value);
  return found;
}

// A colour with a pattern, so that neither has to be told by the colour alone.
const filled = (color, shape) => ({
  color,
  pattern: { shape, bgcolor: color, fgcolor: hues().card, size: 6, solidity: 0.25 },
});

// The cheapest offer of each GPU and platform as bars with their range.
function bars(rows) {
  const seen = new Map();
  for (const row of rows) if (row.best && !seen.has(offerName(row.offer))) seen.set(offerName(row.offer), row);
  const shown = [...seen].slice(0, 10).reverse();
  const hue = hues();
  const traces = [
    ["on", "Always on"],
    ["sleeps", "Sleeps when idle"],
    ["spot", "Interruptible"],
  ]
    .map(([id, name]) => {
      const mine = shown.filter(([, row]) => row.way === id);
      return {
        type: "bar",
        orientation: "h",
        name,
        y: mine.map(([label]) => label),
        x: mine.map(([, row]) => row.best.expected.toNumber()),
        text: mine.map(([, row]) => dollars(row.best.expected)),
        textposition: "outside",
        cliponaxis: false,
        marker: filled(hue[id], { on: "", sleeps: "/", spot: "x" }[id]),
        hovertemplate: "%{y}: %{text} a month<extra></extra>",
      };
    })
    .filter((trace) => trace.x.length);
  const longest = Math.max(1, ...shown.map(([, row]) => row.best.expected.toNumber()));
  const layout = {
    height: 110 + 34 * shown.length,
    barmode: "overlay",
    bargap: 0.35,
    showlegend: true,
    xaxis: {
      range: [0, longest * (narrow() ? 1.6 : 1.2)],
      title: { text: "US dollars a month" },
      tickprefix: "$",
      tickformat: ",",
      nticks: narrow() ? 4 : 6,
    },
    yaxis: {
      categoryorder: "array",
      categoryarray: shown.map(([label]) => label),
      gridcolor: "rgba(0,0,0,0)",
      ticklabelstandoff: 6,
    },
  };
  const said = [...shown].reverse().map(([label, row]) => `${label} ${dollars(row.best.expected)}`);
  draw("bars", traces, layout, `Bars of the cheapest offers, US dollars a month: ${said.join("; ")}.`);
}

// What has been spent by the end of each month.
function spending(months, lines, budget) {
  const hue = hues();
  const names = months.map((_, index) => `month ${index + 1}`);
  const traces = lines.map(({ id, name, costs }) => {
    const sums = running(costs);
    return {
      name,
      x: names,
      y: sums.map((sum) => sum?.toNumber() ?? null),
      customdata: sums.map((sum) => (sum ? dollars(sum) : "")),
      mode: "lines+markers",
      marker: { symbol: MARKS[id], size: 9, color: hue[id] },
      line: { color: hue[id], width: 2.5, dash: DASHES[id] },
      hovertemplate: `${name}: %{customdata}<extra></extra>`,
    };
  });
  if (budget) {
    const sums = running(months.map(() => budget));
    traces.push({
      name: "budget",
      x: names,
      y: sums.map((sum) => sum.toNumber()),
      customdata: sums.map(dollars),
      mode: "lines",
      line: { color: hue.soft, width: 1.5, dash: "longdash" },
      hovertemplate: "budget: %{customdata}<extra></extra>",
    });
  }
  const layout = {
    height: 340,
    hovermode: "x unified",
    xaxis: { type: "category" },
    yaxis: { title: { text: "US dollars spent so far" }, tickprefix: "$", tickformat: ",", rangemode: "tozero" },
  };
  const said = lines.map(({ name, costs }) => `${name} ${dollars(running(costs)[5])}`);
  draw(
    "months-chart",
    traces,
    layout,
    `Lines of what has been spent by the end of each month. After six months: ${said.join(", ")}.`,
  );
}

// Sums so far; null from the first month whose cost isn't known.
function running(costs) {
  let sum = ZERO;
  return costs.map((cost) => {
    sum = cost === null || sum === null ? null : sum.plus(cost);
    return sum;
  });
}

const MOST_GPUS = 12;

// The GPUs of the cheapest offers, the smallest first.
function memory() {
  const cheapest = [...new Set(data.offers.map((offer) => offer.gpu))].slice(0, MOST_GPUS);
  const shown = data.gpus.filter((gpu) => gpu.ok && cheapest.includes(gpu.name)).reverse();
  const hue = hues();
  const parts = [
    ["weights", "the model itself", hue.on, ""],
    ["working", "room to work", hue.spot, "/"],
    ["cache", "room for conversations", hue.sleeps, "."],
  ];
  const traces = parts.map(([key, name, color, shape]) => ({
    type: "bar",
    orientation: "h",
    name,
    y: shown.map((gpu) => gpu.name),
    x: shown.map((gpu) => gpu[key]),
    marker: filled(color, shape),
    hovertemplate: `%{y}: %{x:.1f} GiB ${name}<extra></extra>`,
  }));
  traces.push({
    type: "bar",
    orientation: "h",
    name: "kept free",
    y: shown.map((gpu) => gpu.name),
    x: shown.map((gpu) => Math.max(0, gpu.memory - gpu.weights - gpu.working - gpu.cache)),
    marker: { color: "rgba(0,0,0,0)", line: { color: hue.soft, width: 1 } },
    hovertemplate: "%{y}: %{x:.1f} GiB kept free<extra></extra>",
  });
  const layout = {
    height: 110 + 28 * shown.length,
    barmode: "stack",
    bargap: 0.35,
    xaxis: { title: { text: "GPU memory, GiB" } },
    yaxis: { gridcolor: "rgba(0,0,0,0)", ticklabelstandoff: 6 },
  };
  draw("memory", traces, layout, "Bars of what fills each GPU's memory; the table below has the same by GPU.");
}
