/** The page's own jobs, newest first: what is sent, in work, and just ended. */

import type { ApiError } from "../api";
import { t } from "../texts";
import { Icon } from "../parts/icon";
import { BlobPicture } from "../parts/blob-picture";
import { Problem } from "../parts/problem";
import { form } from "./form-state";
import {
  cancel, cancelling, cancelProblem, dismiss, dismissEnded, hasEndedRows, lineStands, rows, send, sending, unsend,
  type Sending,
} from "./jobs";
import { formOf } from "./order";
import { Others } from "./others";
import { begunOf } from "./parameters";
import { PictureButton, SourcePicture } from "./picture";
import { restoreSource } from "./source";
import { isOver, share, words, type Tracked } from "./tracked";

export function JobRows() {
  const isEmpty = rows.value.length === 0 && sending.value.length === 0;
  return (
    <section aria-labelledby="jobs-title">
      <div class="section-head">
        <h2 id="jobs-title">{t.value.jobsTitle}</h2>
        <span class="hint" role="status">{t.value.line(lineStands.value)}</span>
        {hasEndedRows.value && (
          <button type="button" class="quiet" onClick={dismissEnded}>{t.value.jobsClear}</button>
        )}
      </div>
      {cancelProblem.value && (
        <Problem text={t.value.cancelFailed(cancelProblem.value.message)} error={cancelProblem.value} />
      )}
      {isEmpty && <p class="empty">{t.value.jobsNone}</p>}
      <ul class="jobs">
        {sending.value.map((one) => <SendingRow key={one.key} one={one} />)}
        {rows.value.map((one) => <JobRow key={one.id} one={one} />)}
      </ul>
      <Others />
    </section>
  );
}

function SendingRow({ one }: { one: Sending }) {
  const { problem, order, key, uploads, source } = one;
  const edit = () => {
    form.value = formOf(order);
    restoreSource(source);
    unsend(key);
    document.getElementById("prompt")?.focus();
  };
  return (
    <li class="job">
      {source && <BlobPicture blob={source.blob} alt={t.value.sourceAlt(source.name)} class="begun" />}
      <div class="job-text">
        <p class="job-prompt">{order.prompt}</p>
        {!problem && <p class="job-state" role="status">{uploads ? t.value.uploading : t.value.sending}</p>}
        {problem && (
          <>
            <Problem
              text={wordsOf(problem, uploads)}
              error={problem}
              retry={() => void send(one)}
            />
            <div class="buttons">
              <button type="button" class="quiet" onClick={edit}>{t.value.edit}</button>
              <button type="button" class="quiet" onClick={() => unsend(key)}>{t.value.dismiss}</button>
            </div>
          </>
        )}
      </div>
    </li>
  );
}

function wordsOf(problem: ApiError, uploads: boolean): string {
  const silent = problem.refusal === "unreachable";
  if (uploads) return silent ? t.value.uploadUnanswered : t.value.uploadFailed(problem.message);
  return silent ? t.value.noAnswer : t.value.notAccepted(problem.message);
}

function JobRow({ one }: { one: Tracked }) {
  const { job, preview, nodes } = one;
  const prompt = job?.prompt ?? one.id;
  const over = isOver(one);
  const begun = job ? begunOf(job).image : undefined;
  const isCancelling = cancelling.value.has(one.id);
  return (
    <li class="job" data-job={one.id} data-phase={job?.phase ?? "unknown"}>
      {begun && <SourcePicture digest={begun} prompt={prompt} />}
      {preview && !over && <img class="preview" src={preview} alt={t.value.previewAlt(prompt)} />}
      <div class="job-text">
        <p class="job-prompt">{prompt}</p>
        <p class={`job-state ${job?.phase === "failed" ? "bad" : ""}`}>{words(one, t.value)}</p>
        {/* Steps come many a second; what is said aloud leaves them out. */}
        <p class="visually-hidden" aria-live="polite">{words({ ...one, progress: null }, t.value)}</p>
        {nodes.length > 1 && <p class="hint">{t.value.path(nodes.join(" → "))}</p>}
        {job?.phase === "failed" && <p class="hint">{t.value.failedHint}</p>}
        {!over && (
          <progress max={1} value={share(one)} aria-label={t.value.progressLabel(prompt)} />
        )}
        {job?.phase === "succeeded" && (
          <div class="strip">
            {job.images.map((picture, index) => (
              <PictureButton key={picture.digest + index} tile={{ job, picture, index }} />
            ))}
          </div>
        )}
      </div>
      {over ? (
        <button type="button" class="icon" aria-label={t.value.dismiss} title={t.value.dismiss}
          onClick={() => dismiss(one.id)}>
          <Icon name="close" />
        </button>
      ) : (
        job && (
          <button type="button" disabled={isCancelling} onClick={() => void cancel(job)}>
            {isCancelling ? t.value.cancelling : t.value.cancel}
          </button>
        )
      )}
    </li>
  );
}
