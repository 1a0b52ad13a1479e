/** Numbers, ages and digests as people read them. Pure: the language and the time are parameters. */

/** 1234567 → "1,234,567". */
export function count(value: number, language: string): string {
  return new Intl.NumberFormat(language).format(value);
}

/** Three digits that count: 0.123, 1.23, 12.3, 123. */
export function rate(value: number, language: string): string {
  const digits = value >= 100 ? 0 : value >= 10 ? 1 : 2;
  return new Intl.NumberFormat(language, { maximumFractionDigits: digits }).format(value);
}

/** A span of time with its two largest units at most: "350 ms", "4.2 s", "3 min 5 s", "2 h 10 min", "3 d 4 h". */
export function span(ms: number): string {
  const all = Math.max(0, ms);
  if (all < 999.5) return `${Math.round(all)} ms`;
  if (all < 59_950) return `${(all / 1_000).toFixed(1)} s`;
  return coarse(Math.round(all / 1_000));
}

/** An age: as `span`, in whole seconds. */
export function age(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1_000));
  return seconds < 60 ? `${seconds} s` : coarse(seconds);
}

function coarse(seconds: number): string {
  const [minutes, hours, days] = [Math.floor(seconds / 60), Math.floor(seconds / 3_600), Math.floor(seconds / 86_400)];
  if (hours < 1) return `${minutes} min ${seconds % 60} s`;
  if (days < 1) return `${hours} h ${minutes % 60} min`;
  return `${days} d ${hours % 24} h`;
}

export function bytes(value: number): string {
  const units = ["B", "KiB", "MiB", "GiB"];
  let [left, unit] = [value, 0];
  while (left >= 1_024 && unit < units.length - 1) [left, unit] = [left / 1_024, unit + 1];
  return `${unit === 0 || left >= 100 ? Math.round(left) : left.toFixed(1)} ${units[unit]}`;
}

/** A moment: the time alone where it is of today. */
export function moment(ms: number, now: number, language: string): string {
  if (ms <= 0) return "–";
  const [at, today] = [new Date(ms), new Date(now)];
  const time = at.toLocaleTimeString(language, { hour12: false });
  if (at.toDateString() === today.toDateString()) return time;
  return `${at.toLocaleDateString(language)} ${time}`;
}

/** A model's name and the first digits of its hash: "z-image-turbo@0123abcd…" → ["z-image-turbo", "0123abcd"]. */
export function model(title: string): { name: string; hash: string } {
  const at = title.lastIndexOf("@");
  if (at < 0) return { name: title, hash: "" };
  return { name: title.slice(0, at), hash: title.slice(at + 1).replace(/^\w+:/, "").slice(0, 8) };
}

/** 1st, 2nd, 3rd, 4th, 11th, 21st … */
export function ordinal(value: number): string {
  const tens = value % 100;
  if (tens >= 11 && tens <= 13) return `${value}th`;
  return `${value}${["th", "st", "nd", "rd"][value % 10] ?? "th"}`;
}
