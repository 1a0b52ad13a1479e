/** Reading how a picture was drawn, from a file of the person's. */

import { ApiError, pngInfo } from "../api";
import { t } from "../texts";
import { fill, filledBy } from "./form-state";
import { fromPng } from "./parameters";

export async function readPng(file: File): Promise<void> {
  const texts = t.value;
  if (file.type !== "image/png" && !/\.png$/i.test(file.name)) {
    filledBy.value = texts.pngNotPng(file.name);
    return;
  }
  try {
    const parameters = fromPng(await pngInfo(await dataUrl(file)));
    if (parameters) fill(parameters, texts.pngRead(file.name));
    else filledBy.value = texts.pngEmpty(file.name);
  } catch (error) {
    const isSilent = error instanceof ApiError && error.refusal === "unreachable";
    filledBy.value = texts.pngFailed(isSilent ? texts.unreachable : String((error as Error).message));
  }
}

function dataUrl(file: File): Promise<string> {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(String(reader.result));
    reader.onerror = () => reject(reader.error ?? new Error("unreadable"));
    reader.readAsDataURL(file);
  });
}
