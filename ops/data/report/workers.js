// How long workers that scale to zero are up: `serving/scale_to_zero.py`, step by step. Times are floats, and what
// leaves for a price is whole seconds, so a last bit that a logarithm rounds otherwise moves no cent.

// A load is {rate, service, idle, boot, slots, most, always}: requests a second, seconds, requests a worker answers
// together, most workers, workers always up. What it gives is {workers, always, starts}.
function awake(load) {
  const { rate, always } = load;
  if (rate <= 0) return { workers: always, always, starts: 0 };
  if (rate * load.service >= load.most * load.slots) return { workers: load.most, always, starts: 0 };
  if (load.most > Math.max(1, always) && needsAnother(load)) return replayed(load);
  return always ? { workers: always, always, starts: 0 } : onlyWorker(load);
}

function onlyWorker({ rate, service, idle, boot, slots }) {
  const empty = emptyShare(rate * service, slots);
  if (rate * (service + idle) > 600) return { workers: 0 + (1 - empty) + empty, always: 0, starts: 0 };
  const window = Math.exp(rate * idle);
  const perSlot = (rate * service) / slots;
  const waiting = Math.max(0, rate * boot + 1 - slots);
  const workOff = (waiting * service) / slots / (1 - perSlot);
  const cycle = boot + workOff + window / empty / rate;
  const quiet = (window - 1) / rate;
  const answering = cycle - quiet - boot - 1 / rate;
  return { workers: answering / cycle + quiet / cycle + boot / cycle, always: 0, starts: 1 / cycle };
}

function emptyShare(offered, slots) {
  if (slots > offered + 40 * Math.sqrt(offered) + 40) return Math.exp(-offered);
  const logs = [];
  for (let i = 0; i < slots; i += 1) logs.push(i * Math.log(offered) - logFactorial(i));
  logs.push(slots * Math.log(offered) - logFactorial(slots) - Math.log(1 - offered / slots));
  const top = Math.max(...logs);
  return Math.exp(-top) / preciseSum(logs.map((one) => Math.exp(one - top)));
}

function logFactorial(n) {
  if (n < 16) {
    let product = 1;
    for (let i = 2; i <= n; i += 1) product *= i;
    return Math.log(product);
  }
  const x = n + 1;
  const series = 1 / 12 - (1 / 360 - (1 / 1260 - (1 / 1680 - 1 / 1188 / x ** 2) / x ** 2) / x ** 2) / x ** 2;
  return (x - 0.5) * Math.log(x) - x + 0.5 * Math.log(2 * Math.PI) + series / x;
}

function preciseSum(numbers) {
  let sum = 0;
  let lost = 0;
  for (const one of numbers) {
    const next = sum + one;
    lost += Math.abs(sum) >= Math.abs(one) ? sum - next + one : one - next + sum;
    sum = next;
  }
  return sum + lost;
}

const NEGLIGIBLE = 1e-3;

function needsAnother(load) {
  const held = load.always ? load.service : load.service + load.boot;
  const slots = Math.max(1, load.always) * load.slots;
  const overflows = load.rate * blocked(load.rate * held, slots);
  return overflows * (load.service + load.idle + load.boot) > NEGLIGIBLE;
}

function blocked(offered, slots) {
  let share = 1;
  for (let taken = 1; taken <= slots; taken += 1) {
    share = (offered * share) / (taken + offered * share);
    if (share < 1e-12) break;
  }
  return share;
}

// Python's generator (MT19937) from a whole number as its seed.
function generator(seed) {
  const state = new Uint32Array(624);
  state[0] = 19650218;
  for (let i = 1; i < 624; i += 1) {
    state[i] = Math.imul(1812433253, state[i - 1] ^ (state[i - 1] >>> 30)) + i;
  }
  let at = 1;
  const next = () => {
    at += 1;
    if (at === 624) {
      state[0] = state[623];
      at = 1;
    }
  };
  const before = () => state[at - 1] ^ (state[at - 1] >>> 30);
  for (let i = 0; i < 624; i += 1, next()) state[at] = (state[at] ^ Math.imul(before(), 1664525)) + seed;
  for (let i = 0; i < 623; i += 1, next()) state[at] = (state[at] ^ Math.imul(before(), 1566083941)) - at;
  state[0] = 0x80000000;
  let used = 624;
  const word = () => {
    if (used === 624) {
      for (let i = 0; i < 624; i += 1) {
        const bits = (state[i] & 0x80000000) | (state[(i + 1) % 624] & 0x7fffffff);
        state[i] = state[(i + 397) % 624] ^ (bits >>> 1) ^ (bits & 1 ? 0x9908b0df : 0);
      }
      used = 0;
    }
    let y = state[used];
    used += 1;
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  };
  return () => {
    const high = word() >>> 5;
    return (high * 67108864 + (word() >>> 6)) / 9007199254740992;
  };
}

