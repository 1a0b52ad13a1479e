/** What failed, in the peer's words, and what to do: to try again, not before the peer wants it. */

import { useEffect, useState } from "preact/hooks";
import type { ApiError } from "../api";
import { t } from "../texts";

interface Props {
  text: string;
  error: ApiError;
  retry?: () => void;
}

export function Problem({ text, error, retry }: Props) {
  return (
    <div class="problem" role="alert">
      <p>{text}</p>
      {retry && (error.retryAfterS !== null || error.refusal === "unreachable") && (
        <RetryButton key={error} seconds={error.retryAfterS ?? 0} retry={retry} />
      )}
    </div>
  );
}

function RetryButton({ seconds, retry }: { seconds: number; retry: () => void }) {
  const [left, setLeft] = useState(seconds);
  useEffect(() => {
    if (left <= 0) return;
    const timer = setTimeout(() => setLeft(left - 1), 1_000);
    return () => clearTimeout(timer);
  }, [left]);
  return (
    <button type="button" disabled={left > 0} onClick={retry}>
      {left > 0 ? t.value.tryAgainIn(left) : t.value.tryAgain}
    </button>
  );
}
