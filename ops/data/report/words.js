// Numbers and sentences for people.

const grouped = (text) => text.replace(/\B(?=(\d{3})+(?!\d))/g, ",");
const count = (number) => grouped(String(number));

// Three digits of a number that is itself an estimate of time.
function about(number) {
  const digits = String(number).length;
  if (digits <= 3) return `about ${number}`;
  const unit = 10 ** (digits - 3);
  return `about ${count(Math.round(number / unit) * unit)}`;
}

function dollars(amount) {
  if (amount === null) return "not known";
  const text = amount.toFixed(2);
  const [whole, cents] = text.replace("-", "").split(".");
  return `${text.startsWith("-") ? "-" : ""}$${grouped(whole)}.${cents}`;
}

// A unit price with all its digits, but at least cents.
function unitDollars(text) {
  const [whole, after = ""] = text.split(".");
  return `$${grouped(whole)}.${after.replace(/0+$/, "").padEnd(2, "0")}`;
}

function short(number) {
  const [size, unit] = number >= 1e6 ? [1e6, "M"] : number >= 1e3 ? [1e3, "k"] : [1, ""];
  return `${Number((number / size).toPrecision(3))}${unit}`;
}

const duration = (days) => (days === 1 ? "1 day" : `${days} days`);

const daysBetween = (from, to) => Math.round((Date.parse(to) - Date.parse(from)) / 864e5);

const servers = (number) => (number === 1 ? "1 server" : `${number} servers`);

const offerName = ({ count: gpus, gpu, platform }) => `${gpus > 1 ? `${gpus} x ` : ""}${gpu} on ${platform}`;

const WORDS = [
  [
    "Token",
    "A piece of a word. Models read and write tokens, and APIs charge by them; 100 tokens are about 75 English words.",
  ],
  ["Request", "One question with its answer."],
  ["GPU", "The part of a server that runs the model. The model has to fit into the GPU's own memory."],
  ["Always on", "A server that is rented day and night. It costs the same whether or not anybody asks."],
  [
    "Sleeps when idle",
    "Servers that stop when nobody asks and start again at the next request, which waits for that start. " +
      "What is billed is the time they are up: answering, waiting for the next request, and starting.",
  ],
  ["Interruptible", "Spare capacity at a discount (also called spot). The platform may take it back at any minute."],
  [
    "API paid by the token",
    "A model that somebody else runs. There is no server to look after; " +
      "each request is charged, and your text goes to that vendor.",
  ],
  ["Break-even", "The number of requests a month from which one way costs less than another."],
  [
    "Live, snapshot, user",
    "Where a price comes from: asked of the platform when this report was made; " +
      "from the dated list that comes with vllm-anywhere; or from a price file of your own.",
  ],
  ["Range", "Half to twice the declared requests, and, where a price is not fixed, its lowest to its highest value."],
];

// The ways of hosting that can be recommended.
const usable = ({ ways, plan }) => ways.filter((way) => way.cost && (plan.spot || !way.host.spot));

// Which way of serving does it for the least, and why: {answer, because}.
function verdict(state) {
  const { found, api, apiCost, ways, plan } = state;
  const best = usable(state).reduce((a, b) => (a && !b.cost.expected.less(a.cost.expected) ? a : b), null);
  const volume = `${count(found.declared)} requests a month`;
  if (!best && !api)
    return { answer: "Nothing on offer can serve this.", because: "The list below says why each offer was refused." };
  if (!best) {
    const why = ways.some((way) => plan.spot || !way.host.spot)
      ? `${volume} would take more than ${found.terms.max_servers} servers, which this report does not compare.`
      : "No server on offer fits the model and the rules of this deployment; the list below says why.";
    return { answer: `Pay ${api.name} by the token: ${dollars(apiCost)} a month.`, because: why };
  }
  const own = `${offerName(best.host.offer)}, ${best.host.name.toLowerCase()}`;
  const cost = dollars(best.cost.expected);
  if (!api)
    return {
      best,
      answer: `Rent ${own}: ${cost} a month.`,
      because: `For ${volume}; no API of the table takes prompts of this length.`,
    };
  const { crossing } = best;
  const from = crossing
    ? `from ${crossingText(best.host, crossing, " requests a month")}`
    : "at no volume that was compared";
  if (apiCost.less(best.cost.expected)) {
    return {
      best,
      answer: `Pay ${api.name} by the token: ${dollars(apiCost)} a month.`,
      because:
        `If the model has to be your own, the cheapest is ${own}: ${cost} a month. ` +
        `It would cost less than ${api.name} ${from}; you have ${count(found.declared)}.`,
    };
  }
  return {
    best,
    answer: `Rent ${own}: ${cost} a month.`,
    because: `${api.name} would cost ${dollars(apiCost)} for the same ${volume}. Your own server costs less ${from}.`,
  };
}

function crossingText(host, crossing, unit = "") {
  const text = `${host.scales ? about(crossing.requests) : count(crossing.requests)}${unit}`;
  return crossing.servers > 1 ? `${text} (${crossing.servers} servers)` : text;
}
