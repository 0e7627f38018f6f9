// Decimal numbers as the estimates use them: 28 significant digits, rounded half to even after each operation. The
// same operations in the same order give the same cents here and in `serving`.

const DIGITS = 28;
const powers = [1n];

function tenTo(count) {
  while (powers.length <= count) powers.push(powers[powers.length - 1] * 10n);
  return powers[count];
}

const sizeOf = (whole) => (whole < 0n ? -whole : whole).toString().length;

// A quotient of whole numbers; `up` decides on a remainder: (quotient, twice the remainder compared with the divisor).
function divided(whole, divisor, up) {
  const size = whole < 0n ? -whole : whole;
  let quotient = size / divisor;
  const rest = 2n * (size % divisor);
  if (rest && up(quotient, rest > divisor ? 1 : rest < divisor ? -1 : 0)) quotient += 1n;
  return whole < 0n ? -quotient : quotient;
}

const halfEven = (quotient, half) => half > 0 || (half === 0 && quotient % 2n === 1n);
const halfUp = (quotient, half) => half >= 0;

class Decimal {
  constructor(whole, exponent) {
    const excess = sizeOf(whole) - DIGITS;
    if (excess > 0) {
      whole = divided(whole, tenTo(excess), halfEven);
      exponent += excess;
    }
    this.whole = whole;
    this.exponent = exponent;
  }

  // From a Decimal, a whole number, or text such as "12.5" and "1E-7".
  static of(value) {
    if (value instanceof Decimal) return value;
    if (typeof value === "bigint" || Number.isInteger(value)) return new Decimal(BigInt(value), 0);
    const [, sign, before, after = "", exponent = "0"] = /^(-?)(\d+)(?:\.(\d*))?(?:E([+-]?\d+))?$/i.exec(value);
    return new Decimal(BigInt(sign + before + after), Number(exponent) - after.length);
  }

  plus(other) {
    const b = Decimal.of(other);
    const exponent = Math.min(this.exponent, b.exponent);
    return new Decimal(this.scaledTo(exponent) + b.scaledTo(exponent), exponent);
  }

  minus(other) {
    const b = Decimal.of(other);
    return this.plus(new Decimal(-b.whole, b.exponent));
  }

  times(other) {
    const b = Decimal.of(other);
    return new Decimal(this.whole * b.whole, this.exponent + b.exponent);
  }

  over(other) {
    const b = Decimal.of(other);
    const shift = Math.max(0, DIGITS + 2 + sizeOf(b.whole) - sizeOf(this.whole));
    const numerator = this.whole * tenTo(shift) * (b.whole < 0n ? -1n : 1n);
    const divisor = b.whole < 0n ? -b.whole : b.whole;
    const quotient = numerator / divisor;
    // One more digit stands for all that follow.
    const beyond = numerator % divisor === 0n ? 0n : numerator < 0n ? -1n : 1n;
    return new Decimal(quotient * 10n + beyond, this.exponent - b.exponent - shift - 1);
  }

  // Below 0 when it is less than `other`, 0 when equal.
  compare(other) {
    const b = Decimal.of(other);
    const exponent = Math.min(this.exponent, b.exponent);
    const left = this.scaledTo(exponent);
    const right = b.scaledTo(exponent);
    return left < right ? -1 : left > right ? 1 : 0;
  }

  less(other) {
    return this.compare(other) < 0;
  }

  // Whole numbers: towards zero, upwards, and half to even.
  floor() {
    return this.exponent >= 0 ? this.scaledTo(0) : this.whole / tenTo(-this.exponent);
  }

  ceiling() {
    return this.exponent >= 0 ? this.scaledTo(0) : divided(this.whole, tenTo(-this.exponent), () => this.whole > 0n);
  }

  round() {
    return this.exponent >= 0 ? this.scaledTo(0) : divided(this.whole, tenTo(-this.exponent), halfEven);
  }

  // To so many decimals, half up.
  quantize(places) {
    const drop = -places - this.exponent;
    return new Decimal(drop > 0 ? divided(this.whole, tenTo(drop), halfUp) : this.scaledTo(-places), -places);
  }

  toFixed(places) {
    const { whole } = this.quantize(places);
    const text = (whole < 0n ? -whole : whole).toString().padStart(places + 1, "0");
    const dot = text.length - places;
    return (whole < 0n ? "-" : "") + text.slice(0, dot) + (places ? "." + text.slice(dot) : "");
  }

  toString() {
    const places = Math.max(0, -this.exponent);
    const text = this.toFixed(places);
    return places ? text.replace(/\.?0+$/, "") : text;
  }

  toNumber() {
    return Number(`${this.whole}e${this.exponent}`);
  }

  scaledTo(exponent) {
    return this.whole * tenTo(this.exponent - exponent);
  }
}

const ZERO = Decimal.of(0);
const ONE = Decimal.of(1);
const least = (a, b) => (b.less(a) ? b : a);
const most = (a, b) => (a.less(b) ? b : a);