const FEWEST = 60000;
const MOST = 240000;
const LONG_S = 40000;
const arrivals = { times: null, work: null };

// When requests come at one a second, and their service time in units of the mean.
function drawArrivals() {
  if (arrivals.times) return arrivals;
  const draw = generator(14);
  const services = data.service_times;
  arrivals.times = new Float64Array(MOST);
  arrivals.work = new Float64Array(MOST);
  let time = 0;
  for (let i = 0; i < MOST; i += 1) {
    time = i ? time - Math.log(1 - draw()) : -Math.log(1 - draw());
    arrivals.times[i] = time;
    arrivals.work[i] = services[Math.floor(draw() * 1000)];
  }
  return arrivals;
}

const replays = new Map();

function replayed(load) {
  const key = Object.values(load).join(" ");
  if (!replays.has(key)) replays.set(key, replay(load));
  return replays.get(key);
}

function replay({ rate, service, idle, boot, slots, most, always }) {
  let count = FEWEST;
  while (count < Math.min(MOST, rate * LONG_S)) count *= 2;
  const { times, work } = drawArrivals();
  const began = times[Math.floor(count / 10)] / rate;
  const end = times[count - 1] / rate;
  const warm = Math.ceil((rate * service) / slots);
  const held = Array.from({ length: most }, () => []); // when what a worker holds is answered, soonest first
  const quiet = held.map((_, i) => (i < warm ? 0 : -Infinity));
  const since = held.map((_, i) => (i < warm ? 0 : Infinity));
  const ready = held.map(() => 0);
  let up = 0;
  let answering = 0;
  let booting = 0;
  let starts = 0;
  const counted = (start, stop) => Math.max(0, Math.min(stop, end) - Math.max(start, began));
  for (let i = 0; i < count; i += 1) {
    const now = times[i] / rate;
    let index = -1;
    let begin = 0;
    for (let one = 0; one < most; one += 1) {
      const ends = held[one];
      while (ends.length && ends[0] <= now) ends.shift();
      if (one >= always && now > quiet[one] + idle) {
        up += counted(since[one], quiet[one] + idle);
        since[one] = now;
        ready[one] = now + boot;
        booting += counted(now, ready[one]);
        starts += now >= began ? 1 : 0;
      }
      if (ends.length < slots) {
        index = one;
        begin = Math.max(now, ready[one]);
        break;
      }
    }
    if (index < 0) {
      index = 0;
      for (let one = 1; one < most; one += 1) if (held[one][0] < held[index][0]) index = one;
      begin = held[index].shift();
    }
    const stop = begin + work[i] * service;
    const ends = held[index];
    let place = ends.length;
    while (place > 0 && ends[place - 1] > stop) place -= 1;
    ends.splice(place, 0, stop);
    if (index >= always) answering += counted(Math.max(begin, quiet[index]), stop);
    quiet[index] = Math.max(quiet[index], stop);
  }
  const rest = [];
  for (let one = always; one < most; one += 1) rest.push(counted(since[one], quiet[one] + idle));
  up += preciseSum(rest);
  const seconds = end - began;
  const resting = Math.max(0, up - answering - booting);
  const workers = always + answering / seconds + resting / seconds + booting / seconds;
  return { workers, always, starts: starts / seconds };
}

// Requests a second above which one worker is up for more than `share` of the time; Infinity if never.
function alwaysOnRate(service, idle, boot, share) {
  if (share >= 1) return Infinity;
  const up = (rate) => awake({ rate, service, idle, boot, slots: 1e9, most: 1, always: 0 }).workers;
  let low = 0;
  let high = 1;
  while (up(high) < share) high *= 2;
  for (let i = 0; i < 200; i += 1) {
    const middle = (low + high) / 2;
    if (up(middle) < share) low = middle;
    else high = middle;
  }
  return high;
}

// Whole worker-seconds in some hours.
function workerSeconds(workers, hours) {
  const exact = workers * hours * 3600;
  const floor = Math.floor(exact);
  const rest = exact - floor;
  return Decimal.of(rest > 0.5 || (rest === 0.5 && floor % 2) ? floor + 1 : floor);
}
