/** The few signs of the page, drawn in the colour of the text. Whoever uses one names it in words. */

const PATHS = {
  close: "M4 4l8 8M12 4l-8 8",
  dice: "M3 3h10v10H3zM6 6h.01M10 6h.01M8 8h.01M6 10h.01M10 10h.01",
  locked: "M4 7h8v6H4zM5.5 7V5a2.5 2.5 0 0 1 5 0v2",
  unlocked: "M4 7h8v6H4zM5.5 7V5a2.5 2.5 0 0 1 4.8-1",
  previous: "M10 3L5 8l5 5",
  next: "M6 3l5 5-5 5",
} as const;

export function Icon({ name }: { name: keyof typeof PATHS }) {
  return (
    <svg viewBox="0 0 16 16" width="16" height="16" aria-hidden="true" focusable="false" class="sign">
      <path d={PATHS[name]} />
    </svg>
  );
}
